"""Language models from their weights: train bilinear ones, and make SwiGLU models bilinear."""

from rlbilinear.commands.language import main

if __name__ == "__main__":
    main()
