"""A maze editor for notebooks.

    from rlbilinear.envs.notebook import MazeEditor
    editor = MazeEditor(Maze.from_seed(3))
    editor                   # shows it
    editor.maze              # what was made of it

Needs ipywidgets, which the extra `notebook` installs.
"""

from __future__ import annotations

import io
from functools import partial

from PIL import Image

from rlbilinear.envs.editor import TOOLS, Editing, picture
from rlbilinear.envs.fields import MovePolicy
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.state import CHEESE, SPACE, WALL

try:
    import ipywidgets
except ImportError as error:
    raise ImportError(
        f"the maze editor needs ipywidgets ({error}): pip install 'rlbilinear[notebook]'"
    ) from error

_COLOURS = {WALL: "#c8925c", SPACE: "#f4f1ec", CHEESE: "#ffe38a"}
_PICTURE_SIDE = 512


class MazeEditor(ipywidgets.VBox):
    """A maze to click on, beside what the simulator draws of it.

    Choose a tool, then click on cells: "wall" builds a wall or takes it away, "mouse" moves the
    mouse, "cheese" puts a cheese or takes it away. What the maze does not allow is said below.

    With a policy, the picture has an arrow in each cell where it sends the mouse from there, asked
    again after each edit. For an agent: ``partial(probes.moves.move_probabilities, agent)``.

    Args:
        maze: to begin with.
        policy: from observations to the probability of each `Move`; None draws no arrows.
    """

    def __init__(self, maze: Maze, policy: MovePolicy | None = None) -> None:
        self._editing, self._policy = Editing(maze), policy
        self.tool = ipywidgets.ToggleButtons(options=list(TOOLS))
        self.undo = ipywidgets.Button(icon="undo", description="Undo")
        self.redo = ipywidgets.Button(icon="repeat", description="Redo")
        self.message = ipywidgets.Label()
        self.image = ipywidgets.Image(
            format="png", width=_PICTURE_SIDE, height=_PICTURE_SIDE, layout={"margin": "0"}
        )
        self._grid, self.cells = _cell_buttons(maze.size)
        for cell, button in self.cells.items():
            button.on_click(partial(self._clicked, cell))
        self.undo.on_click(lambda _: self._go_to(self._editing.undo()))
        self.redo.on_click(lambda _: self._go_to(self._editing.redo()))
        self._show()
        super().__init__(
            [
                ipywidgets.HBox([self.tool, self.undo, self.redo]),
                ipywidgets.HBox([self._grid, self.image]),
                self.message,
            ]
        )

    @property
    def maze(self) -> Maze:
        """The maze as it is now; another one may be put in its place, and undone."""
        return self._editing.maze

    @maze.setter
    def maze(self, maze: Maze) -> None:
        if maze.size != self.maze.size:
            raise ValueError(
                f"this editor is for worlds of {self.maze.size} cells a side, got {maze.size}: "
                "make another MazeEditor"
            )
        self._go_to(self._editing.to(maze))

    def _clicked(self, cell: Cell, _: ipywidgets.Button) -> None:
        try:
            editing = self._editing.use(self.tool.value, cell)
        except ValueError as error:
            self.message.value = str(error)
        else:
            self._go_to(editing)

    def _go_to(self, editing: Editing) -> None:
        self.message.value = ""
        self._editing = editing
        self._show()

    def _show(self) -> None:
        maze = self.maze
        cheese = set(maze.cheese)
        for cell, button in self.cells.items():
            button.description = "🐭" if cell == maze.mouse else "🧀" if cell in cheese else ""
            button.style.button_color = _COLOURS[int(maze.grid[cell])]
        self.undo.disabled = not self._editing.past
        self.redo.disabled = not self._editing.future
        encoded = io.BytesIO()
        Image.fromarray(picture(maze, self._policy)).save(encoded, "PNG")
        self.image.value = encoded.getvalue()


def _cell_buttons(size: int) -> tuple[ipywidgets.GridBox, dict[Cell, ipywidgets.Button]]:
    """Return a button for each cell, and all in their places, as large as the picture."""
    side = f"{_PICTURE_SIDE / size:.3f}px"
    layout = ipywidgets.Layout(
        width=side, height=side, padding="0", margin="0", border="1px solid rgba(0, 0, 0, 0.08)"
    )
    cells = {
        Cell(row, column): ipywidgets.Button(layout=layout, tooltip=f"row {row}, column {column}")
        for row in reversed(range(size))
        for column in range(size)
    }
    tracks = f"repeat({size}, {side})"
    grid = ipywidgets.Layout(
        grid_template_columns=tracks, grid_template_rows=tracks, grid_gap="0", margin="0 16px 0 0"
    )
    return ipywidgets.GridBox(list(cells.values()), layout=grid), cells
