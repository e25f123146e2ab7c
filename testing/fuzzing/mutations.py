"""States of the simulator, mutated: reproducible from a seed and a number.

Most of a state's bytes are the texts of its random generators, where a change means little. So
mutations choose a block first, then a word in it.
"""

import functools
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rlbilinear.envs import Simulator
from rlbilinear.envs.entity import ENTITY
from rlbilinear.envs.games import GAMES
from rlbilinear.envs.state import Generator, Options, State, parse
from rlbilinear.envs.state_checks import ENTITY_LIMITS
from rlbilinear.envs.tails import FIELDS, read_fields, write_tail

Random = np.random.Generator
_ENTITY_NAMES = ENTITY.names or ()
_INTS = (0, 1, -1, 2, 3, 5, 9, 10, 51, 99, 100, 101, 256, 1000, 1002, 2**31 - 1, -(2**31), 10**6)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-38, 1e-9, 1e9, -1e9, 3e38, -3e38, 100.0, 1e4)
_NOT_NUMBERS = (float("nan"), float("inf"), float("-inf"))


class Word(NamedTuple):
    """Four bytes of a state: where, whether a float, and between which values it is accepted."""

    at: int
    is_float: bool
    low: float
    high: float


@functools.lru_cache(maxsize=64)
def pool(game: str, mode: str, seed: int) -> tuple[bytes, ...]:
    """Return states of this game, from the first to some hundred steps into an episode."""
    simulator = Simulator(game, 8, mode=mode, num_threads=0, seed=seed)
    random = np.random.default_rng(seed)
    states: list[bytes] = []
    actions = random.integers(15, size=8)
    for step in range(151):
        if step in (0, 1, 10, 40, 150):
            states += simulator.get_states()
        changed = random.random(8) < 0.3
        actions = np.where(changed, random.integers(15, size=8), actions)
        simulator.act(actions)
    simulator.observe()
    simulator.close()
    return tuple(states)


class Run(NamedTuple):
    """Words in a row: a pattern of floats (f) and ints (i) with their limits, repeated."""

    at: int
    kinds: str
    limits: dict[int, tuple[float, float]]
    repeats: int = 1

    def word(self, index: int) -> Word:
        """Return one of them."""
        place = index % len(self.kinds)
        limits = self.limits.get(place, (-1e6, 1e6))
        return Word(self.at + 4 * index, self.kinds[place] == "f", *limits)


_ENTITY_KINDS = "".join("f" if ENTITY[n] == np.dtype("<f4") else "i" for n in _ENTITY_NAMES)
_ENTITY_LIMITS = {
    _ENTITY_NAMES.index(name): limits for name, limits in {**ENTITY_LIMITS, "type": (0, 9)}.items()
}


@functools.lru_cache(maxsize=4096)
def runs(raw: bytes) -> dict[str, list[Run]]:
    """Return the words of a state by block, without the generators' texts."""
    state = parse(raw)
    blocks: dict[str, list[Run]] = {"lengths": [Run(0, "ii", {})]}
    at = 8 + len(state.game)

    def block(
        name: str,
        kinds: str,
        limits: dict[int, tuple[float, float]] | None = None,
        repeats: int = 1,
    ) -> None:
        nonlocal at
        if kinds and repeats:
            blocks.setdefault(name, []).append(Run(at, kinds, limits or {}, repeats))
        at += 4 * len(kinds) * repeats

    def generator(of: Generator) -> None:
        nonlocal at
        block("lengths", "ii")
        at += len(of.text)

    block("options", "i" * len(Options._fields))
    generator(state.level_generator)
    generator(state.generator)
    block("episode", "f" + "i" * 9 + "f" + "i" * 5)
    block("lengths", "i")
    block("entities", _ENTITY_KINDS, _ENTITY_LIMITS, len(state.entities))
    block("view", "iifffiii" + 8 * "f" + "iii")
    generator(state.asset_generator)
    block("world", "iii" + 6 * "f")
    block("lengths", "iii")
    block("cells", "i", {0: (-1, 100)}, state.grid.size)
    fields = read_fields(state.game, state.tail)
    for field in FIELDS[state.game]:
        value = fields[field.name]
        count = 1
        if isinstance(value, np.ndarray):
            block("lengths", "i")
            count = len(value)
        if field.kind == "entities":
            block("tail", _ENTITY_KINDS, _ENTITY_LIMITS, count)
        else:
            kind = "f" if field.kind.startswith("float") else "i"
            block("tail", kind, {0: (field.low, field.high)}, count)
    return blocks


