"""Show what is installed, what is missing, and the device that is used.

    rlbilinear doctor

Fails when something is missing that rlbilinear needs; extras may be missing.
"""

import ctypes
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import Requirement

from rlbilinear.commands.running import Command, Failed

if TYPE_CHECKING:
    from rlbilinear.agents import Agent

LIBRARIES = {"libGL.so.1": "libgl1", "libglib-2.0.so.0": "libglib2.0-0"}
"""System libraries that the simulator needs on Linux, and the packages of Debian and Ubuntu."""
FASTER = 1.1
"""How much faster bfloat16 must be than float32 to be recommended."""
BATCH, REPEATS, BUDGET = 32, 7, 5.0
"""Observations, repeats, and the seconds after which none is started, of that measurement."""


class Finding(NamedTuple):
    """A line of the report."""

    subject: str
    found: str
    problem: bool = False


@dataclass(frozen=True)
class DoctorOptions:
    """Show what is installed, what is missing, and the device that is used."""


def _doctor(_: DoctorOptions) -> None:
    """Print all findings, section by section, as they are made.

    Raises:
        Failed: something is missing.
    """
    sections = {
        "Python": python(),
        "Packages": packages(),
        "Extras": extras(),
        "System libraries": libraries(),
        "Simulator": simulator(),
        "Device": device(),
    }
    problems = []
    for title, findings in sections.items():
        print(title)
        for finding in findings:
            print(f"  {finding.subject:24} {finding.found}", flush=True)
            if finding.problem:
                problems.append(finding.subject)
    if problems:
        raise Failed(f"problems with {', '.join(problems)}: see above")


def python() -> Iterator[Finding]:
    """Yield the versions of Python, the system and this package."""
    yield Finding("rlbilinear", version("rlbilinear"))
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("system", f"{platform.platform()}, {os.cpu_count()} cores")


def packages() -> Iterator[Finding]:
    """Yield the packages that rlbilinear needs."""
    for requirement in requirements():
        yield installed(requirement, needed=True)


def extras() -> Iterator[Finding]:
    """Yield the packages of each extra."""
    for extra in metadata("rlbilinear").get_all("Provides-Extra") or []:
        for requirement in requirements(extra):
            found = installed(requirement, needed=False)
            yield found._replace(subject=f"{extra}: {found.subject}")


def requirements(extra: str = "") -> list[Requirement]:
    """Return what rlbilinear requires on this Python and system, or what an extra of it adds."""
    declared = map(Requirement, metadata("rlbilinear").get_all("Requires-Dist") or [])
    if not extra:
        return [each for each in declared if not each.marker or each.marker.evaluate({"extra": ""})]
    return [
        each
        for each in declared
        if each.marker
        and each.marker.evaluate({"extra": extra})
        and not each.marker.evaluate({"extra": ""})
    ]


def installed(requirement: Requirement, *, needed: bool) -> Finding:
    """Say whether a package is installed, and in a version that is supported."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(requirement.name, f"missing; pip install '{_asked(requirement)}'", needed)
    if not requirement.specifier.contains(found, prereleases=True):
        wrong = f"{found} is not supported; pip install '{_asked(requirement)}'"
        return Finding(requirement.name, wrong, needed)
    return Finding(requirement.name, found)


def _asked(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def has_simulator_wheels() -> bool:
    """Return whether rlbilinear requires the simulator on this Python and system."""
    return any(each.name.startswith("procgen") for each in requirements())


def libraries() -> Iterator[Finding]:
    """Yield the system libraries; wheels for other systems than Linux bring their own."""
    if sys.platform != "linux":
        yield Finding("none", f"needed on {sys.platform}")
        return
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            hint = f"missing; Debian and Ubuntu: apt-get install {package}"
            yield Finding(library, hint, problem=has_simulator_wheels())
        else:
            yield Finding(library, "found")


def simulator() -> Iterator[Finding]:
    """Yield whether a game starts; without wheels for this Python it need not."""
    try:
        from rlbilinear.envs import ProcgenVecEnv

        env = ProcgenVecEnv("coinrun", 1)
        env.reset()
        env.close()
    except (ImportError, OSError) as error:
        yield Finding("procgen", str(error), problem=has_simulator_wheels())
    else:
        yield Finding("procgen", "a game was started")


def device() -> Iterator[Finding]:
    """Yield the device that ``--device auto`` takes, and how fast bfloat16 is there."""
    try:
        import torch

        from rlbilinear.agents import Agent
        from rlbilinear.agents.network import find_device
    except (ImportError, OSError) as error:
        yield Finding("torch", f"agents cannot be imported: {error}", problem=True)
        return
    chosen = find_device("auto")
    cuda = chosen.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} threads"
    yield Finding("--device auto", f"{chosen} ({name})")
    ratio = bfloat16_speed(Agent.new("bimpala-compact", device=chosen))
    advice = "use --precision bfloat16" if ratio >= FASTER else "keep --precision float32"
    yield Finding("bfloat16", f"{ratio:.2g} times as fast as float32 in training: {advice}")


def bfloat16_speed(agent: "Agent") -> float:
    """Return how many times faster an agent's body is in bfloat16 than in float32, both ways."""
    import torch

    shape = (BATCH, *agent.config.observation_shape)
    observations = torch.randint(256, shape, dtype=torch.uint8, device=agent.device)
    cuda = agent.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time  # other processes take no part in it

    def seconds(bfloat16: bool) -> float:
        start = clock()
        with torch.autocast(agent.device.type, torch.bfloat16, enabled=bfloat16):
            features = agent.policy.extract_features(observations)
        assert isinstance(features, torch.Tensor)  # one body for actor and critic
        features.float().square().mean().backward()
        if cuda:
            torch.cuda.synchronize()
        return clock() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more wait for each other where other processes run
    try:
        seconds(False), seconds(True)  # the first calls load what is loaded once
        precise: list[float] = []
        reduced: list[float] = []
        while len(precise) < REPEATS and sum(precise) + sum(reduced) < BUDGET:
            precise.append(seconds(False))
            reduced.append(seconds(True))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(precise) / statistics.median(reduced)


main = Command(DoctorOptions, _doctor, __doc__)
