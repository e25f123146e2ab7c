import os
import random
import signal

# One thread, set before PyTorch is there: programs that tests start have one too, and more threads
# would round sums otherwise.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples on every machine, so that a test is red because of a change and not of luck.
# New examples are looked for by `make explore` (tests/explore.py).
settings.register_profile(
    "same", derandomize=True, deadline=None, max_examples=30, print_blob=True, database=None
)
settings.register_profile(
    "explore", deadline=None, max_examples=300, print_blob=True, database=None
)
settings.load_profile("same")

# What a shell starts in the background ignores Ctrl-C, and so does all that it starts in turn: with
# pytest there, tests that interrupt a program would wait for it in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seed what draws without a generator of its own; fixtures of modules too are made after it."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