def _write(raw: bytearray, word: Word, value: float) -> None:
    if word.is_float:
        struct.pack_into("<f", raw, word.at, np.float32(value))
    else:
        struct.pack_into("<i", raw, word.at, int(np.clip(value, -(2**31), 2**31 - 1)))


def _word(raw: bytes, random: Random, *blocks: str) -> Word:
    """Choose a block among these (default all), then a word of it."""
    found = runs(raw)
    names = [name for name in blocks or found if name in found]
    block = found[names[random.integers(len(names))]]
    index = int(random.integers(sum(len(run.kinds) * run.repeats for run in block)))
    for run in block:
        if index < len(run.kinds) * run.repeats:
            break
        index -= len(run.kinds) * run.repeats
    return run.word(index)


def _pick(random: Random, values: tuple[float, ...]) -> float:
    return values[random.integers(len(values))]


def bits(raw: bytes, random: Random) -> bytes:
    """Flip one to four bits of words."""
    changed = bytearray(raw)
    for _ in range(random.integers(1, 5)):
        changed[_word(raw, random).at + random.integers(4)] ^= 1 << random.integers(8)
    return bytes(changed)


def anywhere(raw: bytes, random: Random) -> bytes:
    """Flip one to eight bits anywhere, texts included."""
    changed = bytearray(raw)
    for _ in range(random.integers(1, 9)):
        changed[random.integers(len(raw))] ^= 1 << random.integers(8)
    return bytes(changed)


def cut(raw: bytes, random: Random) -> bytes:
    """Cut a piece out or repeat one, of any length, with and without the end marker."""
    start, end = sorted(random.integers(len(raw) + 1, size=2))
    if random.random() < 0.5:
        end = min(start + 4 * random.integers(1, 40), len(raw))
    piece = raw[:start] + raw[end:] if random.random() < 0.7 else raw[:end] + raw[start:]
    return piece[:-4] + raw[-4:] if random.random() < 0.5 else piece


def extreme(raw: bytes, random: Random) -> bytes:
    """Write extreme and special values into one to three words."""
    changed = bytearray(raw)
    for _ in range(random.integers(1, 4)):
        word = _word(raw, random)
        values = _FLOATS + _NOT_NUMBERS if word.is_float else _INTS
        value = _pick(random, values)
        if random.random() < 0.2:
            value = float(random.integers(-(2**31), 2**31))
        _write(changed, word, value)
    return bytes(changed)


def not_numbers(raw: bytes, random: Random) -> bytes:
    """Write NaN or infinity into one to three floats, often positions."""
    changed = bytearray(raw)
    for _ in range(random.integers(1, 4)):
        word = _word(raw, random, "entities", "view", "world", "tail", "episode")
        if word.is_float:
            _write(changed, word, _pick(random, _NOT_NUMBERS))
        else:
            entity = runs(raw)["entities"][0]
            _write(changed, entity.word(int(random.integers(6))), _pick(random, _NOT_NUMBERS))
    return bytes(changed)


def counts(raw: bytes, random: Random) -> bytes:
    """Write huge, negative or slightly wrong counts and lengths."""
    changed = bytearray(raw)
    word = _word(raw, random, "lengths")
    now = int.from_bytes(raw[word.at : word.at + 4], "little", signed=True)
    near = now + int(random.integers(-3, 4))
    _write(changed, word, near if random.random() < 0.4 else _pick(random, _INTS))
    return bytes(changed)


def limits(raw: bytes, random: Random) -> bytes:
    """Write values at the limits of what is accepted, or between, into up to twelve words."""
    changed = bytearray(raw)
    for _ in range(random.integers(1, 13)):
        word = _word(raw, random, "entities", "tail", "entities", "cells")
        value = _pick(random, (word.low, word.high, random.uniform(word.low, word.high)))
        _write(changed, word, value)
    return bytes(changed)


def near(raw: bytes, random: Random) -> bytes:
    """Change up to eight words a little: what someone who edits states may do."""
    changed = bytearray(raw)
    for _ in range(random.integers(1, 9)):
        word = _word(raw, random)
        kind = "<f" if word.is_float else "<i"
        (now,) = struct.unpack_from(kind, raw, word.at)
        if word.is_float:
            value = now * 10 ** random.uniform(-2, 2) + random.normal()
        else:
            value = now + int(random.integers(-3, 4))
        _write(changed, word, value)
    return bytes(changed)


