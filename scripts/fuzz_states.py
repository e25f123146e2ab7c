"""Try mutated states on the simulator: each is refused with ValueError, or played without harm."""

from rlbilinear.commands.fuzz_states import main

if __name__ == "__main__":
    main()
