"""Command lines: each reads its options, calls the library, and prints."""

if __name__ != "rlbilinear.commands":
    raise ImportError("import this package as `rlbilinear.commands`, not as `commands`")
