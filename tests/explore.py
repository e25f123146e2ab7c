"""Look for failures of property tests with fresh seeds, for as long as asked.

    make explore                      # ten minutes
    make explore MINUTES=60 PATHS=tests/rlbilinear

Each round runs all property tests under a seed of its own, with ten times as many examples as
`make test`. A failure is printed with the command that repeats it, and the search continues.
"""

from __future__ import annotations

import argparse
import re
import secrets
import shlex
import subprocess
import sys
import time

PASSED = re.compile(r"(\d+) passing, \d+ failing")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.M)
NO_TESTS = 5
"""pytest's exit code when it selected no test."""


def command(seed: int, paths: list[str]) -> list[str]:
    """Return the command of one round."""
    selected = ["-m", "hypothesis and not slow", "-p", "no:cacheprovider", "-q"]
    drawn = ["--hypothesis-profile=explore", f"--hypothesis-seed={seed}"]
    return [sys.executable, "-m", "pytest", *selected, *drawn, *paths]


def main() -> int:
    """Explore; return 1 when a test failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="*", default=["tests"], help="folders or files of tests")
    parser.add_argument("--minutes", type=float, default=10, help="for how long rounds begin")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    until = time.monotonic() + 60 * options.minutes
    rounds = examples = failures = 0
    while not rounds or time.monotonic() < until:
        seed = secrets.randbits(32)
        words = command(seed, options.paths)
        done = subprocess.run(
            [*words, "--hypothesis-show-statistics"], capture_output=True, text=True
        )
        if done.returncode == NO_TESTS:
            parser.error(f"no property tests in {' '.join(options.paths)}")
        rounds += 1
        examples += sum(map(int, PASSED.findall(done.stdout)))
        failed = FAILED.findall(done.stdout)
        if done.returncode and not failed:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
            return 1
        failures += len(failed)
        for test in failed:
            print(f"failed: {shlex.join(command(seed, [test]))}", flush=True)
        print(
            f"seed {seed}: {len(failed)} failed; so far {rounds} seeds, {examples:,} examples, "
            f"{failures} failures",
            flush=True,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
