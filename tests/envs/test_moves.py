import numpy as np

from rlbilinear.envs.games import NUM_ACTIONS
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.moves import ACTIONS_OF_MOVE, MOVE_OF_ACTION, STEP_OF_MOVE, Move
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import SPACE


def test_every_action_moves_the_mouse_as_the_table_says():
    start = Cell(2, 2)
    maze = Maze.from_array(np.full((5, 5), SPACE), start)
    simulator = Simulator("maze", NUM_ACTIONS, num_threads=0)
    simulator.set_states([maze.to_bytes()] * NUM_ACTIONS)
    simulator.act(np.arange(NUM_ACTIONS))
    for action, raw in enumerate(simulator.get_states()):
        mouse = Maze.from_bytes(raw).mouse
        step = (mouse.row - start.row, mouse.column - start.column)
        assert step == STEP_OF_MOVE[Move(MOVE_OF_ACTION[action])]
        assert action in ACTIONS_OF_MOVE[Move(MOVE_OF_ACTION[action])]
    simulator.close()