def spliced(raw: bytes, random: Random, other: bytes) -> bytes:
    """Put one to three blocks of another state, perhaps of another game or mode, into this one."""
    state, donor = parse(raw), parse(other)
    names = [name for name in State._fields if name != "game"]
    for name in random.choice(names, random.integers(1, 4), replace=False):
        value = getattr(donor, name)
        if name == "tail":
            value = write_tail(value)
        state = state._replace(**{name: value})
    return state.to_bytes()


def things(raw: bytes, random: Random) -> bytes:
    """Multiply, remove, move together or retype the entities."""
    state = parse(raw)
    entities = state.entities.copy()
    chosen = random.integers(len(entities))
    choice = random.integers(5)
    if choice == 0:
        repeats = int(random.choice([2, 8, 12, 13, 40, 300, 999, 1001, 3000]))
        entities = np.concatenate([entities, entities[chosen].repeat(repeats)])
        if random.random() < 0.5:
            entities["x"][-repeats:] += random.normal(0, 2, repeats).astype("<f4")
    elif choice == 1:
        entities = np.delete(entities, chosen)
    elif choice == 2:
        entities["x"], entities["y"] = entities["x"][chosen], entities["y"][chosen]
    elif choice == 3:
        kinds = entities["type"]
        kinds[chosen] = random.integers(-1, 12) if random.random() < 0.8 else random.integers(110)
        entities["image_type"][chosen] = kinds[random.integers(len(kinds))]
    else:
        name = _ENTITY_NAMES[random.integers(len(_ENTITY_NAMES))]
        entities[name] = entities[name][random.permutation(len(entities))]
    return state._replace(entities=entities).to_bytes()


def worlds(raw: bytes, random: Random) -> bytes:
    """Give the world another size, with its grid and what is said of it elsewhere."""
    state = parse(raw)
    columns, rows = (int(n) for n in random.choice([1, 2, 3, 9, 20, 31, 64, 100, 256], 2))
    if random.random() < 0.6:
        rows = columns
    grid = np.resize(state.grid, (rows, columns))
    fields = read_fields(state.game, state.tail)
    tail = state.tail
    if not isinstance(tail, bytes) and "world_dim" in fields:
        tail = tail._replace(world_dim=columns)  # type: ignore[call-arg]
        if "maze_dim" in fields:
            tail = tail._replace(maze_dim=columns)  # type: ignore[call-arg]
    visibility = float(random.choice([1, 8, columns, 256]))
    return state._replace(
        grid=grid,
        tail=tail,
        episode=state.episode._replace(grid_size=rows * columns),
        world=state.world._replace(main_width=columns, main_height=rows, visibility=visibility),
        options=state.options._replace(center_agent=int(random.integers(2))),
    ).to_bytes()


Mutation = Callable[[bytes, Random], bytes]
SIMPLE: tuple[Mutation, ...] = (
    bits,
    anywhere,
    cut,
    extreme,
    not_numbers,
    counts,
    limits,
    near,
    things,
    worlds,
)
KINDS = (*(mutation.__name__ for mutation in SIMPLE), "spliced")
"""The kinds of mutations, by name."""

BLOCK = 100
"""So many states in a row are of one game and mode."""


class Case(NamedTuple):
    """A mutated state, and how to go on with it."""

    game: str
    mode: str
    kind: str
    raw: bytes
    random: Random


def case(games: tuple[str, ...], seed: int, number: int) -> Case:
    """Return the case of this number, the same in every process."""
    pairs = [(game, mode) for game in games for mode in GAMES[game]]
    game, mode = pairs[number // BLOCK % len(pairs)]
    random = np.random.default_rng([seed, number])
    states = pool(game, mode, seed)
    raw = states[random.integers(len(states))]
    kind = KINDS[random.integers(len(KINDS))]
    if kind == "spliced":
        others = states if random.random() < 0.5 else _donors(seed)
        other = others[random.integers(len(others))]
        return Case(game, mode, kind, spliced(raw, random, other), random)
    return Case(game, mode, kind, SIMPLE[KINDS.index(kind)](raw, random), random)


def warm_up(games: tuple[str, ...], seed: int) -> None:
    """Make the states that these games' cases start from, which are then kept."""
    for game in games:
        for mode in GAMES[game]:
            pool(game, mode, seed)
    _donors(seed)


@functools.lru_cache(maxsize=1)
def _donors(seed: int) -> tuple[bytes, ...]:
    """Return a few states of each game and mode."""
    donors: list[bytes] = []
    for game, modes in GAMES.items():
        for mode in modes:
            simulator = Simulator(game, 2, mode=mode, num_threads=0, seed=seed + 1)
            simulator.act(np.array([7, 11]))
            donors += simulator.get_states()
            simulator.observe()
            simulator.close()
    return tuple(donors)
