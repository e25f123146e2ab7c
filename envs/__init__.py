"""ProcGen for research: a vector environment, states read safely, mazes and heists as values.

Importing this does not load the simulator; the first environment does. It registers the games with
gymnasium, and drops the notice that old gym prints on import (procgen and stable_baselines3 import
gym), and nothing else.
"""

if __name__ != "rlbilinear.envs":
    raise ImportError("import this package as `rlbilinear.envs`, not as `envs`")

from rlbilinear.envs.fields import vector_field
from rlbilinear.envs.games import GAMES, NUM_ACTIONS, NUM_LEVELS
from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import Colour, Item
from rlbilinear.envs.level_states import level_state
from rlbilinear.envs.levels import (
    EVALUATION,
    FITTING,
    TRAINING,
    Level,
    Levels,
    check_disjoint,
    generate_maze,
)
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.measures import MEASURES, Measure, measure_table
from rlbilinear.envs.moves import ACTIONS_OF_MOVE, MOVE_OF_ACTION, STEP_OF_MOVE, Move
from rlbilinear.envs.observation import observe, placements
from rlbilinear.envs.pairs import ContrastPair, cheese_moved_pair, cheese_pair, top_right_pair
from rlbilinear.envs.places import Region
from rlbilinear.envs.playable import unplayable
from rlbilinear.envs.render import (
    Window,
    agent_view,
    cell_centre,
    cell_to_pixels,
    human_view,
    pixel_to_cell,
    top_row_first,
    window,
)
from rlbilinear.envs.routes import key_route
from rlbilinear.envs.sampling import Constraints, sample_levels
from rlbilinear.envs.simulator import Simulator, silence_gym_notice
from rlbilinear.envs.solver import (
    Divergence,
    decision_square,
    distances,
    expert_moves,
    path_divergence,
    shortest_path,
    top_right,
)
from rlbilinear.envs.state import State
from rlbilinear.envs.state_checks import validate_state
from rlbilinear.envs.tails import CoinrunTail, HeistTail, MazeTail
from rlbilinear.envs.topology import (
    components,
    dead_ends,
    is_connected,
    is_tree,
    off_distribution,
    on_distribution,
)

silence_gym_notice()  # before vecenv, whose stable_baselines3 imports gym

from rlbilinear.envs.gymnasium_envs import ProcgenEnv, ProcgenVectorEnv, register  # noqa: E402
from rlbilinear.envs.recording import Recording, RecordStates  # noqa: E402
from rlbilinear.envs.vecenv import ProcgenVecEnv  # noqa: E402

register()
del register

__all__ = [
    "ACTIONS_OF_MOVE",
    "EVALUATION",
    "FITTING",
    "GAMES",
    "MEASURES",
    "MOVE_OF_ACTION",
    "NUM_ACTIONS",
    "NUM_LEVELS",
    "STEP_OF_MOVE",
    "TRAINING",
    "Cell",
    "CoinrunTail",
    "Colour",
    "Constraints",
    "ContrastPair",
    "Divergence",
    "Heist",
    "HeistTail",
    "Item",
    "Level",
    "Levels",
    "Maze",
    "MazeTail",
    "Measure",
    "Move",
    "ProcgenEnv",
    "ProcgenVecEnv",
    "ProcgenVectorEnv",
    "RecordStates",
    "Recording",
    "Region",
    "Simulator",
    "State",
    "Window",
    "agent_view",
    "cell_centre",
    "cell_to_pixels",
    "check_disjoint",
    "cheese_moved_pair",
    "cheese_pair",
    "components",
    "dead_ends",
    "decision_square",
    "distances",
    "expert_moves",
    "generate_maze",
    "human_view",
    "is_connected",
    "is_tree",
    "key_route",
    "level_state",
    "measure_table",
    "observe",
    "off_distribution",
    "on_distribution",
    "path_divergence",
    "pixel_to_cell",
    "placements",
    "sample_levels",
    "shortest_path",
    "top_right",
    "top_right_pair",
    "top_row_first",
    "unplayable",
    "validate_state",
    "vector_field",
    "window",
]
