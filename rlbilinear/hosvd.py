"""Higher-order singular value decomposition of a bilinear layer, and its sparse interactions.

As an ``outputs x inputs²`` matrix the layer's tensor is ``B = sum_s sigma_s r_s (x) M_s``, with
left vectors ``r_s`` over the outputs, and right vectors that are symmetric matrices ``M_s`` of unit
norm. Each of these is decomposed in turn, so that

    ``y = sum_s r_s sigma_s sum_k lambda_sk (q_sk . x)²  (+ linear and constant parts)``

and the output is a sum of sparsely interacting eigenvectors, whose terms are orthonormal as
tensors: what is dropped of them is an exact Frobenius error.

Source: Pearce et al., "Weight-based decomposition: a case for bilinear MLPs".
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlbilinear.checks import check_whole
from rlbilinear.quadratic import QuadraticForm
from rlbilinear.spectrum import fix_signs
from rlbilinear.tensor import BilinearTensor, in_span

Order = Literal["value", "pairs", "activation"]


@dataclass(frozen=True, eq=False)
class HigherOrderSVD:
    """The singular components of a tensor, the largest first.

    The sign of a component is free: the largest entry of its output vector is positive.
    """

    tensor: BilinearTensor
    singular_values: Float[Tensor, "r"]
    outputs: Float[Tensor, "r outputs"]

    @property
    def share(self) -> Float[Tensor, "r"]:
        """The share of the tensor's squared norm in each component."""
        energy = self.singular_values**2
        return energy / energy.sum()

    def component(self, index: int) -> QuadraticForm:
        """Return the right singular matrix of a component as a form of unit norm, in factors.

        It has no linear or constant part. ``form(x) * singular_value`` is how far ``y`` goes along
        the component's output vector.

        Raises:
            ValueError: there is no such component.
        """
        (index,) = self._check([index])
        form = self.tensor.bilinear_part().quadratic_form(self.outputs[index])
        return 1 / self.singular_values[index].item() * form

    def error(self, kept: int | Iterable[int]) -> Float[Tensor, ""]:
        """Return the Frobenius error of keeping some components: the root of the dropped sigma²."""
        dropped = torch.ones_like(self.singular_values)
        dropped[self._check(kept)] = 0
        return (dropped * self.singular_values).norm()

    def truncate(self, kept: int | Iterable[int]) -> BilinearTensor:
        """Keep some components: the best tensor of that output rank, when they are the largest.

        The linear and constant parts stay. ``.as_layer(layer)`` makes weights of it.

        Args:
            kept: how many of the largest, or which.

        Raises:
            ValueError: there are not so many components, or no such one.
        """
        rows = self.outputs[self._check(kept)]
        return replace(self.tensor, down=rows.T @ (rows @ self.tensor.down))

    def interactions(self, kept: int | Iterable[int] | None = None) -> "Interactions":
        """Decompose components into eigenvectors; all of them when ``kept`` is None.

        Raises:
            ValueError: there are not so many components, or no such one.
        """
        indices = self._check(len(self.singular_values) if kept is None else kept)
        small, basis = in_span(self.tensor)
        inside = HigherOrderSVD(small, self.singular_values, self.outputs)
        components, values, vectors = [], [], []
        for index in indices:
            eigenvalues, eigenvectors = inside.component(index).eigh()
            components.append(torch.full_like(eigenvalues, index, dtype=torch.long))
            values.append(self.singular_values[index] * eigenvalues)
            vectors.append(fix_signs(eigenvectors @ basis))
        dropped = self.error(indices)
        if not indices:
            components, values = [torch.empty(0, dtype=torch.long)], [basis.new_empty(0)]
            vectors = [basis.new_empty(0, basis.shape[1])]
        return Interactions(
            torch.cat(components),
            torch.cat(values),
            torch.cat(vectors),
            self.outputs,
            self.tensor.linear,
            self.tensor.constant,
            dropped,
        )

    def _check(self, kept: int | Iterable[int]) -> list[int]:
        count = len(self.singular_values)
        if isinstance(kept, Iterable):
            indices = sorted(set(kept))
        else:
            check_whole(0, kept=kept)
            indices = list(range(kept))
        if not set(indices) <= set(range(count)):
            raise ValueError(f"there are {count} components, numbered from 0; asked for {kept}")
        return indices


