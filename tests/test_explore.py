import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
FAILS_ONCE_IN_A_WHILE = """
from hypothesis import given
from hypothesis import strategies as st

@given(st.integers(0, 1))
def test_luck(number):
    assert number == 0

@given(st.integers(0, 1))
def test_fine(number):
    assert number >= 0
"""


def explore(*words):
    command = [sys.executable, str(FOLDER / "explore.py"), "--minutes", "1e-9", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_failure_is_told_with_the_command_that_repeats_it(tmp_path):
    shutil.copy(FOLDER / "conftest.py", tmp_path)
    file = tmp_path / "test_luck.py"
    file.write_text(FAILS_ONCE_IN_A_WHILE)
    done = explore(file)
    assert done.returncode == 1
    failed, summary = done.stdout.splitlines()
    assert "--hypothesis-seed=" in failed and failed.endswith("test_luck.py::test_luck")
    assert "1 seeds" in summary and "1 failures" in summary


def test_what_cannot_be_explored_is_refused(tmp_path):
    (tmp_path / "test_none.py").write_text("def test_nothing(): assert True\n")
    shutil.copy(FOLDER / "conftest.py", tmp_path)
    done = explore(tmp_path / "test_none.py")
    assert done.returncode == 2 and "no property tests in" in done.stderr
    done = explore("--minutes", "0")
    assert done.returncode == 2 and "--minutes must be positive, got 0" in done.stderr
