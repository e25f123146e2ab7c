"""Cheese or corner: what a maze agent chooses where the ways part, and vectors that turn it."""

from rlbilinear.commands.steer import main

if __name__ == "__main__":
    main()
