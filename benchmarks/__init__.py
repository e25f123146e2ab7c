"""What `scripts/benchmark.py` measures, one module a subject, each with a function `compare`."""

if __name__ != "rlbilinear.benchmarks":
    raise ImportError("import this package as `rlbilinear.benchmarks`, not as `benchmarks`")
