"""Drawings of decompositions, as matplotlib figures that need no screen.

Every function returns a `Figure`; save it with ``figure.savefig(path)`` or give it to TensorBoard's
``add_figure``. Signed quantities share one diverging colour map: red positive, blue negative, white
zero.
"""

from rlbilinear.figures.cards import Excitation, component_card, singular_card
from rlbilinear.figures.chains import depth
from rlbilinear.figures.components import channel_spatial, channel_spatial_over
from rlbilinear.figures.filters import eigenvector_images, filter_strip
from rlbilinear.figures.inputs import contributions
from rlbilinear.figures.spectra import spectrum, sweep

__all__ = [
    "Excitation",
    "channel_spatial",
    "channel_spatial_over",
    "component_card",
    "contributions",
    "depth",
    "eigenvector_images",
    "filter_strip",
    "singular_card",
    "spectrum",
    "sweep",
]
