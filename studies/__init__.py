"""Studies made with the library: image classifiers read from their weights, and polynomials."""

if __name__ != "rlbilinear.studies":
    raise ImportError("import this package as `rlbilinear.studies`, not as `studies`")
