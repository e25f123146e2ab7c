"""Ordinary networks, their values, and Gaussians to integrate them over."""

import torch
from torch import nn

from rlbilinear import GatedLinear
from rlbilinear.moments import as_activation

SMOOTH = ["gelu", "silu", "tanh", "identity"]


def mlp(activation, d=2, hidden=4, outputs=3, seed=0, scale=1.0):
    torch.manual_seed(seed)
    first, last = nn.Linear(d, hidden).double(), nn.Linear(hidden, outputs).double()
    with torch.no_grad():
        first.weight.mul_(scale)
    return (first, activation, last)


def glu(activation, d=2, hidden=4, outputs=3, seed=0):
    torch.manual_seed(seed)
    return GatedLinear(
        nn.Linear(d, hidden), nn.Linear(d, hidden), nn.Linear(hidden, outputs), activation
    ).double()


def evaluate(network, x):
    """The network itself, as torch computes it."""
    if isinstance(network, nn.Module):
        return network(x).detach()
    for part in network:
        x = as_activation(part)(x) if not isinstance(part, nn.Linear | nn.Conv2d) else part(x)
    return x.detach()


def gaussian_of(d, seed=0, rank=None):
    torch.manual_seed(seed + 100)
    factor = torch.randn(d, rank or d).double() * 0.7
    return torch.randn(d).double(), factor @ factor.T, factor


def conv_cases():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 3, padding=1).double()
    wide = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)).double()
    point, last = nn.Conv2d(4, 3, 1).double(), nn.Conv2d(4, 3, 3, padding=1).double()
    strided = nn.Conv2d(4, 3, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1)).double()
    other = nn.Conv2d(2, 4, 3, padding=1).double()
    return {
        "conv act": (conv, "relu"),
        "conv act pointwise": (wide, "gelu", point),
        "conv act conv": (conv, "silu", last),
        "conv act conv, strides": (wide, "relu", strided),
        "act conv": ("relu", other),
        "affine": (conv,),
        "glu": GatedLinear(conv, other, None, "silu"),
        "glu pointwise": GatedLinear(conv, other, point, "relu"),
        "glu conv": GatedLinear(conv, other, last, "gelu"),
    }
