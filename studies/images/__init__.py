"""The study of bilinear image classifiers behind `rlbilinear images`."""
