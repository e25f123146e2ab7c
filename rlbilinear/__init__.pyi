from . import agents, envs, probes
from .approximation import approximate
from .convolution import ChannelSpatial, Eigenfilters, channel_spatial_svd, eigenfilters
from .edits.functional import compress, keep_eigenfilters, scale_eigenfilters
from .gaussian import Gaussian, estimate_gaussian
from .layers import BilinearConv2d, BilinearLinear
from .one_hidden_layer import GatedLinear
from .polynomial import Polynomial
from .quadratic import QuadraticForm
from .spectrum import Spectrum
from .stack import BilinearStack
from .swapping import replace_layers
from .tensor import BilinearTensor

__all__ = [
    "BilinearConv2d",
    "BilinearLinear",
    "BilinearStack",
    "BilinearTensor",
    "ChannelSpatial",
    "Eigenfilters",
    "GatedLinear",
    "Gaussian",
    "Polynomial",
    "QuadraticForm",
    "Spectrum",
    "agents",
    "approximate",
    "channel_spatial_svd",
    "compress",
    "eigenfilters",
    "envs",
    "estimate_gaussian",
    "keep_eigenfilters",
    "probes",
    "replace_layers",
    "scale_eigenfilters",
]
