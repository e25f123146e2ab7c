"""The command ``rlbilinear``: its subcommands, each in a module that is imported when it is used.

Nothing here imports torch or the simulator, so that ``rlbilinear --help`` answers at once.
"""

import difflib
import importlib
import itertools
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple, Union

import tyro

from rlbilinear.commands.running import BAD_USAGE, Command, exit_codes


class Subcommand(NamedTuple):
    """An entry of ``rlbilinear --help``."""

    module: str
    """in this package; its `main` is a `Command`"""
    summary: str
    """a few words: two entries share a line of 80 characters"""


GROUPS = {
    "Agents": {
        "train": Subcommand("train", "train by PPO on any game"),
        "distill": Subcommand("distill", "train by an expert's moves"),
        "evaluate": Subcommand("evaluate", "score on held-out levels"),
        "compare": Subcommand("compare", "train several architectures"),
        "agents": Subcommand("zoo", "list the zoo, with scores"),
        "publish": Subcommand("publish", "prepare an agent for sharing"),
    },
    "Concepts": {
        "validate": Subcommand("validate_probe", "is a probed concept used?"),
        "view": Subcommand("view", "show a report as one page"),
        "atlas": Subcommand("atlas", "concepts used by layer"),
        "verdicts": Subcommand("verdicts", "sum up an atlas over agents"),
        "along": Subcommand("along", "a concept through training"),
        "baselines": Subcommand("baselines", "other methods, same states"),
    },
    "Weights": {
        "decompose": Subcommand("decompose", "a direction's eigenfilters"),
        "polynomial": Subcommand("polynomial", "approximate by polynomials"),
        "images": Subcommand("images", "bilinear image classifiers"),
        "language": Subcommand("language", "bilinear language models"),
    },
    "Mazes": {
        "maze": Subcommand("edit_maze", "edit a maze, see the agent"),
        "send": Subcommand("send", "send an agent to any cell"),
        "steer": Subcommand("steer", "steer by activation vectors"),
    },
    "Tools": {
        "doctor": Subcommand("doctor", "show what is installed"),
        "exactness": Subcommand("exactness", "check every identity"),
        "benchmark": Subcommand("benchmark", "measure speed and memory"),
        "gpu": Subcommand("gpu", "run what needs a GPU"),
    },
}
SUBCOMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}

USAGE = "usage: rlbilinear [-h] [--version] COMMAND [OPTIONS]"
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


def main(args: Sequence[str] | None = None) -> None:
    """Run the subcommand that the command line names.

    Args:
        args: the command line after ``rlbilinear``; that of this process when None.

    Raises:
        SystemExit: with the exit code, unless all went well.
    """
    name, *rest = (sys.argv[1:] if args is None else list(args)) or [""]
    with exit_codes("rlbilinear"):
        if name in ("-h", "--help"):
            print(help_text())
        elif name == "--version":
            print(f"rlbilinear {version('rlbilinear')}")
        elif name in COMPLETION:
            tyro.cli(_all_options(), prog="rlbilinear", args=[name, *rest])
        elif name in SUBCOMMANDS:
            _load(name)(rest, f"rlbilinear {name}")
        else:
            print(_unknown(name), file=sys.stderr)
            sys.exit(BAD_USAGE)


def help_text() -> str:
    """Return the text of ``rlbilinear --help``: the commands in groups, two on a line."""
    lines = [USAGE, "Open up reinforcement-learning agents from their weights.", ""]
    for title, group in GROUPS.items():
        entries = [f"{name:10} {entry.summary}" for name, entry in group.items()]
        lines.append(title)
        for left, right in itertools.zip_longest(entries[::2], entries[1::2], fillvalue=""):
            lines.append(f"  {left:39}{right}".rstrip())
    return "\n".join(
        [
            *lines,
            "",
            f"COMMAND --help shows its options; {COMPLETION[0]} bash, completions.",
            "Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted.",
        ]
    )


def _unknown(name: str) -> str:
    if not name:
        return f"{USAGE}\nrlbilinear: no command was given; choose from {', '.join(SUBCOMMANDS)}"
    near = difflib.get_close_matches(name, SUBCOMMANDS)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(SUBCOMMANDS)}"
    kind = "option" if name.startswith("-") else "command"
    return f"{USAGE}\nrlbilinear: unknown {kind} {name!r}; {hint}"


def _load(name: str) -> Command[Any]:
    return importlib.import_module(f"rlbilinear.commands.{SUBCOMMANDS[name].module}").main


def _all_options() -> Any:
    """Return a type from which the completions of all subcommands are made."""
    return Union[  # noqa: UP007  # of a list
        tuple(Annotated[_load(name).options, tyro.conf.subcommand(name)] for name in SUBCOMMANDS)
    ]
