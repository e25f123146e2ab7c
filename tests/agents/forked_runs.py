"""Run with a pipe: scripts in forked children, which need not import torch and the game again.

A line of input is a JSON list: the file that is to be the child's stderr, and its command line. A
line of output is the child's process number, the next one its exit code, or minus the signal.
"""

import json
import os
import runpy
import sys
import tempfile

import rlbilinear.agents.ppo  # noqa: F401
from rlbilinear.agents import Agent
from rlbilinear.envs import ProcgenVecEnv

ProcgenVecEnv("coinrun", 1).close()
with tempfile.TemporaryDirectory() as folder:  # what torch imports when it is first needed
    Agent.new("impala-small").save(f"{folder}/agent")
for line in sys.stdin:
    stderr, *command = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")
        sys.exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
