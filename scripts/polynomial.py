"""Read any network as a polynomial: its best linear, quadratic, ... function, in closed form."""

from rlbilinear.commands.polynomial import main

if __name__ == "__main__":
    main()
