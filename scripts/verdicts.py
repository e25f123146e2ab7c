"""Gather an atlas over its agents: in how many of them each claim holds."""

from rlbilinear.commands.verdicts import main

if __name__ == "__main__":
    main()
