"""Run with a pipe: puts simulators into states that may end their process, in forked children.

The tests' own process may have threads, and what is forked of it may wait for a lock for ever. A
line of input is a JSON object with ``game``, ``mode``, ``state`` (in hexadecimal digits) and
``actions``; a line of output is the child's exit code, or minus the signal that ended it.
"""

import faulthandler
import json
import os
import signal
import sys

import numpy as np

from rlbilinear.envs.simulator import Simulator

PATIENCE = 120
"""Seconds after which a child that hangs is ended, by SIGALRM."""

simulators: dict[tuple[str, str], Simulator] = {}
for line in sys.stdin:
    asked = json.loads(line)
    game, mode = asked["game"], asked["mode"]
    if (game, mode) not in simulators:
        simulators[game, mode] = Simulator(game, mode=mode, num_threads=0, seed=5)
    simulator = simulators[game, mode]
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        faulthandler.disable()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        simulator.set_unchecked(0, bytes.fromhex(asked["state"]))
        simulator.observe()
        for action in asked["actions"]:
            simulator.act(np.array([action]))
            simulator.observe()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
