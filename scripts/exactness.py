"""Print each identity with its worst error, over random layers and over an agent's own."""

from rlbilinear.commands.exactness import main

if __name__ == "__main__":
    main()
