"""The code behind a module as one number: two runs of one number were made by the same code."""

import ast
import hashlib
import importlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

PACKAGE = "rlbilinear"


@cache
def code_digest(module: str) -> str:
    """Return the SHA-256 of a module and of all modules of this package that it imports.

    Comments, docstrings and layout do not count, nor does Python's version. Other packages are
    known by their versions.

    Args:
        module: its full name.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    trees: dict[str, ast.Module] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in trees:
            trees[name] = _tree(name)
            waiting += _imported(trees[name])
    digest = hashlib.sha256()
    for name in sorted(trees):
        digest.update(repr((name, plain(trees[name]))).encode())
    return digest.hexdigest()


def plain(node: Any) -> Any:
    """Return what a part of a program means, without its places in the file and its docstrings."""
    if isinstance(node, list):
        return [plain(each) for each in node]
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields = [
            (name, [each for each in value if not _is_text(each)] if name == "body" else value)
            for name, value in fields
        ]
    return type(node).__name__, [(name, plain(value)) for name, value in fields]


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, of whatever stands before it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _tree(name: str) -> ast.Module:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"no module {name!r} with a source")
    with open(found.origin, encoding="utf-8") as file:
        return ast.parse(file.read())


def _imported(tree: ast.Module) -> Iterator[str]:
    """Return the modules of this package that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if _ours(each.name))
        elif isinstance(node, ast.ImportFrom) and node.module and _ours(node.module):
            yield node.module
            found = importlib.util.find_spec(node.module)
            if found is not None and found.submodule_search_locations is not None:
                package = importlib.import_module(node.module)  # only packages: some need extras
                yield from filter(_ours, (_home(package, each.name) for each in node.names))


def _home(package: ModuleType, name: str) -> str:
    """Return the module of a package that a name stands for, or that defines what it stands for."""
    inside = f"{package.__name__}.{name}"
    if importlib.util.find_spec(inside):
        return inside
    return getattr(getattr(package, name), "__module__", package.__name__)


def _ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE
