"""The packages: what is installed, in which direction they import, and that importing is silent."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import matplotlib.font_manager  # writes its list of fonts, if there is none
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "rlbilinear": "rlbilinear",
    "envs": "rlbilinear.envs",
    "agents": "rlbilinear.agents",
    "language": "rlbilinear.language",
    "probes": "rlbilinear.probes",
    "testing": "rlbilinear.testing",
    "studies": "rlbilinear.studies",
    "benchmarks": "rlbilinear.benchmarks",
    "commands": "rlbilinear.commands",
}
MATHS, ENVS, AGENTS, LANGUAGE, PROBES = list(FOLDERS)[:5]
MAY_IMPORT = {
    MATHS: set(),
    ENVS: set(),
    AGENTS: {MATHS, ENVS},
    LANGUAGE: {MATHS, AGENTS},
    PROBES: {MATHS, ENVS, AGENTS},
    "testing": {MATHS, ENVS, AGENTS},
    "studies": {MATHS, ENVS, AGENTS, PROBES},
    "benchmarks": {MATHS, ENVS, AGENTS, LANGUAGE, PROBES},
    "commands": set(FOLDERS),
}
ENTRY = ROOT / MATHS / "__main__.py"
"""``python -m rlbilinear``, the one file of the maths that starts something: the commands."""


def imported(file):
    """Yield the full names of the modules that a file imports, and of what it takes from them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def folder_of(module):
    """Return the folder whose package a module belongs to; None when it is not ours."""
    parts = module.split(".")
    if parts[0] in ("scripts", "tests") or parts[0] in FOLDERS.keys() - {MATHS}:
        return parts[0]
    if parts[0] != MATHS:
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FOLDERS else MATHS


@pytest.mark.parametrize("folder", FOLDERS)
def test_packages_import_in_one_direction(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        found = {folder_of(module) for module in imported(file)}
        wrong = found - {None, folder} - ({"commands"} if file == ENTRY else MAY_IMPORT[folder])
        assert not wrong, f"{file} imports {wrong}"


def test_only_running_the_package_loads_commands():
    """Importing the module, as documentation tools do, loads nothing."""
    code = "import sys, rlbilinear.__main__; print('rlbilinear.commands' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("module", "folder"),
    [
        ("rlbilinear.agents.load", "agents"),
        ("rlbilinear.approximate", "rlbilinear"),
        ("agents.load", "agents"),
        ("torch.nn", None),
    ],
)
def test_modules_are_known_by_their_folder(module, folder):
    assert folder_of(module) == folder


def test_maths_needs_no_simulator_and_envs_no_torch():
    assert "stable_baselines3" not in all_imports("rlbilinear")
    assert "torch" not in all_imports("envs")


def all_imports(folder):
    files = (ROOT / folder).rglob("*.py")
    return {module.split(".")[0] for file in files for module in imported(file)}


def test_no_package_is_forgotten():
    """What is installed is every folder with Python files in it, stubs, pages and the zoo."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setup["package-dir"] == {name: folder for folder, name in FOLDERS.items()}
    there = set()
    for folder, name in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            inner = file.parent.relative_to(ROOT / folder).parts
            there.add(".".join([name, *inner]))
    assert set(setup["packages"]) == there
    data = {
        file
        for package, patterns in setup["package-data"].items()
        for pattern in patterns
        for file in (ROOT / setup["package-dir"][package]).glob(pattern)
    }
    zoo = {file for file in (ROOT / "agents" / "zoo").rglob("*") if file.is_file()}
    stubs = {file for folder in FOLDERS for file in (ROOT / folder).rglob("*.pyi")}
    pages = set((ROOT / "probes").rglob("*.html"))
    assert data == {*zoo, *stubs, *pages, ROOT / MATHS / "py.typed"}


@pytest.mark.parametrize("folder", list(FOLDERS)[1:])
def test_folders_are_no_second_packages(folder):
    """From the checkout's folder, ``import agents`` would make every class a second time."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"import this package as `{FOLDERS[folder]}`, not as `{folder}`" in done.stderr


@pytest.mark.parametrize("folder", [MATHS, ENVS, AGENTS, PROBES])
def test_no_name_of_a_package_is_shadowed_by_a_module(folder):
    """Importing a module makes it an attribute of its package, instead of the name."""
    names = importlib.import_module(FOLDERS[folder]).__all__
    assert not {*names} & {file.stem for file in (ROOT / folder).glob("*.py")}


@pytest.mark.parametrize("package", list(FOLDERS.values())[:5])
def test_import_is_silent_and_writes_nothing(package, tmp_path):
    """The package and all its names, some of which are loaded when they are first asked for."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", f"from {package} import *"],
        cwd=tmp_path,
        env={
            "PATH": "",
            "HOME": str(tmp_path),
            "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its list of fonts is its own
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*")) == []
