"""Train an agent of maze or heist from a shortest-path expert, on a CPU in one to three hours.

    rlbilinear distill --out runs/maze --precision bfloat16
    rlbilinear distill --game heist --out runs/heist --precision bfloat16

A run that was stopped is resumed from its last checkpoint by the same command with --resume. Watch
it with ``tensorboard --logdir runs``.
"""

from rlbilinear.agents.distill_options import DistillOptions
from rlbilinear.agents.distillation import distill
from rlbilinear.agents.run import Run
from rlbilinear.commands.running import Command
from rlbilinear.commands.runs import RunCommand, how_to_resume


def _distill(command: RunCommand[DistillOptions]) -> None:
    distill(command.options, overwrite=command.overwrite, resume=command.resume)


def _resume(command: RunCommand[DistillOptions]) -> str:
    run = command.options.out
    return how_to_resume(run, saved=Run(run).newest_checkpoint() is not None)


main = Command(RunCommand[DistillOptions], _distill, __doc__, _resume)
