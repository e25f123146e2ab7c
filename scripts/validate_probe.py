"""Ask whether a maze agent uses what a probe reads, and write a report."""

from rlbilinear.commands.validate_probe import main

if __name__ == "__main__":
    main()
