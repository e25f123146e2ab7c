import sys
from pathlib import Path

import pytest

from agents.folder import new_folder, provenance


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
