import os
import random
import signal

# One thread, set before PyTorch is there: programs that tests start have one too, and more threads
# would round sums otherwise.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

# What a shell starts in the background ignores Ctrl-C, and so does all that it starts in turn: with
# pytest there, tests that interrupt a program would wait for it in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seed what draws without a generator of its own; fixtures of modules too are made after it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
