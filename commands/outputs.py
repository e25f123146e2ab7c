"""Where a command writes: checked before the work starts, and named in errors by its own name."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from safetensors import SafetensorError

from rlbilinear.agents.folder import check_free, new_folder, provenance, write_json
from rlbilinear.envs.files import replacing


def check_folder(path: Path, *, overwrite: bool, marker: str) -> None:
    """Refuse a folder that could not be written at the end of the work.

    Args:
        path: the folder; those that it is to lie in need not be there.
        overwrite: whether a folder that is there is replaced.
        marker: a file that a folder of the same kind holds; without it, nothing is replaced.

    Raises:
        FileExistsError: it is there, and may not be replaced.
        OSError: it cannot be made.
    """
    check_free(path, overwrite=overwrite, marker=marker)
    check_writable(path)


def check_new_file(path: Path) -> None:
    """Refuse a file that is there or could not be written at the end of the work.

    Raises:
        FileExistsError: something has this name.
        OSError: it cannot be made.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists; choose another name")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Try to make what is written before it is given this name; nothing is left.

    Raises:
        OSError: it cannot be made; the reason is given.
    """
    path = path.absolute()
    if not path.name or (path.name == ".." and not path.exists()):
        raise IsADirectoryError(f"cannot write {path}: name what is to be in it")
    made = [parent for parent in path.parents if not parent.exists()]
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {there} is not a folder")
    attempt = path.with_name(f".{path.name}.{os.getpid()}.try")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            attempt.mkdir()
        finally:
            for folder in (attempt, *made):
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in errors what could not be written, not which temporary file.

    Raises:
        OSError: instead of the error.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    except OSError as error:
        if error.strerror is None:  # one of ours, that names what it is about
            raise
        raise OSError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def new_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary file to write, which gets its name, and its folder, when the block ends.

    Args:
        path: the file.
        overwrite: replace a file that is there by then.

    Raises:
        FileExistsError: it is there, and may not be replaced.
        OSError: it cannot be written; it is named.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            yield unfinished
            if not overwrite:
                check_new_file(path)


def tensorboard_command(folder: Path) -> str:
    """Return the command that shows a folder in TensorBoard."""
    program = Path(sys.executable).parent / "tensorboard"
    return shlex.join([str(program), "--logdir", str(folder)])


def write_study(
    out: Path,
    tables: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Figure],
    record: Mapping[str, Any],
    *,
    marker: str,
    overwrite: bool,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Write a folder of tables (CSV) and figures (PNG), and how they were made (JSON).

    Args:
        out: the folder.
        tables: by name.
        pictures: by name.
        record: options and summary, to which command, hardware and versions are added.
        marker: name of the JSON file; a folder without it is not replaced.
        overwrite: replace a folder that is there.
        also: writes what else belongs into the folder, before it takes its place.

    Raises:
        FileExistsError: it is there, and may not be replaced.
        OSError: it cannot be written.
    """
    with writing(out), new_folder(out, overwrite=overwrite, marker=marker) as folder:
        if also is not None:
            also(folder)
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        for name, picture in pictures.items():
            picture.savefig(folder / f"{name}.png", dpi=130)
        write_json(folder / marker, {**record, **provenance()})
