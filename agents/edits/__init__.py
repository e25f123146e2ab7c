"""Edits of agents: whole ones, and along directions of a layer's output."""
