"""Names in code are defined: ruff's F821, which the shapes of jaxtyping keep out of `make lint`."""

import ast
import json
import subprocess
from functools import cache
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).parent.parent
RUFF = pytest.importorskip("ruff", reason="names are looked up by ruff").find_ruff_bin()


def undefined(folder):
    """Return where names are undefined, and which."""
    words = [RUFF, "check", "--isolated", "--select", "F821", "--output-format", "json", folder]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not found.stderr, found.stderr
    return [
        f"{Path(each['filename']).relative_to(folder)}:{each['location']['row']}: {each['message']}"
        for each in json.loads(found.stdout)
        if each["filename"].endswith(".ipynb") or not in_shape(each["location"], each["filename"])
    ]


def in_shape(location, file):
    """Whether a place is in a shape, as ``"n inputs"`` in ``Float[Tensor, "n inputs"]``."""
    line = Path(file).read_text().splitlines()[location["row"] - 1]
    place = location["row"], len(line[: location["column"] - 1].encode())
    return any(start <= place < end for start, end in shapes(file))


@cache
def shapes(file):
    """Return from where to where the shapes go in all types that jaxtyping makes."""
    found = []
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            name = getattr(node.value, "id", getattr(node.value, "attr", ""))
            if hasattr(jaxtyping, name):
                shape = node.slice.elts[-1]
                start, end = (
                    (shape.lineno, shape.col_offset),
                    (shape.end_lineno, shape.end_col_offset),
                )
                found.append((start, end))
    return found


def test_every_name_is_defined():
    assert not undefined(ROOT)


def test_undefined_names_are_found_beside_shapes(tmp_path):
    (tmp_path / "code.py").write_text(
        "from jaxtyping import Float\nfrom torch import Tensor\n\n\n"
        'def double(x: Float[Tensor, "n"], y: "Missing") -> Float[Tensor, "n"]:\n'
        '    """Return it."""\n'
        '    é: Float[Tensor, "n"] = torch.add(x, y)\n'
        '    return f"é{w}"\n'
    )
    assert undefined(tmp_path) == [
        "code.py:5: Undefined name `Missing`",
        "code.py:7: Undefined name `torch`",
        "code.py:8: Undefined name `w`",
    ]
