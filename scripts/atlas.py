"""Ask which concepts agents use, and where: all concepts at all layers, as one picture an agent."""

from rlbilinear.commands.atlas import main

if __name__ == "__main__":
    main()
