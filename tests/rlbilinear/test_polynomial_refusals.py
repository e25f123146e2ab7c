import pytest
import torch
from torch import nn

from ordinary_networks import conv_cases, mlp
from rlbilinear import GatedLinear, approximate
from rlbilinear.one_hidden_layer import receptive_fields


def broken():
    first, act, last = mlp("relu")
    with torch.no_grad():
        first.weight[0, 0] = float("nan")
    return first, act, last


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: approximate(mlp("swish"), 2), ValueError, "unknown activation 'swish'; choose"),
        (lambda: approximate(mlp(nn.Softmax(-1)), 2), ValueError, "unknown activation Softmax"),
        (lambda: approximate(nn.Linear(2, 2), 2), TypeError, "network: expected a torch.nn.Seq"),
        (lambda: approximate(mlp("relu") * 2, 2), TypeError, "network: expected .* got .Linear"),
        (
            lambda: approximate((nn.Linear(2, 3), "relu", nn.Linear(4, 1)), 2),
            ValueError,
            "network: .* does not fit after",
        ),
        (
            lambda: approximate((nn.Linear(2, 3), "relu", nn.Conv2d(3, 1, 1)), 2),
            ValueError,
            "network: .* does not fit after",
        ),
        (lambda: approximate(broken(), 2), ValueError, "network: the first layer has weights"),
        (
            lambda: approximate((nn.Conv2d(2, 2, 3, groups=2), "relu"), 2),
            ValueError,
            "network: .* without groups",
        ),
        (
            lambda: approximate((nn.Conv2d(2, 2, 3, padding="same"), "relu"), 2),
            ValueError,
            "network: .* number of zeros",
        ),
        (lambda: approximate(mlp("relu"), 1.5), ValueError, "degree must be a whole number"),
        (lambda: approximate(mlp("relu"), -1), ValueError, "degree must be a whole number"),
        (lambda: approximate(mlp("relu"), 2, torch.zeros(3)), ValueError, "mean: expected shape"),
        (
            lambda: approximate(mlp("relu"), 2, None, -torch.eye(2)),
            ValueError,
            "covariance: not positive semi-definite",
        ),
        (
            lambda: GatedLinear(nn.Linear(2, 3), nn.Conv2d(2, 3, 1)),
            TypeError,
            "network: gate, value and down must all be",
        ),
        (
            lambda: GatedLinear(nn.Linear(2, 3), nn.Linear(2, 4)),
            ValueError,
            "network: gate and value must have the same sizes",
        ),
        (lambda: GatedLinear(nn.ReLU(), nn.ReLU()), TypeError, "expected nn.Linear or nn.Conv2d"),
        (
            lambda: GatedLinear(nn.Linear(2, 3), nn.Linear(2, 3), None, "swish"),
            ValueError,
            "unknown activation",
        ),
        (
            lambda: approximate(mlp("relu"), 3).quadratic_form(torch.ones(3)),
            ValueError,
            r"take .truncate\(2\)",
        ),
        (lambda: approximate(mlp("relu"), 2).coefficients(3), ValueError, "n: at most the degree"),
        (
            lambda: approximate(mlp("relu", d=700), 3).coefficients(3),
            ValueError,
            "n: the coefficients of order 3 .* too many",
        ),
        (lambda: approximate(mlp("relu"), 2)(torch.zeros(3)), ValueError, r"x: expected \(..., 2"),
        (
            lambda: approximate(mlp("relu"), 2)(torch.zeros(2).long()),
            ValueError,
            "x: expected floating-point",
        ),
        (
            lambda: approximate(conv_cases()["conv act"], 2)(torch.zeros(1, 3, 5, 5)),
            ValueError,
            r"images: expected \(batch, 2",
        ),
        (lambda: receptive_fields(mlp("relu"), torch.zeros(1, 2, 5, 5)), TypeError, "dense"),
        (
            lambda: receptive_fields(conv_cases()["conv act conv"], torch.zeros(1, 2, 2, 5)),
            ValueError,
            "images: .* do not hold a receptive field",
        ),
        (
            lambda: approximate(mlp("relu"), 2).measured_r2(torch.zeros(1, 2).double()),
            ValueError,
            "inputs: R² needs",
        ),
        (
            lambda: approximate(mlp("relu"), 2).measured_r2(
                torch.zeros(9, 2).double(), lambda x: x
            ),
            ValueError,
            "network: expected 3 outputs",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
