"""Ask about a concept along training: when it is readable, when it is used, what its form is."""

from rlbilinear.commands.along import main

if __name__ == "__main__":
    main()
