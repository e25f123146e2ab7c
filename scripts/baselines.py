"""Put published methods beside ours on the same pairs: what each reaches, and what it costs."""

from rlbilinear.commands.baselines import main

if __name__ == "__main__":
    main()
