"""Bilinear layers as third-order tensors: exact decompositions and exact edits of their weights."""

from rlbilinear.adversarial import (
    QuadraticMasks,
    attack_curve,
    quadratic_masks,
    singular_directions,
    without_directions,
)
from rlbilinear.approximation import approximate, refit
from rlbilinear.chains import Link, chain, explain_chain
from rlbilinear.classifiers import BilinearClassifier
from rlbilinear.composition import (
    EmbeddedSpectrum,
    embedded,
    embedded_spectrum,
    group_directions,
    head_forms,
    residual_form,
)
from rlbilinear.convert import PolynomialLayer, load_polynomial, save_polynomial, to_module
from rlbilinear.convolution import (
    ChannelSpatial,
    Eigenfilters,
    as_convolution,
    channel_spatial_svd,
    eigenfilters,
    eigenfilters_of,
)
from rlbilinear.cp import CPDecomposition, fit_cp
from rlbilinear.cross_terms import CrossForm, Reading, cross_form, read
from rlbilinear.deep_hosvd import DeepHOSVD, deep_hosvd
from rlbilinear.edits.functional import (
    PositionBias,
    add_bias_map,
    compress,
    keep_eigenfilters,
    project_input,
    scale_eigenfilters,
    scale_output,
    scaling_matrix,
    transplant,
    write_eigenfilters,
)
from rlbilinear.eigenmaps import EigenMaps, VectorFilters, eigenmaps, pull_back, vector_filters
from rlbilinear.family import FormFamily
from rlbilinear.gaussian import Gaussian, GaussianMixture, LowRankCovariance, estimate_gaussian
from rlbilinear.hosvd import HigherOrderSVD, Interactions, hosvd
from rlbilinear.implicit import ImageForm, image_form
from rlbilinear.layer_subsets import sweep_subsets
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.moments import Activation, gaussian_moment, hermite_coefficients
from rlbilinear.one_hidden_layer import GatedLinear, receptive_fields
from rlbilinear.polynomial import Polynomial
from rlbilinear.quadratic import QuadraticForm, TruncationError
from rlbilinear.sparsity import (
    completeness,
    count_for_energy,
    cross_completeness,
    cumulative_energy,
    effective_rank,
    participation_ratio,
)
from rlbilinear.spectrum import Spectrum
from rlbilinear.stack import BilinearStack, Stage
from rlbilinear.swapping import Replacement, group_layers, replace_layers, replaceable
from rlbilinear.tensor import BilinearTensor
from rlbilinear.tucker import Tucker2, tucker2

__all__ = [
    "Activation",
    "BilinearClassifier",
    "BilinearConv2d",
    "BilinearLinear",
    "BilinearStack",
    "BilinearTensor",
    "CPDecomposition",
    "ChannelSpatial",
    "CrossForm",
    "DeepHOSVD",
    "EigenMaps",
    "Eigenfilters",
    "EmbeddedSpectrum",
    "FormFamily",
    "GatedLinear",
    "Gaussian",
    "GaussianMixture",
    "HigherOrderSVD",
    "ImageForm",
    "Interactions",
    "Link",
    "LowRankCovariance",
    "Polynomial",
    "PolynomialLayer",
    "PositionBias",
    "QuadraticForm",
    "QuadraticMasks",
    "Reading",
    "Replacement",
    "Spectrum",
    "Stage",
    "TruncationError",
    "Tucker2",
    "VectorFilters",
    "add_bias_map",
    "approximate",
    "as_convolution",
    "attack_curve",
    "chain",
    "channel_spatial_svd",
    "completeness",
    "compress",
    "count_for_energy",
    "cross_completeness",
    "cross_form",
    "cumulative_energy",
    "deep_hosvd",
    "effective_rank",
    "eigenfilters",
    "eigenfilters_of",
    "eigenmaps",
    "embedded",
    "embedded_spectrum",
    "estimate_gaussian",
    "explain_chain",
    "fit_cp",
    "gaussian_moment",
    "group_directions",
    "group_layers",
    "head_forms",
    "hermite_coefficients",
    "hosvd",
    "image_form",
    "keep_eigenfilters",
    "load_polynomial",
    "participation_ratio",
    "project_input",
    "pull_back",
    "quadratic_masks",
    "read",
    "receptive_fields",
    "refit",
    "replace_layers",
    "replaceable",
    "residual_form",
    "save_polynomial",
    "scale_eigenfilters",
    "scale_output",
    "scaling_matrix",
    "singular_directions",
    "sweep_subsets",
    "to_module",
    "transplant",
    "tucker2",
    "vector_filters",
    "without_directions",
    "write_eigenfilters",
]
