"""The packages that a machine with PyTorch, and without network, lacks."""

from __future__ import annotations

import subprocess
import sys
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
PLATFORMS = [f"manylinux{version}_x86_64" for version in ("_2_28", "_2_27", "_2_17", "2014", "1")]
LARGEST = 64 * 2**20
"""Bytes that the wheels together may have, so that they travel easily."""


def pack(folder: Path, python: str) -> str:
    """Download the wheels into a folder, and return in words what there is.

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
        wheels = sorted(Path(place).glob("*.whl"))
        size = sum(wheel.stat().st_size for wheel in wheels)
        if size > LARGEST:
            raise OSError(f"the wheels have {size / 2**20:.0f} MB, more than {LARGEST / 2**20:.0f}")
        folder.mkdir(exist_ok=True)
        for wheel in wheels:
            wheel.replace(folder / wheel.name)
    return (
        f"{len(wheels)} wheels, {size / 2**20:.0f} MB, in {folder}. On the other machine:\n"
        f"python3 -m pip install --no-index --no-deps {folder}/*.whl\n"
        "python3 -m pip install --no-index --no-deps --no-build-isolation -e ."
    )


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(f"pip {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")
