"""A heist state as an immutable value: read, edited, written back to the simulator's bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from jaxtyping import Bool, Int32

from rlbilinear.envs.games import MODE_CODES, NUM_LEVELS, check_background, check_mode
from rlbilinear.envs.grid import Cell, Grid, cells_of, check_inside, square_grid
from rlbilinear.envs.heist_things import (
    GEM,
    ICON,
    KEY,
    LOCK,
    MOTION_FORMAT,
    Colour,
    Item,
    check_heist,
    pattern,
    things,
)
from rlbilinear.envs.level_states import level_state
from rlbilinear.envs.simulator import template_state
from rlbilinear.envs.state import ENTITY, PLAYER, SPACE, WALL, State, parse
from rlbilinear.envs.tails import HeistTail
from rlbilinear.envs.values import Value, frozen

_MODE_NAMES = {code: name for name, code in MODE_CODES.items()}
_COMPARED = ["x", "y", "vx", "vy", "rx", "ry", "type", "image_type", "image_theme", "rotation"]


@dataclass(frozen=True, slots=True, eq=False)
class Heist(Value):
    """A situation in the heist game: walls, agent, gem, keys, locks and the keys held.

    Touching the gem pays 10 and ends the episode. A key that is touched is held from then on; a
    lock is a wall until its colour's key is held, and disappears when touched. Motion is
    continuous: the agent is anywhere in its cell, and has a speed.

    Two heists are equal when they look the same and continue in the same way, apart from the time
    passed: same grid, agent, things, held keys, background and mode. Make one with
    `from_seed`, `from_bytes` or `from_array`, and others by the `with_...` methods, none of which
    changes the heist it is called on.

    Attributes:
        grid: 51 wall, 100 space; row 0 at the bottom; read-only. Things are not in it.
        entities: all else, as the simulator stores it (`rlbilinear.envs.state.ENTITY`); read-only.
        has_keys: for each colour that the level knows, whether its key is held.
        background: index of the floor's picture, 0..8.
        mode: distribution mode: how the world is drawn, and which levels follow.
        level_seed: the level this was made from, edited or not; None for a drawn one.
    """

    grid: Int32[np.ndarray, "rows columns"]
    entities: np.ndarray = field(repr=False)
    has_keys: tuple[bool, ...]
    background: int
    mode: str
    level_seed: int | None = None
    _source: State | None = field(default=None, repr=False)
    """The state it was read from: supplies all that a heist does not name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", frozen(self.grid))
        object.__setattr__(self, "entities", frozen(self.entities))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Heist:
        """Read a state of the simulator; grid and entities are not copied.

        Only what a heist names is looked at. It can be drawn whatever else the bytes say; before it
        is played, `validate_state` looks at the rest.

        Raises:
            ValueError: the bytes are malformed, or not of a heist.
        """
        state = parse(raw)
        tail = check_heist(state)
        return cls(
            state.grid,
            state.entities,
            tuple(map(bool, tail.has_keys)),
            state.view.background_index,
            _MODE_NAMES[state.options.distribution_mode],
            state.episode.current_level_seed,
            state,
        )

    @classmethod
    def from_seed(cls, seed: int, mode: str = "easy") -> Heist:
        """Return the level that the simulator generates from this seed, by asking it (1 ms).

        Raises:
            ValueError: the seed is not a level seed, or the mode not one of heist's.
            ImportError: the simulator cannot be loaded.
        """
        state = parse(level_state("heist", seed, mode))
        everywhere = state.options._replace(level_seed_low=0, level_seed_high=NUM_LEVELS)
        return cls.from_bytes(state._replace(options=everywhere).to_bytes())

    @classmethod
    def from_array(
        cls,
        grid: Int32[np.ndarray, "rows columns"],
        agent: Cell,
        gem: Cell | Iterable[Cell] = (),
        *,
        keys: Mapping[Colour, Cell] | None = None,
        locks: Mapping[Colour, Cell] | None = None,
        held: Iterable[Colour] = (),
        background: int = 0,
        mode: str = "easy",
    ) -> Heist:
        """Make a heist of any size from 3 to 64.

        Args:
            grid: 51 wall, 100 space; square; row 0 at the bottom.
            agent: where the agent is.
            gem: where gems are: one cell, several or none.
            keys: where the keys lie, by colour; `with_keys` lays several of one colour.
            locks: where the locks are, by colour.
            held: colours of the keys that the agent holds.
            background: index of the floor's picture, 0..8.
            mode: "easy" and "hard" draw the whole world, "memory" a window around the agent.

        Raises:
            ValueError: says which argument or cell is not accepted.
            ImportError: the simulator, which supplies what is not said here, cannot be loaded.
        """
        check_mode("heist", mode)
        grid = square_grid(grid, "heist", {WALL: "wall", SPACE: "space"})
        alone = np.frombuffer(pattern(PLAYER, 0), ENTITY)
        heist = cls(grid, alone, (), 0, mode)
        heist = heist.with_agent(agent).with_background(background)
        heist = heist.with_gem(*([gem] if isinstance(gem, Cell) else gem))
        for colour, cell in (keys or {}).items():
            heist = heist.with_keys(colour, cell)
        for colour in held:
            heist = heist.with_held_key(colour)
        for colour, cell in (locks or {}).items():
            heist = heist.with_locks(colour, cell)
        return heist

    @property
    def size(self) -> int:
        """Side of the world, in cells."""
        return self.grid.shape[0]

    @property
    def agent(self) -> Cell:
        """The cell that the agent's middle is in."""
        return self._cells(PLAYER)[0]

    @property
    def gem(self) -> tuple[Cell, ...]:
        """The cells with a gem: one in a level."""
        return self._cells(GEM)

    @property
    def keys(self) -> tuple[Item, ...]:
        """The keys that lie about."""
        return self._items(KEY)

    @property
    def locks(self) -> tuple[Item, ...]:
        """The locks, open ones too as long as nobody has touched them."""
        return self._items(LOCK)

    @property
    def held_keys(self) -> tuple[Colour, ...]:
        """The colours of the keys that the agent holds."""
        return tuple(colour for colour, held in zip(Colour, self.has_keys, strict=False) if held)

    def free_cells(self) -> tuple[Cell, ...]:
        """Return where the agent can be: cells that are neither wall nor closed lock."""
        return cells_of(self.passable())

    def walls(self, held: Iterable[Colour] | None = None) -> Grid:
        """Return the grid with closed locks as walls, to be searched by `rlbilinear.envs.solver`.

        Such as `distances(heist.walls(), cell)`, or `shortest_path(heist.walls(), start, goal)`.
        For a way that takes up keys as it goes there is `key_route`.

        Args:
            held: colours of the keys held; None takes those that the agent holds.
        """
        keys = set(self.held_keys if held is None else held)
        grid = self.grid.copy()
        for colour, cell in self.locks:
            if colour not in keys:
                grid[cell] = WALL
        return grid

    def passable(self, held: Iterable[Colour] | None = None) -> Bool[np.ndarray, "rows columns"]:
        """Return where the agent can go with these keys (None: those it holds)."""
        return self.walls(held) != WALL

    def with_agent(self, cell: Cell) -> Heist:
        """Put the agent in the middle of a free cell, at rest; it looks where it looked."""
        self._check_free(cell, "put the agent")
        there = things(self.entities)
        for kind, theme, at in there:
            if kind == LOCK and at == cell and not self.has_keys[theme]:
                raise ValueError(
                    f"cannot put the agent on {cell}: a {Colour(theme).name.lower()} lock is "
                    "there, whose key it does not hold"
                )
        moved = bytearray(self.entities.tobytes())
        place = [thing.kind for thing in there].index(PLAYER)
        x, y = cell.column + 0.5, cell.row + 0.5
        MOTION_FORMAT.pack_into(moved, place * ENTITY.itemsize, x, y, 0, 0)
        return self._of(moved)

    def with_gem(self, *cells: Cell) -> Heist:
        """Put gems on these free cells, and nowhere else: one, several or none."""
        return self._with(GEM, 0, cells)

    def with_keys(self, colour: Colour, *cells: Cell) -> Heist:
        """Lay keys of a colour on these free cells, and nowhere else: none, one or several."""
        return self._with_items(KEY, colour, cells)

    def with_locks(self, colour: Colour, *cells: Cell) -> Heist:
        """Put locks of a colour on these free cells, and nowhere else: none, one or several."""
        if self.agent in cells and colour not in self.held_keys:
            raise ValueError(f"cannot put a lock on {self.agent}: the agent is there, without key")
        return self._with_items(LOCK, colour, cells)

    def with_held_key(self, colour: Colour, held: bool = True) -> Heist:
        """Give the agent the key of a colour, or take it; the keys that lie about stay there."""
        if not held and any(k.colour == colour and k.cell == self.agent for k in self.locks):
            raise ValueError(f"cannot take the key: the agent is in its lock, on {self.agent}")
        known = self._knowing(colour)
        has_keys = list(known.has_keys)
        has_keys[colour] = bool(held)
        return replace(known, has_keys=tuple(has_keys))

    def with_wall(self, cell: Cell, present: bool = True) -> Heist:
        """Put a wall on an empty cell, or take one away."""
        check_inside(self.grid, cell)
        if (self.grid[cell] == WALL) == present:
            return self
        there = [
            name
            for name, cells in (
                ("the agent", [self.agent]),
                ("a gem", self.gem),
                ("a key", [key.cell for key in self.keys]),
                ("a lock", [lock.cell for lock in self.locks]),
            )
            if cell in cells
        ]
        if present and there:
            raise ValueError(f"cannot put a wall on {cell}: {' and '.join(there)} is there")
        grid = self.grid.copy()
        grid[cell] = WALL if present else SPACE
        return replace(self, grid=grid)

    def with_background(self, index: int) -> Heist:
        """Draw the floor with this picture, 0..8."""
        return replace(self, background=check_background("heist", index))

    def to_bytes(self) -> bytes:
        """Return a state that the simulator accepts.

        A heist read from bytes keeps all that it does not name: time, level range, random
        generators; unedited, it gives the same bytes. Another has those of a fixed fresh state,
        which the simulator is asked for once per mode.

        Raises:
            ImportError: the simulator is needed and cannot be loaded.
        """
        source = self._source or parse(template_state("heist", self.mode))
        return self.to_state(source).to_bytes()

    def to_state(self, source: State) -> State:
        """Return this heist as a state, with all that a heist does not name from `source`.

        The game's switches are those of the state the heist was read from, if it was.
        """
        size = self.size
        episode = source.episode._replace(grid_size=size * size)
        if self.level_seed is not None:
            episode = episode._replace(current_level_seed=self.level_seed)
        tail = cast(HeistTail, source.tail)
        known = len(self.has_keys)
        return source._replace(
            options=self._source.options if self._source else source.options,
            episode=episode,
            entities=self.entities,
            view=source.view._replace(background_index=self.background),
            world=source.world._replace(main_width=size, main_height=size),
            grid=self.grid,
            tail=HeistTail(
                tail.num_keys if known == len(tail.has_keys) else known,
                size,
                tuple(map(int, self.has_keys)),
            ),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Heist):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        """Draw the heist in text, the top row first.

        AA agent, GG gem, Kb Kg Kr keys, Lb Lg Lr locks by colour. Below: the keys held.
        """
        symbols = {WALL: "██", SPACE: "  "}
        rows = [[symbols[code] for code in row] for row in self.grid.tolist()]
        for letter, items in (("L", self.locks), ("K", self.keys)):
            for colour, (row, column) in items:
                rows[row][column] = letter + colour.name[0].lower()
        for row, column in self.gem:
            rows[row][column] = "GG"
        rows[self.agent.row][self.agent.column] = "AA"
        held = ", ".join(colour.name.lower() for colour in self.held_keys) or "none"
        drawn = "\n".join("".join(row).rstrip() for row in reversed(rows))
        return f"{drawn}\nkeys held: {held}"

    def _cells(self, kind: int) -> tuple[Cell, ...]:
        return tuple(thing.cell for thing in things(self.entities) if thing.kind == kind)

    def _items(self, kind: int) -> tuple[Item, ...]:
        found = [thing for thing in things(self.entities) if thing.kind == kind]
        return tuple(Item(Colour(thing.theme), thing.cell) for thing in found)

    def _with_items(self, kind: int, colour: Colour, cells: tuple[Cell, ...]) -> Heist:
        known = self._knowing(colour) if cells else self
        return known._with(kind, _checked(colour), cells)

    def _with(self, kind: int, theme: int, cells: tuple[Cell, ...]) -> Heist:
        """Have things of a kind and theme on these cells only; those that are there stay as is."""
        for cell in cells:
            self._check_free(cell, f"put {_NAMES[kind]}")
        missing = list(dict.fromkeys(cells))
        raw, kept = self.entities.tobytes(), bytearray()
        for place, thing in enumerate(things(self.entities)):
            if (thing.kind, thing.theme) == (kind, theme):
                if thing.cell not in missing:
                    continue
                missing.remove(thing.cell)
            kept += raw[place * ENTITY.itemsize : (place + 1) * ENTITY.itemsize]
        for cell in missing:
            added = bytearray(pattern(kind, theme))
            MOTION_FORMAT.pack_into(added, 0, cell.column + 0.5, cell.row + 0.5, 0, 0)
            kept += added
        return self._of(kept)

    def _of(self, entities: bytes | bytearray) -> Heist:
        return replace(self, entities=np.frombuffer(bytes(entities), ENTITY))

    def _knowing(self, colour: Colour) -> Heist:
        """Return this heist with room for a colour's key, and an icon for when it is held."""
        new = [pattern(ICON, theme) for theme in range(len(self.has_keys), _checked(colour) + 1)]
        if not new:
            return self
        known = self.has_keys + (False,) * len(new)
        return replace(self._of(self.entities.tobytes() + b"".join(new)), has_keys=known)

    def _key(self) -> tuple:
        compared = self.entities[_COMPARED].tolist()
        drawn = (*compared, self.has_keys, self.background, self.mode)
        return (self.grid.shape, self.grid.tobytes(), *drawn)

    def _check_free(self, cell: Cell, what: str) -> None:
        check_inside(self.grid, cell)
        if self.grid[cell] == WALL:
            raise ValueError(f"cannot {what} on {cell}: it is a wall")


_NAMES = {GEM: "a gem", KEY: "a key", LOCK: "a lock"}


def _checked(colour: Colour) -> Colour:
    if not isinstance(colour, Colour):
        raise ValueError(f"colours are {', '.join(map(repr, Colour))}; got {colour!r}")
    return colour
