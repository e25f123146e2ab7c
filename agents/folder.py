"""Write folders and files completely or not at all; lock folders; record how a result was made."""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

LOCK, HOLDER = ".lock", ".holder.json"
"""In a folder that a process holds: the operating system's lock, and who holds it. A killed process
leaves both files, but the lock is free."""

LONGEST = 128
"""Bytes of a name that its temporary name keeps, so that that is not too long either."""

_PACKAGES = ("rlbilinear", "numpy", "stable-baselines3", "procgen", "procgen-mirror")


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False, marker: str) -> Iterator[Path]:
    """Give a temporary folder to write into, moved to ``path`` when the block ends well.

    Its files are on the disk before it has its name, so that a power cut leaves no half of it. What
    came to ``path`` while the block ran is replaced only if it might have been before.

    Args:
        path: where the folder will be; its parents are made.
        overwrite: replace a folder that is there.
        marker: a file that a folder of the same kind holds; without it, nothing is replaced.

    Raises:
        FileExistsError: ``path`` is there, and may not be replaced.
        OSError: it cannot be written; the error names ``path``.
        ValueError: its name is not valid text.
    """
    path = _named(path)
    if path.is_symlink():
        path = path.resolve()
    bring_back(path)
    check_free(path, overwrite=overwrite, marker=marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, f"{os.getpid()}.new")
    replaced = _beside(path, f"{os.getpid()}.old")
    try:
        with _errors_naming(path, temporary):
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with this number
            temporary.mkdir()
            yield temporary
            for written in temporary.rglob("*"):
                _to_disk(written)
            if path.exists():
                path.rename(replaced)
                _check_free(path, replaced, overwrite=overwrite, marker=marker)
            temporary.rename(path)
    finally:
        if replaced.exists() and not path.exists():  # interrupted between the two, or not free
            replaced.rename(path)
        shutil.rmtree(replaced, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write a file under; it becomes ``path`` when the block ends well.

    So no reader meets half a file, and a power cut leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    temporary = _beside(path, "new")
    try:
        with _errors_naming(path, temporary):
            yield temporary
            _to_disk(temporary)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_free(path: str | Path, *, overwrite: bool, marker: str) -> None:
    """Refuse a place where a folder is that must not be replaced.

    Raises:
        FileExistsError: it exists and ``overwrite`` is off, or it is not a folder with ``marker``.
    """
    _check_free(path, Path(path), overwrite=overwrite, marker=marker)


def _check_free(path: str | Path, found: Path, *, overwrite: bool, marker: str) -> None:
    """Check what was found at a path, and may lie elsewhere by now."""
    if is_free(found):
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists; choose another place, or overwrite it")
    if not (found / marker).is_file():
        raise FileExistsError(f"{path} holds no {marker}: it is not overwritten")


def bring_back(path: Path) -> None:
    """Put a folder back in its place that a process, killed since, had just moved to replace it."""
    if path.exists() or not path.parent.is_dir():
        return
    start = _beside(path, "").name
    for entry in path.parent.iterdir():
        process = entry.name.removeprefix(start).removesuffix(".old")
        if entry.name == f"{start}{process}.old" and process.isdecimal() and _has_ended(process):
            entry.rename(path)
            return


def is_free(path: Path) -> bool:
    """Whether nothing or an empty folder is at a place; what `locked` puts there does not count."""
    return not path.exists() or (path.is_dir() and not _contents(path))


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold a folder for this process alone.

    The operating system holds the lock, so it ends with the process, however that ends. The folder
    is made if it does not exist, and removed again if nothing was written into it.

    Args:
        path: the folder.

    Raises:
        BlockingIOError: another process holds it; it is named.
        FileExistsError: it is a file.
        OSError: the folder cannot be written.
        ValueError: its name is not valid text.
    """
    path = _named(path)
    lock = FileLock(path / LOCK)
    made = [place for place in path.parents if not place.exists()]
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is not a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(f"{path} is in use by {_holder(path)}") from error
    except OSError as error:
        raise OSError(f"cannot write in {path}: {error}") from error
    try:
        try:
            write_json(path / HOLDER, {"process": os.getpid(), "host": socket.gethostname()})
        except OSError as error:
            raise OSError(f"cannot write in {path}: {error}") from error
        yield
    finally:
        with suppress(OSError):
            (path / HOLDER).unlink(missing_ok=True)
            (path / LOCK).unlink(missing_ok=True)  # whoever has opened it sees that it is gone
            for place in (path, *made):
                place.rmdir()  # if nothing is in it
        lock.release()


def clear(path: Path, *, marker: str) -> None:
    """Empty a folder that is `locked`; the marker goes last: what is left halfway can be cleared.

    Raises:
        OSError: something cannot be removed.
    """
    for entry in sorted(_contents(path), key=lambda entry: entry.name == marker):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove from a `locked` folder what killed processes were about to write or replace."""
    for entry in path.glob(".*"):
        if entry.suffix in (".new", ".old"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def sha256(file: Path) -> str:
    """Return a file's SHA-256 as hexadecimal text."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a file of JSON, whole or not at all."""
    with new_file(path) as file:
        file.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def program() -> list[str]:
    """Return the words that start this program again, without its arguments.

    Such as ``rlbilinear`` (whose first argument is the subcommand), or ``python scripts/train.py``.
    """
    started = Path(sys.argv[0])
    if started.stem == "rlbilinear":
        return ["rlbilinear"]
    if started.parts[-2:] == ("rlbilinear", "__main__.py"):
        return ["python", "-m", "rlbilinear"]
    return ["python", "/".join(started.parts[-2:])]


def provenance() -> dict[str, Any]:
    """Return how this process was started, on what, and with which versions.

    The command names no folder of this machine outside the working directory.
    """
    versions = {name: found for name in _PACKAGES if (found := _version(name))}
    return {
        "command": shlex.join([*program(), *map(_without_machine, sys.argv[1:])]),
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        # torch itself says its build, such as +cu130; its package's metadata may not
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            **versions,
        },
    }


def _has_ended(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and another user's
        pass
    return False


def _named(path: str | Path) -> Path:
    """Return an absolute path; the libraries that write files take no names but valid text."""
    path = Path(path).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name of a folder must be valid text, got {str(path)!r}") from None
    return path


def _beside(path: Path, ending: str) -> Path:
    """Return a hidden name in the same folder, short enough whatever the path's own name is."""
    start = os.fsencode(path.name)[:LONGEST].decode(errors="ignore")
    return path.with_name(f".{start}.{ending}")


@contextmanager
def _errors_naming(path: Path, temporary: Path) -> Iterator[None]:
    """Let an error of the system say ``path`` where it would say a temporary name, or none."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    except OSError as error:
        named = str(error.filename or temporary)
        if error.errno is None or not named.startswith(str(temporary)):
            raise
        name = named.replace(str(temporary), str(path), 1)
        raise OSError(error.errno, error.strerror, name) from error


def _contents(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.name not in (LOCK, HOLDER)]


def _holder(path: Path) -> str:
    try:
        holder = json.loads((path / HOLDER).read_text())
        return f"process {holder['process']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun or ended
        return "another process"


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


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
