"""The study of polynomial approximants behind `rlbilinear polynomial`."""
