"""Mutated states, and processes in which the simulator is tried on them."""
