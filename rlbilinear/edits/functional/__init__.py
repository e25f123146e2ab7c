"""Exact edits in weight space: every function returns a new layer and leaves the given one as is.

An edited bilinear layer is a bilinear layer again, with a few more hidden units or other weights:
no hooks, and it saves and loads like any other. Edits compose by applying one to the result of
another; as values that print, compose and invert they are in `rlbilinear.edits`. They are computed
in float64 and stored in the layer's dtype, on its device.
"""

from rlbilinear.edits.functional.compression import Compression, compress
from rlbilinear.edits.functional.filters import (
    keep_eigenfilters,
    rotate_filters,
    scale_eigenfilters,
    scale_filters,
    write_eigenfilters,
)
from rlbilinear.edits.functional.maps import (
    map_input,
    map_output,
    project_input,
    rotation_matrix,
    scale_output,
    scaling_matrix,
    span,
)
from rlbilinear.edits.functional.mirroring import Axis, mirror_layer
from rlbilinear.edits.functional.position import PositionBias, add_bias_map
from rlbilinear.edits.functional.transplanting import transplant

__all__ = [
    "Axis",
    "Compression",
    "PositionBias",
    "add_bias_map",
    "compress",
    "keep_eigenfilters",
    "map_input",
    "map_output",
    "mirror_layer",
    "project_input",
    "rotate_filters",
    "rotation_matrix",
    "scale_eigenfilters",
    "scale_filters",
    "scale_output",
    "scaling_matrix",
    "span",
    "transplant",
    "write_eigenfilters",
]
