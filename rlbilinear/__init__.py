"""Bilinear layers as third-order tensors: exact decompositions and exact edits of their weights.

The names here are the ones most used; the modules have the rest. Each is loaded when it is first
asked for (``__init__.pyi`` says from where), so that ``import rlbilinear`` is quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
