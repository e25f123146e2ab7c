"""Compare architectures: train games x architectures x seeds alike, and report what came out."""

from rlbilinear.commands.compare import main

if __name__ == "__main__":
    main()
