"""Take a direction of a layer apart: its spectrum, its eigenfilters, and what excites them."""

from rlbilinear.commands.decompose import main

if __name__ == "__main__":
    main()
