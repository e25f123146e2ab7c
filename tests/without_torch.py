"""Run by scripts/test_all.sh where torch is not installed: what must work without it.

    python tests/without_torch.py

Every module of the environments imports, and with the simulator a level is drawn and solved.
"""

import importlib
import importlib.util
import pkgutil
import sys

assert importlib.util.find_spec("torch") is None, "torch is installed: run the tests instead"

import rlbilinear.envs as envs  # noqa: E402  (after the check)

names = [module.name for module in pkgutil.iter_modules(envs.__path__, "rlbilinear.envs.")]
others = {"rlbilinear.envs.notebook", "rlbilinear.envs.vecenv", "rlbilinear.envs.recording"}
for name in names:
    if name not in others:  # of ipywidgets and Stable-Baselines3, which needs torch
        importlib.import_module(name)
assert "torch" not in sys.modules
if importlib.util.find_spec("procgen") is None:
    try:
        envs.Maze.from_seed(0)
    except ImportError as error:
        assert "rlbilinear[procgen]" in str(error), error
        print(f"{len(names)} modules; no simulator, and the error says so")
    else:
        raise AssertionError("a level without the simulator")
else:
    maze = envs.Maze.from_seed(0)
    path = envs.shortest_path(maze, maze.mouse, maze.cheese[0])
    assert path[0] == maze.mouse and path[-1] == maze.cheese[0]
    assert envs.observe([maze]).shape == (1, 3, 64, 64)
    print(f"{len(names)} modules; level 0 is solved in {len(path) - 1} steps")
