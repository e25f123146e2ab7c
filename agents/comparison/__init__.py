"""Comparisons of architectures: planned, distributed, measured and drawn."""
