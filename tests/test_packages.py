"""The packages import in one direction, and importing them does nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import matplotlib.font_manager  # writes its list of fonts, if there is none
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"rlbilinear", "envs", "agents", "probes", "scripts", "tests"}
MAY_IMPORT = {
    "rlbilinear": set(),
    "envs": set(),
    "agents": {"rlbilinear", "envs"},
    "probes": {"rlbilinear", "envs", "agents"},
}


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_in_one_direction(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        wrong = set(imported(file)) & PACKAGES - MAY_IMPORT[package] - {package}
        assert not wrong, f"{file} imports {wrong}"


def test_maths_needs_no_simulator_and_envs_no_torch():
    assert "stable_baselines3" not in all_imports("rlbilinear")
    assert "torch" not in all_imports("envs")


def all_imports(package):
    return {name for file in (ROOT / package).rglob("*.py") for name in imported(file)}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_import_is_silent_and_writes_nothing(package, tmp_path):
    done = subprocess.run(
        [sys.executable, "-B", "-c", f"import {package}"],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
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
