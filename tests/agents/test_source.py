"""A digest that changes with what code does, and with nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rlbilinear.agents.source import code_digest, plain

WRITTEN = '''"""A module."""
import os

def f(x, *, y=1):
    """Adds."""
    return x + y  # so it does
'''


def digest_in(folder: Path, files: dict[str, str]) -> str:
    """Return the digest of rlbilinear.a, in a package of these files alone."""
    package = folder / "rlbilinear"
    package.mkdir(parents=True, exist_ok=True)
    for name, text in {"__init__": "", **files}.items():
        (package / f"{name}.py").write_text(text)
    own = Path(sys.modules[code_digest.__module__].__file__)
    program = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1]); "
        f"spec = importlib.util.spec_from_file_location('source', {str(own)!r}); "
        "source = importlib.util.module_from_spec(spec); spec.loader.exec_module(source); "
        "print(source.code_digest('rlbilinear.a'))"
    )
    # -S: without the site's packages, among which the real one is
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def meaning(text: str) -> object:
    return plain(ast.parse(text))


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('"""A module."""', '"""Another text."""'),
        ("  # so it does", ""),
        ('    """Adds."""\n', ""),
        ("x + y", "(x\n        + y)"),
        ("import os", "import os\n\n"),
    ],
)
def test_words_and_layout_do_not_count(was, becomes):
    assert was in WRITTEN
    assert meaning(WRITTEN.replace(was, becomes)) == meaning(WRITTEN)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("x + y", "x - y"), ("y=1", "y=2"), ("*, y", "y"), ("import os", "import os.path")],
)
def test_what_is_done_counts(was, becomes):
    assert was in WRITTEN
    assert meaning(WRITTEN.replace(was, becomes)) != meaning(WRITTEN)


def test_imported_modules_count_and_others_do_not(tmp_path):
    files = {
        "a": "from rlbilinear import b\nimport json\n",
        "b": "def g():\n    from rlbilinear.c import number\n    return number\n",
        "c": "number = 1\n",
        "d": "number = 1\n",
    }
    first = digest_in(tmp_path / "one", files)
    assert digest_in(tmp_path / "two", files) == first  # whatever the folder
    assert digest_in(tmp_path / "one", {**files, "d": "number = 2\n"}) == first
    assert digest_in(tmp_path / "one", {**files, "c": "number = 2\n"}) != first


def test_a_name_that_a_package_hands_on_counts(tmp_path):
    files = {
        "__init__": "from rlbilinear.c import Number\n",
        "a": "from rlbilinear import Number\n",
        "c": "class Number:\n    size = 1\n",
    }
    first = digest_in(tmp_path, files)
    assert digest_in(tmp_path, {**files, "c": "class Number:\n    size = 2\n"}) != first


def test_the_trainer_has_a_digest():
    found = code_digest("rlbilinear.agents.ppo")
    assert len(found) == 64 and found != code_digest("rlbilinear.agents.distillation")
    with pytest.raises(ModuleNotFoundError, match="absent"):
        code_digest("rlbilinear.agents.absent")
