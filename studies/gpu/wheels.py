"""The packages and libraries that a machine with PyTorch, and without network, lacks."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NEEDED = (
    "procgen-mirror",
    "gym3",
    "gym-notices",
    "gymnasium",
    "farama-notifications",
    "stable-baselines3",
    "cloudpickle",
    "glfw",
    "moderngl",
    "glcontext",
    "cffi",
    "pycparser",
    "tyro",
    "docstring-parser",
    "typeguard",
    "shtab",
    "lazy-loader",
)
"""Packages with wheels. PyTorch, numpy, scikit-learn, pandas, matplotlib, tensorboard and the like
are taken as given."""
BUILT = ("gym==0.26.2",)
"""A package that is published as source only; the simulator asks for it."""
SYSTEM = r"lib(c|m|dl|rt|pthread|resolv|gcc_s|stdc\+\+|z)\.so"
"""Libraries that every Linux has."""
LIBRARIES = "libraries.tar.xz"
PLATFORMS = [f"manylinux{version}_x86_64" for version in ("_2_28", "_2_27", "_2_17", "2014", "1")]
LARGEST = 64 * 2**20
"""Bytes that the wheels together may have, so that they travel easily."""


def pack(folder: Path, python: str) -> str:
    """Download the wheels into a folder, and return in words what there is.

    The system's libraries that the simulator needs, libGL for one, are copied from this machine.

    Args:
        folder: is made; wheels that are there stay.
        python: version of the other machine's Python, such as 3.12.

    Raises:
        OSError: a wheel could not be had, or they are too large together.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        other = ["--only-binary=:all:", "--python-version", python, *platforms]
        _pip("download", "--no-deps", *other, "--dest", place, *NEEDED)
        _pip("wheel", "--no-deps", "--wheel-dir", place, *BUILT)
        with tarfile.open(Path(place, LIBRARIES), "w:xz") as archive:
            for library in _libraries():
                archive.add(library.resolve(), library.name)
        wheels = sorted(Path(place).iterdir())
        size = sum(wheel.stat().st_size for wheel in wheels)
        if size > LARGEST:
            raise OSError(f"the wheels have {size / 2**20:.0f} MB, more than {LARGEST / 2**20:.0f}")
        folder.mkdir(exist_ok=True)
        for wheel in wheels:
            wheel.replace(folder / wheel.name)
    return (
        f"{len(wheels)} files, {size / 2**20:.0f} MB, in {folder}. On the other machine:\n"
        f"python3 -m pip install --no-index --no-deps {folder}/*.whl\n"
        "python3 -m pip install --no-index --no-deps --no-build-isolation -e .\n"
        f"mkdir -p libraries && tar xf {folder}/{LIBRARIES} -C libraries\n"
        "export LD_LIBRARY_PATH=$PWD/libraries"
    )


def _libraries() -> list[Path]:
    """Return the files of the system that the simulator is linked with, beyond `SYSTEM`.

    Raises:
        OSError: the simulator or one of them is not here.
    """
    found = importlib.util.find_spec("procgen")
    if found is None or found.origin is None:
        raise OSError("the simulator is not installed here: its libraries cannot be packed")
    package = Path(found.origin).parent
    linked = package / "data" / "prebuilt" / "libenv.so"
    listed = subprocess.run(["ldd", linked], capture_output=True, text=True, check=True).stdout
    if missing := re.findall(r"(\S+) => not found", listed):
        raise OSError(f"the simulator's libraries are not here: {', '.join(missing)}")
    files = [Path(file) for file in re.findall(r"=> (\S+) \(", listed)]
    return [
        file
        for file in files
        if not re.match(SYSTEM, file.name) and package.parent not in file.resolve().parents
    ]


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(f"pip {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")
