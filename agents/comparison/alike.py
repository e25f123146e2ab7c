"""The options of a comparison's runs: where they differ, and which runs differ from the rest."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlbilinear.agents.comparison.matrix import Entry
from rlbilinear.agents.run import Run

AXES = ("game", "architecture", "architecture_options", "seed")
"""Options that make the matrix: runs differ in them on purpose."""

CODE = ("rlbilinear", "stable-baselines3", "procgen")
"""Packages whose code decides what is learned. Versions of torch and others change rounding."""

OWN_CODE = "code"
"""This package's code that made a run, by its digest (`agents.source`); several when it was resumed
by other code; None in records of before there were digests."""
SHOWN_DIGITS = 12


def how_made(run: Run) -> dict[str, Any]:
    """Return the recorded options that tell runs apart, and the versions of the code.

    Raises:
        CheckpointError: the record is damaged.
    """
    recorded = run.record().get("versions")
    versions = recorded if isinstance(recorded, dict) else {}
    versions = {"procgen": versions.get("procgen-mirror"), **versions}  # the same simulator
    known = {f"version of {name}": versions.get(name) for name in CODE}
    code = run.record().get("code")
    shown = [str(digest)[:SHOWN_DIGITS] for digest in code] if isinstance(code, list) else None
    return {**run.identity(), **known, OWN_CODE: shown}


def made_differently(entries: Sequence[Entry]) -> dict[Entry, str]:
    """Return the runs that were made unlike most seeds of their game and architecture, and how.

    Of two ways that are as frequent, the one that comes first counts as that of most. A run that
    does not say by what code it was made is taken to be of the usual code.

    Raises:
        CheckpointError: a record is damaged.
    """
    groups: dict[tuple[str, str], dict[Entry, dict[str, Any]]] = {}
    for entry in entries:
        made = {name: value for name, value in how_made(entry.run).items() if name != "seed"}
        groups.setdefault((entry.game, entry.architecture), {})[entry] = made
    found = {}
    for group in groups.values():
        known = [made[OWN_CODE] for made in group.values() if made[OWN_CODE] is not None]
        for made in group.values():
            if made[OWN_CODE] is None and known:
                made[OWN_CODE] = _most(known)
        usual = _most([*group.values()])
        for entry, made in group.items():
            if said := differences(made, usual):
                found[entry] = said
    return found


def differences(made: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """Say in what one way of making a run differs from another."""
    return "; ".join(
        f"{name} is {made.get(name)!r}, not {usual.get(name)!r}"
        for name in {**usual, **made}
        if made.get(name) != usual.get(name)
    )


def unequal(entries: Sequence[Entry]) -> list[str]:
    """Return the options and versions in which runs differ, beside those of the matrix.

    Raises:
        CheckpointError: a record is damaged.
    """
    made = [how_made(entry.run) for entry in entries]
    lines = []
    for name in dict.fromkeys(name for one in made for name in one if name not in AXES):
        values: dict[str, set[str]] = {}
        for entry, one in zip(entries, made, strict=True):
            values.setdefault(entry.architecture, set()).add(repr(one.get(name)))
        if len(set.union(*values.values())) > 1:
            said = ", ".join(f"{label} {' and '.join(sorted(v))}" for label, v in values.items())
            lines.append(f"{name}: {said}")
    return lines


def _most(values: Sequence[Any]) -> Any:
    """Return the most frequent of some values that are not hashable; of two the first."""
    (most, _), *_ = Counter(json.dumps(value, sort_keys=True) for value in values).most_common(1)
    return json.loads(most)
