"""Outputs are refused before the work, named in errors, and whole or not there."""

import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from rlbilinear.commands.outputs import (
    check_folder,
    check_new_file,
    check_writable,
    new_file,
    write_study,
    writing,
)

ODD_NAMES = ["with a space", "ünïcödé 好", "-dash", "a,b=c", "new\nline"]


@contextmanager
def files_of_at_most(size):
    """Let the system refuse to write more into any file, as a full disk does."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_check_leaves_nothing(tmp_path, name):
    check_writable(tmp_path / name / "deep" / name)
    check_new_file(tmp_path / name)
    check_folder(tmp_path / name, overwrite=False, marker="mark")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/proc/none/out", "No such file or directory"),
        ("/dev/null/out", "/dev/null is not a folder"),
        ("x" * 250, "File name too long"),  # with what is added while it is written
    ],
)
def test_places_that_cannot_be_written_are_named(tmp_path, place, reason):
    path = tmp_path / place
    for check in (check_writable, check_new_file):
        with pytest.raises(OSError) as raised:
            check(path)
        assert str(raised.value) == f"cannot write {path.absolute()}: {reason}"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=f"cannot write {tmp_path}/out: Permission denied"):
        check_writable(tmp_path / "out")


def test_what_exists_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "link", "folder"):
        with pytest.raises(FileExistsError, match=f"{name} exists; choose another name"):
            check_new_file(tmp_path / name)
    (tmp_path / "folder" / "other").touch()
    with pytest.raises(FileExistsError, match="folder exists; choose another place"):
        check_folder(tmp_path / "folder", overwrite=False, marker="mark")
    with pytest.raises(FileExistsError, match="holds no mark"):
        check_folder(tmp_path / "folder", overwrite=True, marker="mark")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_gets_its_name_when_it_is_whole(tmp_path, name):
    path = tmp_path / name / f"{name}.csv"
    with new_file(path) as file:
        file.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and len(list(path.parent.iterdir())) == 1


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path):
    path = tmp_path / "scores.csv"
    with files_of_at_most(10), pytest.raises(OSError) as raised, new_file(path) as file:
        file.write_text("more than ten bytes")
    assert str(raised.value) == f"cannot write {path}: File too large"
    assert not list(tmp_path.iterdir())


def test_a_study_is_written_whole_or_not_at_all(tmp_path):
    tables = {"scores": pd.DataFrame({"a": [1, 2]})}
    figure = Figure()
    figure.subplots().plot([0, 1])
    out, how = tmp_path / "out", {"marker": "mark.json", "overwrite": False}
    with files_of_at_most(1000), pytest.raises(OSError) as raised:
        write_study(out, tables, {"line": figure}, {"summary": {}}, **how)
    assert str(raised.value) == f"cannot write {out}: File too large"
    assert not list(tmp_path.iterdir())
    write_study(out, tables, {"line": figure}, {"summary": {}}, **how)
    assert {path.name for path in out.iterdir()} == {"scores.csv", "line.png", "mark.json"}


def test_other_errors_are_left_alone():
    for error in (ValueError("no"), FileExistsError("exists")):
        with pytest.raises(type(error), match=str(error)), writing(Path("out")):
            raise error
