"""Edit a maze as a text file, and see what the simulator draws and where an agent goes in it."""

from rlbilinear.commands.edit_maze import main

if __name__ == "__main__":
    main()
