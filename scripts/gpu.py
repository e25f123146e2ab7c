"""Do what wants a GPU: its tests, the benchmark of training, and the agents that take long."""

from rlbilinear.commands.gpu import main

if __name__ == "__main__":
    main()
