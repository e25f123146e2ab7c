"""How to draw random layers: `st.from_type(BilinearLinear)`, `st.from_type(BilinearConv2d)`."""

import torch
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, BilinearLinear


@st.composite
def _dense(draw):
    torch.manual_seed(draw(st.integers(0, 2**32)))
    return BilinearLinear(
        draw(st.integers(1, 12)),
        draw(st.integers(1, 5)),
        hidden_features=draw(st.none() | st.integers(1, 9)),
        bias=draw(st.booleans()),
    ).double()


@st.composite
def _conv(draw):
    def number_or_pair(low, high):
        return st.integers(low, high) | st.tuples(*[st.integers(low, high)] * 2)

    torch.manual_seed(draw(st.integers(0, 2**32)))
    dilated = draw(st.booleans())  # such that kernels fit on maps of 7 x 6 without padding
    return BilinearConv2d(
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
        draw(number_or_pair(1, 3 if dilated else 4)),
        hidden_channels=draw(st.none() | st.integers(1, 6)),
        stride=draw(number_or_pair(1, 3)),
        padding=draw(number_or_pair(0, 3)),
        dilation=draw(number_or_pair(1, 2)) if dilated else 1,
        bias=draw(st.booleans()),
    ).double()


st.register_type_strategy(BilinearLinear, _dense())
st.register_type_strategy(BilinearConv2d, _conv())
