"""Names of constructors' arguments: procgen's own are taken too, unknown ones are refused."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec

import numpy as np

Arguments = ParamSpec("Arguments")

OPTIONS = (
    "center_agent",
    "paint_vel_info",
    "restrict_themes",
    "use_backgrounds",
    "use_monochrome_assets",
    "use_sequential_levels",
)
"""ProcGen's switches of generated levels; each is True or False."""

OURS_OF_PROCGENS = {"distribution_mode": "mode", "num": "num_envs", "rand_seed": "seed"}
"""What is called otherwise in `procgen.ProcgenGym3Env`, with the name here."""


def takes_procgen_names(make: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let a constructor with `**options` take procgen's names for its arguments as well.

    Args:
        make: the constructor; of its own arguments, those that have another name in procgen can be
            given by either.

    Returns:
        The constructor. It raises ValueError where both names of an argument are given and differ,
        and for a name that is neither an argument's nor in `OPTIONS`; the message names what is
        near, and lists what is accepted.
    """
    own = list(inspect.signature(make).parameters)[1:-1]  # without self and **options
    others = {theirs: ours for theirs, ours in OURS_OF_PROCGENS.items() if ours in own}

    @functools.wraps(make)
    def checked(self: Any, /, *values: Any, **named: Any) -> None:
        for theirs in others.keys() & named.keys():
            _rename(named, theirs, others[theirs], dict(zip(own, values, strict=False)))
        if unknown := [name for name in named if name not in (*own, *OPTIONS)]:
            raise ValueError(_unknown(unknown, [*own, *OPTIONS], others))
        make(self, *values, **named)

    return checked  # type: ignore[return-value]


def check_switches(options: Mapping[str, bool]) -> None:
    """Raise ValueError unless each of `OPTIONS` that is given is True or False."""
    for name, value in options.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def _rename(named: dict[str, Any], theirs: str, ours: str, by_position: Mapping[str, Any]) -> None:
    """Give a named argument the name that it has here, in place."""
    value = named.pop(theirs)
    there = by_position if ours in by_position else named
    if ours in there and there[ours] != value:
        raise ValueError(
            f"{theirs} is procgen's name of {ours}: got {theirs}={value!r} and "
            f"{ours}={there[ours]!r}; give one of them"
        )
    if ours not in there:
        named[ours] = value


def _unknown(names: Iterable[str], known: list[str], others: Mapping[str, str]) -> str:
    said = []
    for name in names:
        near = difflib.get_close_matches(name, [*known, *others], n=1)
        said.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    procgens = ", ".join(f"{theirs} for {ours}" for theirs, ours in others.items())
    return (
        f"unknown options {', '.join(said)}; accepted are {', '.join(known)}, "
        f"and procgen's names {procgens}"
    )
