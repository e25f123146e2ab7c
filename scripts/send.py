"""Send a maze agent to every free cell of held-out mazes by bias maps, and see where it arrives."""

from rlbilinear.commands.send import main

if __name__ == "__main__":
    main()
