"""The command `rlbilinear`: its help, its subcommands, and names that are not known."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlbilinear.commands.main import SUBCOMMANDS, help_text, main
from rlbilinear.commands.running import Command

ROOT = Path(__file__).parents[2]

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


INNER = [["language", name] for name in ("train", "convert", "read", "write")]


def test_help_fits_one_screen(capsys):
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    for name, entry in SUBCOMMANDS.items():
        shown = re.compile(rf"  {name} +{re.escape(entry.summary)}(  |$)", re.MULTILINE)
        assert len(shown.findall("\n".join(lines))) == 1


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["evaluat"]])
def test_no_subcommand_loads_neither_torch_nor_the_simulator(words):
    code = (
        "import sys\n"
        "from rlbilinear.commands.main import main\n"
        f"try: main({words})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'procgen', 'matplotlib'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stderr


@pytest.mark.parametrize("words", [*([name] for name in SUBCOMMANDS), *INNER], ids=" ".join)
def test_every_subcommand_has_help(ends, words):
    said = ends(0, main, [*words, "--help"])
    assert f"usage: rlbilinear {' '.join(words)} " in said and "(default: )" not in said
    if words in INNER:
        return
    module = importlib.import_module(f"rlbilinear.commands.{SUBCOMMANDS[words[0]].module}")
    assert isinstance(module.main, Command)
    assert " ".join(inspect.getdoc(module).splitlines()[0].split()) in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command was given; choose from train, distill, evaluate"),
        (["evalaute"], "unknown command 'evalaute'; did you mean evaluate"),
        (["Train"], "unknown command 'Train'; did you mean train"),
        (["--hlep"], "unknown option '--hlep'"),
        (["xyzzy"], "unknown command 'xyzzy'; choose from train, distill"),
        (["evaluate", "--levles", "3"], "Perhaps you meant: --levels"),
        (["agents", "all"], "Unrecognized options: all"),
    ],
)
def test_unknown_names_get_the_nearest(ends, words, message):
    assert message in ends(2, main, words)


def test_completion_has_every_subcommand_and_its_options(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--tyro-print-completion", "bash"])
    assert not ended.value.code
    script = capsys.readouterr().out
    completed = (
        f"{script}\nCOMP_CWORD=1; COMP_WORDS=(rlbilinear ''); _tyro_rlbilinear\n"
        'echo "${COMPREPLY[@]}"\n'
        "COMP_CWORD=2; COMP_WORDS=(rlbilinear evaluate --le); COMPREPLY=(); _tyro_rlbilinear\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", completed], capture_output=True, text=True)
    names, options = done.stdout.splitlines()
    assert set(SUBCOMMANDS) <= set(names.split()) and options == "--levels --level-seeds"


def test_the_entry_point_is_this_function():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert settings["scripts"] == {"rlbilinear": f"{main.__module__}:{main.__name__}"}


def test_python_m_rlbilinear_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "rlbilinear", "--help"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, help_text() + "\n", "")


def test_the_scripts_are_the_same_commands():
    """A script for each, but for what lists or shows things; and some for developers."""
    modules = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    developers = {"build_docs", "fuzz_states", "run_notebooks"}
    shown = {"doctor", "view", "zoo"}
    assert modules == {line.module for line in SUBCOMMANDS.values()} - shown | developers
    for name in modules - developers:
        text = (ROOT / "scripts" / f"{name}.py").read_text()
        assert f"from rlbilinear.commands.{name} import main" in text and len(text) < 300
