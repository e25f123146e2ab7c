"""Score agents on held-out levels, sampled and greedy, beside the two aimless baselines."""

from rlbilinear.commands.evaluate import main

if __name__ == "__main__":
    main()
