"""Train an agent by PPO."""

from rlbilinear.commands.train import main

if __name__ == "__main__":
    main()
