"""Train bilinear classifiers of real images, and read them from their weights."""

from rlbilinear.commands.images import main

if __name__ == "__main__":
    main()
