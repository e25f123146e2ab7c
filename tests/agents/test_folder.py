import os
import signal
import sys
from pathlib import Path
from socket import gethostname

import pytest

from rlbilinear.agents.folder import (
    HOLDER,
    check_free,
    clear,
    is_free,
    locked,
    new_folder,
    provenance,
    remove_leftovers,
)


def write(path, text, **options):
    with new_folder(path, marker="mark", **options) as folder:
        (folder / "mark").write_text(text)


@pytest.mark.parametrize("moves", [0, 1])
def test_an_interrupt_while_folders_change_places_keeps_the_old_one(tmp_path, monkeypatch, moves):
    write(tmp_path / "kept", "old")
    rename, left = Path.rename, iter(range(moves))

    def interrupted(self, target):
        if self.name.endswith(".old") or next(left, None) is not None:
            return rename(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "kept", "new", overwrite=True)
    assert (tmp_path / "kept" / "mark").read_text() == "old"
    assert [place.name for place in tmp_path.iterdir()] == ["kept"]


def test_a_command_names_no_folder_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, elsewhere = tmp_path / "runs" / "one", tmp_path.parent / "secret" / "two"
    given = ["/bin/scripts/train.py", "--out", str(inside), f"--init={elsewhere}", "--rate", "1/24"]
    monkeypatch.setattr(sys, "argv", given)
    expected = "python scripts/train.py --out runs/one --init=two --rate 1/24"
    assert provenance()["command"] == expected


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("/venv/bin/rlbilinear", "rlbilinear train --out run"),
        ("rlbilinear.exe", "rlbilinear train --out run"),
        ("/site-packages/rlbilinear/__main__.py", "python -m rlbilinear train --out run"),
    ],
)
def test_a_command_starts_the_program_in_the_same_way(monkeypatch, started, expected):
    monkeypatch.setattr(sys, "argv", [started, "train", "--out", "run"])
    assert provenance()["command"] == expected


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    place = tmp_path / "runs" / "one"
    with locked(place):
        assert is_free(place)
        with (
            pytest.raises(
                BlockingIOError, match=rf"one is in use by process {os.getpid()} on {gethostname()}"
            ),
            locked(place),
        ):
            raise AssertionError("held twice")
        (place / "result").touch()
    assert [entry.name for entry in place.iterdir()] == ["result"]
    with locked(place):
        clear(place, marker="result")
    assert not place.exists()


def test_a_killed_process_holds_nothing(tmp_path):
    held = os.fork()
    if held == 0:
        with locked(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(held, 0)
    assert len(list(tmp_path.iterdir())) == 2
    check_free(tmp_path, overwrite=False, marker="mark")
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / HOLDER).read_text()


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / ".one.123.new").mkdir()
    (tmp_path / ".one.123.new" / "half").touch()
    (tmp_path / ".results.json.new").touch()
    (tmp_path / ".mine").touch()
    remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".mine"]
