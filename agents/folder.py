"""Folders written whole or not at all, and the record of how a result was made."""

import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("rlbilinear", "torch", "numpy", "stable-baselines3", "procgen", "procgen-mirror")


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False, marker: str) -> Iterator[Path]:
    """Give a temporary folder to write into, moved to ``path`` when the block ends well.

    Args:
        path: where the folder will be; its parents are made.
        overwrite: replace a folder that is there.
        marker: a file that a folder of the same kind holds; without it, nothing is replaced.

    Raises:
        FileExistsError: ``path`` is there, and may not be replaced.
    """
    path = Path(path).absolute()
    check_free(path, overwrite=overwrite, marker=marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with this number
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    finally:
        if replaced.exists() and not path.exists():  # interrupted between the two
            replaced.rename(path)
        shutil.rmtree(replaced, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(path: str | Path, *, overwrite: bool, marker: str) -> None:
    """Refuse a place where a folder is that must not be replaced.

    Raises:
        FileExistsError: it exists and ``overwrite`` is off, or it is not a folder with ``marker``.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists; choose another place, or overwrite it")
    if not (path / marker).is_file():
        raise FileExistsError(f"{path} holds no {marker}: it is not overwritten")


def sha256(file: Path) -> str:
    """Return a file's SHA-256 as hexadecimal text."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON by way of a temporary name, so that no reader meets half a file."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def provenance() -> dict[str, Any]:
    """Return how this process was started, on what, and with which versions.

    The command names no folder of this machine outside the working directory.
    """
    script = "/".join(Path(sys.argv[0]).parts[-2:])
    versions = {name: found for name in _PACKAGES if (found := _version(name))}
    return {
        "command": shlex.join(["python", script, *map(_without_machine, sys.argv[1:])]),
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version(), **versions},
    }


def _without_machine(argument: str) -> str:
    """Shorten an absolute path, alone or after ``--option=``, to its place in the working folder.

    One that lies elsewhere keeps its last part only.
    """
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return argument
    here = Path.cwd()
    return f"{option}{equals}{path.relative_to(here) if path.is_relative_to(here) else path.name}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
