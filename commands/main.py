"""The command ``rlbilinear``: its subcommands, each in a module that is imported when it is used.

Nothing here imports torch or the simulator, so that ``rlbilinear --help`` answers at once.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple, Union

import tyro

from rlbilinear.commands.running import BAD_USAGE, Command, exit_codes


class Subcommand(NamedTuple):
    """A line of ``rlbilinear --help``."""

    module: str
    """in this package; its `main` is a `Command`"""
    summary: str


SUBCOMMANDS = {
    "train": Subcommand("train", "train an agent by PPO on a ProcGen game"),
    "distill": Subcommand("distill", "train an agent of maze or heist from its expert"),
    "evaluate": Subcommand("evaluate", "score agents on held-out levels"),
    "compare": Subcommand("compare", "train several architectures alike, and report"),
    "validate": Subcommand("validate_probe", "test whether an agent uses what a probe reads"),
    "view": Subcommand("view", "show a report as one page that works offline"),
    "atlas": Subcommand("atlas", "ask which concepts agents use, and at which layers"),
    "baselines": Subcommand("baselines", "put published methods beside ours on the same pairs"),
    "verdicts": Subcommand("verdicts", "gather an atlas over its agents"),
    "along": Subcommand("along", "follow a concept through training"),
    "decompose": Subcommand("decompose", "decompose a direction of a layer into eigenfilters"),
    "send": Subcommand("send", "send a maze agent to any cell of any maze by bias maps"),
    "steer": Subcommand("steer", "send a maze agent to cheese or corner by steering vectors"),
    "polynomial": Subcommand("polynomial", "approximate networks by polynomials"),
    "images": Subcommand("images", "train bilinear image classifiers, and read their weights"),
    "language": Subcommand("language", "train bilinear language models, make others bilinear"),
    "maze": Subcommand("edit_maze", "edit a maze as text, and see where an agent goes"),
    "publish": Subcommand("publish", "prepare an agent for sharing"),
    "agents": Subcommand("zoo", "list the agents of the zoo with their scores"),
    "exactness": Subcommand("exactness", "check every identity of the decompositions"),
    "benchmark": Subcommand("benchmark", "measure speed and memory"),
    "gpu": Subcommand("gpu", "do what wants a GPU, in slices of a few minutes"),
    "doctor": Subcommand("doctor", "show what is installed, what is missing, and the device"),
}

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
    """Return the text of ``rlbilinear --help``."""
    width = max(map(len, SUBCOMMANDS))
    return "\n".join(
        [
            USAGE,
            "",
            "Open up reinforcement-learning agents from their weights.",
            "",
            *(f"  {name:{width}}  {line.summary}" for name, line in SUBCOMMANDS.items()),
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
