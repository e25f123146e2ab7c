import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest

from rlbilinear.agents import Agent
from rlbilinear.agents.folder import (
    HOLDER,
    bring_back,
    check_free,
    clear,
    is_free,
    locked,
    new_folder,
    provenance,
    remove_leftovers,
    write_json,
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
    program = (
        "import os, pathlib, signal, sys\n"
        "from rlbilinear.agents.folder import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
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


def refused(size, write):
    """Return the error when the system lets files have no more than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(OSError) as raised:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return raised.value


def test_errors_name_what_was_to_be_written(tmp_path):
    """Not the temporary name; nothing of it is left, and what was there stays."""
    place, file = tmp_path / "folder", tmp_path / "numbers.json"
    write(place, "old")
    write_json(file, 1)
    agent = Agent.new("impala-compact")
    errors = [
        refused(10, lambda: write(place, "longer than ten bytes", overwrite=True)),
        refused(10, lambda: write_json(file, "longer than ten bytes")),
        refused(10, lambda: agent.save(tmp_path / "agent")),
    ]
    said = [str(error) for error in errors]
    assert said[0] == f"[Errno 27] File too large: '{place}'"
    assert said[1] == f"[Errno 27] File too large: '{file}'"
    assert said[2] == f"[Errno 27] File too large: '{tmp_path / 'agent'}'"
    assert (place / "mark").read_text() == "old" and file.read_text() == "1\n"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "numbers.json"}
    (place / "inner").mkdir()
    with (
        pytest.raises(IsADirectoryError, match=rf"'{place}/inner'"),
        new_folder(place, overwrite=True, marker="mark") as folder,
    ):
        (folder / "inner").mkdir()
        (folder / "inner").write_text("")
    with (
        pytest.raises(FileNotFoundError, match="'elsewhere'"),
        new_folder(tmp_path / "other", marker="mark"),
    ):
        Path("elsewhere").read_text()


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "🐭" * 63])
def test_the_longest_names_can_be_written(tmp_path, name):
    write(tmp_path / name, "old")
    write(tmp_path / name, "new", overwrite=True)
    assert (tmp_path / name / "mark").read_text() == "new"
    write_json(tmp_path / name / name, 1)
    assert json.loads((tmp_path / name / name).read_text()) == 1


def test_parents_of_a_folder_that_stays_empty_are_taken_away(tmp_path):
    with locked(tmp_path / "a" / "b" / "c"):
        pass
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a" / "b" / "c"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_what_came_meanwhile_is_not_replaced(tmp_path):
    """Two at once in one place: the second to end says so, and the first one's folder stays."""
    place = tmp_path / "place"
    with (
        pytest.raises(FileExistsError, match="place exists; choose another place"),
        new_folder(place, marker="mark") as folder,
    ):
        (folder / "mark").write_text("second")
        write(place, "first")
    assert (place / "mark").read_text() == "first"
    with (
        pytest.raises(FileExistsError, match="place holds no mark: it is not overwritten"),
        new_folder(place, overwrite=True, marker="mark") as folder,
    ):
        (place / "mark").rename(place / "other")
    assert (place / "other").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_link_stays_a_link(tmp_path):
    """The folder it leads to is written, also where that is not there yet."""
    link = tmp_path / "link"
    link.symlink_to("folder")
    write(link, "old")
    write(link, "new", overwrite=True)
    assert (tmp_path / "folder" / "mark").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"link", "folder"} and link.is_symlink()


def test_what_a_killed_process_was_replacing_is_put_back(tmp_path):
    """Killed when the old folder had gone, and the new one had not come."""
    program = (
        "import os, pathlib, signal, sys\n"
        "from rlbilinear.agents.folder import new_folder\n"
        "rename = pathlib.Path.rename\n"
        "def killed(self, target):\n"
        "    if self.name.endswith('.new'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rename(self, target)\n"
        "pathlib.Path.rename = killed\n"
        "with new_folder(sys.argv[1], overwrite=True, marker='mark') as folder:\n"
        "    (folder / 'mark').write_text('new')\n"
    )
    write(tmp_path / "kept", "old")
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "kept"], check=False)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "kept").exists()
    bring_back(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(FileExistsError, match="kept exists"):
        write(tmp_path / "kept", "newer")
    assert (tmp_path / "kept" / "mark").read_text() == "old"
