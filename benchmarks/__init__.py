"""The benchmarks of `rlbilinear benchmark`: a module a subject, with a function `comparisons`."""

if __name__ != "rlbilinear.benchmarks":
    raise ImportError("import this package as `rlbilinear.benchmarks`, not as `benchmarks`")
