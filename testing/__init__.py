"""Checks that anyone can run on their own layers, agents and states: identities, and fuzzing."""

if __name__ != "rlbilinear.testing":
    raise ImportError("import this package as `rlbilinear.testing`, not as `testing`")