@dataclass(frozen=True, eq=False)
class Interactions:
    """Terms ``outputs[component_t] * value_t * (vector_t . x)²``, which add up to the layer.

    Vectors are unit, and orthonormal among those of one component; the terms as tensors are
    orthogonal, of norm ``|value|``. A term's value is its singular value times its eigenvalue.
    """

    components: Int[Tensor, "t"]
    values: Float[Tensor, "t"]
    vectors: Float[Tensor, "t inputs"]
    outputs: Float[Tensor, "r outputs"]
    linear: Float[Tensor, "outputs inputs"]
    constant: Float[Tensor, "outputs"]
    error: Float[Tensor, ""]
    """Frobenius norm of what was dropped from the layer's tensor."""

    def __len__(self) -> int:
        return len(self.values)

    def activations(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n t"]:
        """Return every term's ``value (vector . x)²``: how far it moves y along its output."""
        return self.values.to(x) * (x @ self.vectors.to(x).T) ** 2

    def keep(
        self,
        count: int,
        by: Order = "value",
        *,
        per_component: bool = True,
        x: Float[Tensor, "n inputs"] | None = None,
    ) -> "Interactions":
        """Keep the ``count`` leading terms of every component, or of all together.

        Args:
            count: how many, of each component or in all; fewer where there are not so many.
            by: "value" goes by |value| (least Frobenius error), "pairs" takes positive and
                negative ones in turn, "activation" goes by |mean activation on ``x``|.
            per_component: of every component, or of all terms together.
            x: data, for "activation".

        Raises:
            ValueError: an unknown ``by``, a negative count, or data that is missing or not needed.
        """
        check_whole(0, count=count)
        if by not in get_args(Order) or (x is None) == (by == "activation"):
            raise ValueError(
                f"expected by one of {', '.join(get_args(Order))}, and x with 'activation' only; "
                f"got {by!r}, x {'missing' if x is None else 'given'}"
            )
        if x is None:
            score = self.values.abs()
        else:
            score = self.activations(x.to(self.values)).mean(0).abs()
        groups = self.components if per_component else torch.zeros_like(self.components)
        rank = _rank_in_group(score, groups)
        if by == "pairs":
            signs = (self.values > 0).long()
            rank = _rank_in_group(-_rank_in_group(score, 2 * groups + signs), groups)
        return self._only(rank < count)

    def tensor(self) -> BilinearTensor:
        """Add the terms up; ``.as_layer(layer)`` makes weights of it, one hidden unit for each."""
        columns = self.outputs[self.components] * self.values[:, None]
        return BilinearTensor(self.vectors, self.vectors, columns.T, self.linear, self.constant)

    def _only(self, kept: Bool[Tensor, "t"]) -> "Interactions":
        dropped = self.values[~kept].norm()
        return replace(
            self,
            components=self.components[kept],
            values=self.values[kept],
            vectors=self.vectors[kept],
            error=torch.hypot(self.error, dropped),
        )


def hosvd(tensor: BilinearTensor) -> HigherOrderSVD:
    """Decompose a tensor by its outputs, through the Gram matrix of them.

    Never builds ``outputs x inputs²``: the Gram matrix ``<B_a, B_b>`` comes from products of the
    factors. As it holds squares, components smaller than about ``1e-8`` of what the hidden units
    add up to (without their signs) are rounding and are left out. Linear and constant parts take no
    part: `BilinearTensor.homogeneous` makes them part of the tensor where they shall.
    """
    gram = tensor.gram
    energy, vectors = torch.linalg.eigh(gram)
    energy, vectors = energy.flip(0), vectors.flip(1)
    # Units may cancel: rounding is a share of their sizes, not of what is left of them.
    sizes = tensor.left.norm(dim=1) * tensor.right.norm(dim=1)
    scale = (tensor.down.abs() @ sizes).square().amax()
    eps = torch.finfo(energy.dtype).eps
    kept = energy > max(len(energy), tensor.hidden_features) * eps * scale
    # Symmetric matrices have so many dimensions; beyond them there is rounding only.
    kept[tensor.in_features * (tensor.in_features + 1) // 2 :] = False
    outputs = fix_signs(vectors[:, kept].T)
    return HigherOrderSVD(tensor, energy[kept].sqrt(), outputs)


def _rank_in_group(score: Tensor, groups: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Return every item's place in its group, by descending score; ties keep their order."""
    rank = torch.empty_like(groups)
    for group in groups.unique():
        members = (groups == group).nonzero().flatten()
        order = score[members].argsort(descending=True, stable=True)
        rank[members[order]] = torch.arange(len(members), device=rank.device)
    return rank
