"""``python -m rlbilinear``: the command ``rlbilinear``."""

if __name__ == "__main__":
    from rlbilinear.commands.main import main

    main()
