"""The concepts that come with the package, by game and name.

causal_concept("maze", "cheese")
ask("maze-bimpala-compact", "cheese")
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlbilinear.envs import EVALUATION, FITTING, Levels
from rlbilinear.probes.causal.coinrun import COINRUN
from rlbilinear.probes.causal.concepts import CausalConcept, concept_data
from rlbilinear.probes.causal.data import LEAST_GROUPS, ConceptData
from rlbilinear.probes.causal.heist import HEIST
from rlbilinear.probes.causal.maze import MAZE
from rlbilinear.probes.causal.world import World
from rlbilinear.probes.subject import Subject

WORLDS: dict[str, World[Any]] = {world.game: world for world in (MAZE, HEIST, COINRUN)}
"""The games with concepts."""

FIT_LEVELS, LEVELS = 150, 100
"""Levels to fit and to decide on, unless others are asked for."""
MOST_TRIED = 50
"""Levels looked at, for each that is asked for, before too few are found to have a concept."""
TRIES = 300
"""States drawn for a pair; on a level that suits, far fewer do."""


def causal_world(game: str) -> World[Any]:
    """Return a game with concepts.

    Raises:
        ValueError: a game without; the message lists those with.
    """
    if game not in WORLDS:
        raise ValueError(f"game: concepts come for {', '.join(WORLDS)}; got {game!r}")
    return WORLDS[game]


def game_of(subject: Subject) -> str:
    """Return the game that an agent plays.

    Raises:
        ValueError: it is not known, or has no concepts.
    """
    if subject.agent is None:
        raise ValueError(
            f"{subject.name}: a concept is given by name for agents of this package, whose game is "
            "known; give ConceptData"
        )
    return causal_world(subject.agent.config.game).game


def causal_concepts(game: str) -> tuple[str, ...]:
    """Return the names of a game's concepts.

    Raises:
        ValueError: a game without; the message lists those with.
    """
    return tuple(causal_world(game).concepts)


def causal_concept(game: str, name: str) -> CausalConcept[Any]:
    """Return a concept of a game.

    Raises:
        ValueError: unknown game or name; the message lists the choices.
    """
    world = causal_world(game)
    if not isinstance(name, str) or name not in world.concepts:
        raise ValueError(
            f"concept: choose from {', '.join(world.concepts)} for {game}; got {name!r}"
        )
    return world.concepts[name]


def game_data(
    game: str,
    name: str,
    *,
    fit_levels: int = FIT_LEVELS,
    levels: int = LEVELS,
    states_per_level: int = 8,
    pairs_per_level: int = 3,
    seed: int = 0,
) -> ConceptData:
    """Draw the states and pairs of a concept that comes with the package.

    The first levels of `FITTING` and `EVALUATION` are taken on which the concept matters
    (`World.suits`).

    Args:
        game: such as maze.
        name: name of the concept.
        fit_levels: how many levels to fit on.
        levels: how many levels to decide on.
        states_per_level: labelled states of each level.
        pairs_per_level: pairs of each level.
        seed: seed of all that is drawn.

    Raises:
        ValueError: unknown game or concept, or numbers that allow no answer.
    """
    concept, world = causal_concept(game, name), causal_world(game)
    for argument, given in (("fit_levels", fit_levels), ("levels", levels)):
        if isinstance(given, bool) or not isinstance(given, int) or given < LEAST_GROUPS:
            raise ValueError(f"{argument}: expected at least {LEAST_GROUPS}, got {given!r}")
    for argument, given in (
        ("states_per_level", states_per_level),
        ("pairs_per_level", pairs_per_level),
    ):
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ValueError(f"{argument}: expected at least 1, got {given!r}")
    data = concept_data(
        concept,
        world.sample_of(name),
        world.observe,
        _suiting(world, name, FITTING, fit_levels),
        _suiting(world, name, EVALUATION, levels),
        states_per_level=states_per_level,
        pairs_per_level=pairs_per_level,
        behaviours=world.behaviours,
        other=world.other(name),
        seed=seed,
        tries=TRIES,
    )
    # On few states another concept may have one value only: then it is not a control.
    constant = data.other is not None and (data.other == data.other.flat[0]).all()
    return replace(data, other=None) if constant else data


def _suiting(world: World[Any], name: str, within: Levels, count: int) -> list[int]:
    found: list[int] = []
    for level in within.first(min(within.count, MOST_TRIED * count)):
        if world.suits(level, name):
            found.append(level)
        if len(found) == count:
            return found
    raise ValueError(f"only {len(found)} of the {count} levels asked for have {name}")
