"""A maze state as an immutable value: read, edited, written back to the simulator's bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32

from rlbilinear.envs import levels, simulator, text
from rlbilinear.envs.files import replacing
from rlbilinear.envs.games import MODE_CODES, check_background, check_level_seed, check_mode
from rlbilinear.envs.grid import (
    LARGEST_WORLD,
    Cell,
    cells_of,
    check_inside,
    square_grid,
    unreachable,
)
from rlbilinear.envs.state import CHEESE, SPACE, WALL, State, parse
from rlbilinear.envs.state_checks import MazeTail, check_maze
from rlbilinear.envs.values import Value, frozen

Facing = Literal["left", "right"]

_MODE_NAMES = {code: name for name, code in MODE_CODES.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Maze(Value):
    """A situation in the maze game: walls, cheese, mouse, and how it is drawn.

    Two mazes are equal when the simulator draws them equally: same grid, mouse, facing,
    background and mode. Make one with `from_seed`, `from_bytes`, `from_array` or `from_text`,
    others by the `with_...` methods; none of them changes the maze it is called on.

    Attributes:
        grid: 51 wall, 100 space, 2 cheese; row 0 at the bottom; read-only.
        mouse: where the mouse is.
        facing: where it looks; changes a few pixels of its cell.
        background: index of the floor's picture, 0..8.
        mode: distribution mode: how the world is drawn, and which levels follow.
        maze_dim: side of the maze proper, centred in the world; edits leave it as it was.
        level_seed: the level this was made from, edited or not; None for a drawn one.
    """

    grid: Int32[np.ndarray, "rows columns"]
    mouse: Cell
    facing: Facing
    background: int
    mode: str
    maze_dim: int
    level_seed: int | None = None
    _source: State | None = field(default=None, repr=False)
    """The state it was read from: supplies all that a maze does not name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", frozen(self.grid))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Maze:
        """Read a state of the simulator (about 15 microseconds; the grid is not copied).

        Only what a maze names is looked at. It can be drawn whatever else the bytes say; before it
        is played, `validate_state` looks at the rest.

        Raises:
            ValueError: the bytes are malformed, or not of a maze.
        """
        state = parse(raw)
        tail = check_maze(state)
        mouse = state.entities
        return cls(
            state.grid,
            Cell(int(mouse["y"][0]), int(mouse["x"][0])),
            "right" if mouse["is_reflected"][0] else "left",
            state.view.background_index,
            _MODE_NAMES[state.options.distribution_mode],
            tail.maze_dim,
            state.episode.current_level_seed,
            state,
        )

    @classmethod
    def from_seed(cls, seed: int, mode: str = "easy") -> Maze:
        """Return the level that the simulator generates from this seed, without asking it.

        Raises:
            ValueError: the seed is not a level seed, or the mode not one of maze's.
        """
        check_mode("maze", mode)
        seed = check_level_seed(seed)
        level = levels.generate_maze(seed, mode)
        return cls(level.grid, level.start, "left", level.background, mode, level.maze_dim, seed)

    @classmethod
    def from_array(
        cls,
        grid: Int32[np.ndarray, "rows columns"],
        mouse: Cell,
        cheese: Cell | Iterable[Cell] | None = None,
        *,
        facing: Facing = "left",
        background: int = 0,
        mode: str = "easy",
        world: int | None = None,
        allow_wall: bool = False,
        allow_disconnected: bool = False,
    ) -> Maze:
        """Make a maze of any size from 3 to 64, odd or even.

        The simulator draws and plays all of them. Up to 32 each cell shows in the agent's view;
        beyond, at most sizes, some are lost between its pixels.

        Args:
            grid: 51 wall, 100 space, 2 cheese; square; row 0 at the bottom.
            mouse: where the mouse is in this grid.
            cheese: one cell, several or none (an empty tuple), in place of the grid's own;
                None keeps what the grid has.
            facing: where the mouse looks.
            background: index of the floor's picture, 0..8.
            mode: "easy" and "hard" draw the whole world, "memory" a window around the mouse.
            world: side of the world to put the grid in the middle of, with walls around, as
                levels are; None when the grid is the world. The maze's cells are the world's.
            allow_wall: accept mouse and cheese on walls; see `with_mouse` and `with_cheese`.
            allow_disconnected: accept free cells that no way leads to from the mouse.

        Raises:
            ValueError: says which argument or cell is not accepted.
        """
        check_mode("maze", mode)
        grid = square_grid(grid, "maze", {WALL: "wall", SPACE: "space", CHEESE: "cheese"})
        size = len(grid)
        rows, columns = np.nonzero(grid != WALL)
        if not len(rows):
            raise ValueError("the grid has no free cell")
        margin = min(rows.min(), columns.min(), size - 1 - rows.max(), size - 1 - columns.max())
        maze = cls(grid, mouse, "left", 0, mode, int(size - 2 * margin))
        maze = maze.with_mouse(mouse, allow_wall=allow_wall)
        if cheese is not None:
            cells = [cheese] if isinstance(cheese, Cell) else cheese
            maze = maze.with_cheese(*cells, allow_wall=allow_wall)
        if not allow_disconnected:
            maze._check_connected()
        if world is not None:
            maze = maze._centred(world)
        return maze.with_facing(facing).with_background(background)

    @classmethod
    def from_text(cls, drawing: str, *, allow_disconnected: bool = False) -> Maze:
        """Read a maze as `to_text` writes it, or as `print` shows it.

        Two characters a cell, the top row first: ██ or ## wall, C cheese, M mouse, MC mouse on
        cheese, M█ mouse in a wall; spaces or dots are free. A first line, such as "maze mode=hard
        facing=right background=3", says what is not drawn; what it leaves out is easy, left and 0.

        Args:
            drawing: the text.
            allow_disconnected: accept free cells that no way leads to from the mouse.

        Raises:
            ValueError: says which line or cell is not accepted, and what is.
        """
        read = text.read(drawing)
        maze = cls.from_array(
            read.grid,
            read.mouse,
            facing=read.facing,  # type: ignore[arg-type]  # checked there
            background=read.background,
            mode=read.mode,
            allow_wall=True,  # M█ says so
            allow_disconnected=allow_disconnected,
        )
        maze_dim = maze.maze_dim if read.maze_dim is None else read.maze_dim
        return replace(maze, maze_dim=maze_dim, level_seed=read.level_seed)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_disconnected: bool = False) -> Maze:
        """Read a maze from a text file; see `from_text`.

        Raises:
            ValueError: names the file, and says what in it is not accepted.
        """
        try:
            drawing = Path(path).read_text(encoding="utf-8-sig")  # with or without a mark before
            return cls.from_text(drawing, allow_disconnected=allow_disconnected)
        except ValueError as error:  # UnicodeDecodeError is one too
            raise ValueError(f"{path}: {error}") from error

    @property
    def size(self) -> int:
        """Side of the world, in cells."""
        return self.grid.shape[0]

    @property
    def margin(self) -> int:
        """Width of the frame of walls around the maze proper."""
        return (self.size - self.maze_dim) // 2

    @property
    def cheese(self) -> tuple[Cell, ...]:
        """The cells with cheese, by row and column."""
        lowest_bytes = self.grid.tobytes()[::4]  # several times faster than numpy
        found, at = [], lowest_bytes.find(CHEESE)
        while at >= 0:
            found.append(Cell(*divmod(at, self.size)))
            at = lowest_bytes.find(CHEESE, at + 1)
        return tuple(found)

    def free_cells(self) -> tuple[Cell, ...]:
        """Return the cells that are not wall, by row and column."""
        return cells_of(self.grid != WALL)

    def inner_grid(self) -> Int32[np.ndarray, "maze_dim maze_dim"]:
        """Return the grid of the maze proper, without the margin (a read-only view)."""
        inside = slice(self.margin, self.size - self.margin)
        return self.grid[inside, inside]

    def with_mouse(self, cell: Cell, *, allow_wall: bool = False) -> Maze:
        """Put the mouse on a free cell. On a cheese, the next step pays whatever it does.

        Args:
            cell: where.
            allow_wall: put it in a wall, if there is one; it can walk out, and not back.

        Raises:
            ValueError: the cell is outside, or a wall.
        """
        self._check_free(cell, "put the mouse", allow_wall)
        return replace(self, mouse=cell)

    def with_cheese(self, *cells: Cell, allow_wall: bool = False) -> Maze:
        """Put cheese on these free cells, and nowhere else: none, one or several.

        Args:
            cells: where.
            allow_wall: where there is a wall, put the cheese in its place.

        Raises:
            ValueError: names the cell that is outside, or a wall.
        """
        for cell in cells:
            self._check_free(cell, "put cheese", allow_wall)
        grid = np.where(self.grid == CHEESE, SPACE, self.grid).astype("<i4")
        for cell in cells:
            grid[cell] = CHEESE
        return replace(self, grid=grid)

    def with_wall(self, cell: Cell, present: bool = True, *, keep_connected: bool = False) -> Maze:
        """Put a wall on a cell that holds neither mouse nor cheese, or take one away.

        Args:
            cell: where.
            present: whether there shall be a wall.
            keep_connected: refuse a wall that would cut cells off from the mouse, which every
                wall on a corridor of a level does.

        Raises:
            ValueError: names the cell that is outside, occupied, or would be cut off.
        """
        check_inside(self.grid, cell)
        if (self.grid[cell] == WALL) == present:
            return self
        if present and (cell == self.mouse or self.grid[cell] == CHEESE):
            what = "the mouse" if cell == self.mouse else "cheese"
            raise ValueError(f"cannot put a wall on {cell}: {what} is there")
        grid = self.grid.copy()
        grid[cell] = WALL if present else SPACE
        if present and keep_connected:
            before = {*unreachable(self.grid, self.mouse), cell}
            cut = [far for far in unreachable(grid, self.mouse) if far not in before]
            if cut:
                raise ValueError(f"a wall on {cell} would cut off {_named(cut)} from the mouse")
        return replace(self, grid=grid)

    def with_facing(self, facing: Facing) -> Maze:
        """Turn the mouse to "left" or "right"."""
        if facing not in ("left", "right"):
            raise ValueError(f"a mouse faces 'left' or 'right', not {facing!r}")
        return replace(self, facing=facing)

    def with_background(self, index: int) -> Maze:
        """Draw the floor with this picture, 0..8."""
        return replace(self, background=check_background("maze", index))

    def to_bytes(self) -> bytes:
        """Return a state that the simulator accepts (about 20 microseconds).

        A maze read from bytes keeps all that it does not name: time, level range, random
        generators; unedited, it gives the same bytes. Another has those of a fixed fresh state,
        which the simulator is asked for once per mode.

        Raises:
            ImportError: the simulator is needed and cannot be loaded.
        """
        source = self._source or parse(simulator.template_state("maze", self.mode))
        return self.to_state(source).to_bytes()

    def to_state(self, source: State) -> State:
        """Return this maze as a state, with all that a maze does not name from `source`.

        The game's switches are those of the state the maze was read from, if it was.
        """
        size = self.size
        episode = source.episode._replace(grid_size=size * size)
        if self.level_seed is not None:
            episode = episode._replace(current_level_seed=self.level_seed)
        entities = source.entities.copy()
        mouse = entities[0]
        mouse["x"], mouse["y"] = self.mouse.column + 0.5, self.mouse.row + 0.5
        mouse["is_reflected"] = self.facing == "right"
        return source._replace(
            options=self._source.options if self._source else source.options,
            episode=episode,
            entities=entities,
            view=source.view._replace(background_index=self.background),
            world=source.world._replace(main_width=size, main_height=size),
            grid=self.grid,
            tail=MazeTail(self.maze_dim, size),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Maze):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        """Draw the maze in text, the top row first: M mouse, C cheese; see `from_text`."""
        return text.draw(self.grid, self.mouse)

    def to_text(self) -> str:
        """Return a text from which `from_text` makes an equal maze, with the same level seed.

        Of a maze read from bytes, what a maze does not name (time, generators) is left out.
        """
        first_line = text.header(
            mode=self.mode,
            facing=self.facing,
            background=self.background,
            maze_dim=self.maze_dim,
            level_seed=self.level_seed,
        )
        return f"{first_line}\n{self}\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the maze to a text file that `load` reads, and that any editor can change."""
        with replacing(Path(path)) as partial:
            partial.write_text(self.to_text(), encoding="utf-8")

    def _key(self) -> tuple:
        drawn = (self.mouse, self.facing, self.background, self.mode)
        return (self.grid.shape, self.grid.tobytes(), *drawn)

    def _check_free(self, cell: Cell, what: str, allow_wall: bool) -> None:
        check_inside(self.grid, cell)
        if not allow_wall and self.grid[cell] == WALL:
            raise ValueError(
                f"cannot {what} on {cell}: it is a wall (allow_wall=True does it anyway)"
            )

    def _check_connected(self) -> None:
        if cells := unreachable(self.grid, self.mouse):
            raise ValueError(
                f"the maze is disconnected: no way leads from the mouse on {self.mouse} to "
                f"{_named(cells)}; allow_disconnected=True accepts that"
            )

    def _centred(self, world: int) -> Maze:
        border, odd = divmod(world - self.size, 2)
        if border < 0 or odd or world > LARGEST_WORLD:
            raise ValueError(
                f"a grid of side {self.size} has its middle in a world of side {self.size}, "
                f"{self.size + 2}, ... up to {LARGEST_WORLD}; got {world}"
            )
        mouse = Cell(self.mouse.row + border, self.mouse.column + border)
        grid = np.pad(self.grid, border, constant_values=WALL)
        return replace(self, grid=grid, mouse=mouse)


def _named(cells: Sequence[Cell]) -> str:
    more = len(cells) - 1
    return f"{cells[0]}" + (f" and {more} more free cell{'s' * (more > 1)}" if more else "")


def expect_maze(given: object) -> None:
    """Raise TypeError unless this is a maze."""
    if not isinstance(given, Maze):
        raise TypeError(f"expected a Maze, got {type(given).__name__}")


def expect_mazes(given: object) -> list[Maze]:
    """Return several mazes as a list; raise TypeError for anything else."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"expected mazes, got {type(given).__name__}")
    mazes = list(given)
    for maze in mazes:
        expect_maze(maze)
    return mazes
