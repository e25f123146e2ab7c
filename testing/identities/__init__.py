"""Identities that the decompositions promise, each as a function that says how far off it is.

A module here lists `IDENTITIES`; `scripts/exactness.py` runs those of every module it names.
"""
