"""Ask which concepts agents use, and where: all concepts at all layers, one picture per agent."""

from rlbilinear.commands.atlas import main

if __name__ == "__main__":
    main()
