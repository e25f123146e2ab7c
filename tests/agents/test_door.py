"""What `rlbilinear.agents` offers: every name is there, and asking for it prints nothing."""

import subprocess
import sys
from types import ModuleType

from rlbilinear import agents

SUBPACKAGES = {"comparison", "edits"}


def test_every_name_is_what_it_says():
    """A function is not shadowed by a module of a similar name, once that was imported."""
    from rlbilinear.agents import distillation, evaluation, ppo  # noqa: F401

    modules = {name for name in agents.__all__ if isinstance(getattr(agents, name), ModuleType)}
    assert modules == SUBPACKAGES
    assert set(agents.__all__) <= set(dir(agents))


def test_all_names_are_loaded_in_silence():
    done = subprocess.run(
        [sys.executable, "-c", "from rlbilinear.agents import *; train, distill, BilinearPolicy"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
