"""How commands end: by an exit code, with a message, and with nothing half-written."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import tyro

from rlbilinear.agents import CheckpointError
from rlbilinear.commands.running import Command, Count, Failed, Scale, Seed, Several, exit_codes


@dataclass(frozen=True)
class TinyOptions:
    """Options of a command that does next to nothing."""

    count: Count = 2
    seeds: Several[Seed] = ()
    levels: Several[int] = (3, 4)
    limit: Count | None = None
    scale: Scale = 1.0


@dataclass(frozen=True)
class OuterOptions:
    """Options of a command that has others inside."""

    inner: Annotated[TinyOptions, tyro.conf.arg(name="")]
    out: Path = Path("runs")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--count 0", "--count: expected 1 or more, got 0"),
        ("--seeds 3 -1", "--seeds: expected 0 or more, got -1"),
        ("--seeds 3 2147483648", "--seeds: expected 2147483647 or less, got 2147483648"),
        ("--scale nan", "--scale: expected 0 or more, got nan"),
        ("--scale inf", "--scale: expected 0 or more, got inf"),
        ("--out=~/runs", "--out: write it without =, or without ~; got ~/runs"),
    ],
)
def test_options_out_of_their_range_are_named(ends, words, message):
    command = Command(OuterOptions, lambda options: None, "")
    assert ends(2, command, words.split(), "rlbilinear tiny") == f"rlbilinear tiny: {message}"
    command(["--out=a~", "--scale", "0"], "rlbilinear tiny")


def raising(error):
    def work(options):
        raise error

    return Command(TinyOptions, work, "", lambda options: f"count {options.count} resumes")


def test_a_command_that_is_done_returns(capsys):
    given = []
    command = Command(TinyOptions, given.append, "Does next to nothing.")
    command(["--count", "3", "--seeds", "0", "7", "--limit", "1"], "rlbilinear tiny")
    assert given == [TinyOptions(3, (0, 7), (3, 4), 1)]
    with pytest.raises(SystemExit) as ended:
        command(["--help"], "rlbilinear tiny")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "usage: rlbilinear tiny" in said and "Does next to nothing." in said
    assert "(optional)" in said and "(default: 3 4)" in said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no such layer"), 2),
        (FileExistsError("out exists"), 2),
        (CheckpointError("altered"), 1),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 1),
        (np.linalg.LinAlgError("did not converge"), 1),
        (FloatingPointError("diverged"), 1),
        (OSError("cannot write"), 1),
        (Failed("above the bound"), 1),
        (ImportError("the simulator cannot be loaded"), 1),
        (MemoryError("no memory"), 1),
    ],
)
def test_errors_become_exit_codes(ends, error, code):
    assert ends(code, raising(error), [], "rlbilinear tiny") == f"rlbilinear tiny: {error}"


def test_faults_of_the_program_are_not_hidden():
    for fault in (TypeError, KeyError, RuntimeError):
        with pytest.raises(fault):
            raising(fault("unforeseen"))([])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "0"], "--count: expected 1 or more, got 0"),
        (["--count", "many"], "--count: invalid literal"),
        (["--seeds", "1", "-1"], "--seeds: expected 0 or more, got -1"),
        (["--limit", "0"], "--limit: expected 1 or more, got 0"),
        (["--cuont", "3"], "Perhaps you meant: --count"),
    ],
)
def test_options_out_of_range_are_named(ends, words, message):
    assert message in ends(2, raising(AssertionError()), words, "rlbilinear tiny")


def test_the_program_names_itself_by_its_file(ends, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/tiny.py", "--count", "2"])
    assert ends(2, raising(ValueError("no"))) == "tiny.py: no"


def test_an_interrupted_command_says_how_it_is_resumed(ends):
    def stop(number):
        return Command(
            TinyOptions,
            lambda _: os.kill(os.getpid(), number),
            "",
            lambda options: f"count {options.count} resumes",
        )

    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        assert ends(code, stop(number), ["--count", "5"]) == "stopped; count 5 resumes"
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_cleans_up_runs_on_sigterm(tmp_path):
    from rlbilinear.agents.folder import new_folder

    def work(_):
        with new_folder(tmp_path / "out", marker="mark"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        Command(TinyOptions, work, "")([])
    assert not list(tmp_path.iterdir())


def test_an_interrupt_while_modules_load_is_no_traceback(ends):
    def load():
        with exit_codes("rlbilinear"):
            os.kill(os.getpid(), signal.SIGINT)

    assert ends(130, load) == "stopped"


PRINTING = """
from rlbilinear.commands.running import Command
from dataclasses import dataclass
@dataclass
class Options: pass
Command(Options, lambda _: print("R\\u00b2 \\u2588" + "x" * 100_000), "")([])
"""


def start(**settings):
    return subprocess.Popen(
        [sys.executable, "-c", PRINTING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def test_a_reader_that_has_read_enough_is_no_error():
    process = start()
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 1)


def test_a_terminal_without_a_character_shows_another():
    process = start(env={**os.environ, "PYTHONIOENCODING": "ascii"})
    said, errors = process.communicate()
    assert said.startswith("R? ?xx") and (errors, process.returncode) == ("", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, of Linux")
def test_output_that_cannot_be_written_is_a_failure():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", PRINTING], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
