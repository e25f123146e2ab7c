"""Train an agent by PPO.

    rlbilinear train --out runs/coinrun --game coinrun --frames 2000000

A run that was stopped is resumed by the same command with --resume; Ctrl-C and SIGTERM save it
before it stops. Watch it with ``tensorboard --logdir runs``.
"""

from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.ppo import train
from rlbilinear.agents.run import Run
from rlbilinear.commands.running import Command
from rlbilinear.commands.runs import RunCommand, how_to_resume


def _train(command: RunCommand[TrainOptions]) -> None:
    train(command.options, overwrite=command.overwrite, resume=command.resume)


def _resume(command: RunCommand[TrainOptions]) -> str:
    run = command.options.out
    return how_to_resume(run, saved=Run(run).newest_checkpoint() is not None)


main = Command(RunCommand[TrainOptions], _train, __doc__, _resume)
