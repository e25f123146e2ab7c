"""Train a maze agent from the shortest-path expert, on a CPU in one to two hours."""

from rlbilinear.commands.distill import main

if __name__ == "__main__":
    main()
