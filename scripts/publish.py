"""Make an agent of a run fit to be shared: half precision, its scores, and a card for people."""

from rlbilinear.commands.publish import main

if __name__ == "__main__":
    main()
