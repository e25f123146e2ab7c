"""Measure speed and memory, side by side with the alternative, in one run."""

from rlbilinear.commands.benchmark import main

if __name__ == "__main__":
    main()
