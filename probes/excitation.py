"""What excites a channel most: a picture by gradient ascent, and the places in real pictures."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observation
from rlbilinear.checks import check_whole
from rlbilinear.probes.named import AgentLike, as_agent
from rlbilinear.probes.patches import Frames, Patch, windows_through
from rlbilinear.receptive import Rectangle, read_by


@dataclass(frozen=True, eq=False)
class Ascent:
    """A picture that excites a direction of a layer, and how far it came.

    Attributes:
        picture: in 0..1.
        activation: of the direction there; the picture rounded to 256 levels gives nearly the same.
        history: the activation after each step.
    """

    picture: Float[np.ndarray, "3 height width"]
    activation: float
    history: tuple[float, ...]


def ascend(
    agent: AgentLike,
    layer: str,
    direction: Float[Tensor, "channels"],
    position: tuple[int, int] | None = None,
    *,
    start: Observation | None = None,
    steps: int = 200,
    rate: float = 0.05,
    smoothness: float = 20.0,
    energy: float = 5.0,
    seed: int = 0,
) -> Ascent:
    """Search for the picture that excites a direction of a layer's channels most.

    Adam on the pixels, which stay in 0..1, maximises

        ``asinh(activation / scale) - smoothness * roughness - energy * contrast``

    where the scale is the activation's spread over 64 random pictures, roughness the mean absolute
    difference of neighbouring pixels and contrast the mean squared distance from grey, both over
    the pixels that the activation depends on (those with a gradient). asinh grows as a logarithm:
    in a polynomial network activations grow by many powers of ten, beside which no penalty would
    count. This finds a local maximum: another seed may find another. For the exact maximum of one
    bilinear layer over patches of a given norm see `rlbilinear.sphere.sphere_maximum`.

    Args:
        agent: whose layer.
        layer: one that gives maps ``(channels, height, width)``, or numbers.
        direction: over its channels; a unit vector is one channel.
        position: row and column of the map, row 0 at the top; the mean over all when None.
        start: the picture to begin with; grey with a little noise when None.
        steps: of Adam.
        rate: its learning rate.
        smoothness: weight of the roughness; deep layers may need several times the default.
        energy: weight of the contrast.
        seed: of the noise.

    Raises:
        ValueError: unknown layer, a direction or a position that does not fit its output, or no
            positive number of steps.
        FloatingPointError: the activation is not finite.
    """
    check_whole(steps=steps)
    agent = as_agent(agent)
    generator = torch.Generator().manual_seed(seed)
    shape = agent.config.observation_shape
    noise = torch.rand(64, *shape, generator=generator).to(agent.device, agent.dtype)
    with torch.no_grad():
        scale = _along(agent, layer, noise, direction, position).std().clamp(min=1e-12)
    if start is None:
        pixels = 0.5 + 0.02 * (noise[:1] - 0.5)
    else:
        pixels = torch.as_tensor(start)[None].to(noise) / 255
    pixels = pixels.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=rate)
    history: list[float] = []
    best = -float("inf"), pixels.detach().clone(), 0.0
    for _ in range(steps + 1):  # the last one only looks
        activation = _along(agent, layer, pixels, direction, position)[0]
        if not torch.isfinite(activation):
            raise FloatingPointError(f"the activation of {layer} is not finite: lower the rate")
        if not history:
            (seen,) = torch.autograd.grad(activation, pixels, retain_graph=True)
            count = (seen != 0).sum().clamp(min=1)
        rough = pixels.diff(dim=2).abs().sum() + pixels.diff(dim=3).abs().sum()
        contrast = ((pixels - 0.5) ** 2).sum()
        wanted = torch.asinh(activation / scale) - (smoothness * rough + energy * contrast) / count
        history.append(activation.item())
        if wanted.item() > best[0]:
            best = wanted.item(), pixels.detach().clone(), activation.item()
        (gradient,) = torch.autograd.grad(-wanted, pixels)
        pixels.grad = gradient
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return Ascent(best[1][0].float().cpu().numpy(), best[2], tuple(history[1:]))


def _along(
    agent: Agent,
    layer: str,
    images: Float[Tensor, "n 3 height width"],
    direction: Float[Tensor, "channels"],
    position: tuple[int, int] | None,
) -> Float[Tensor, "n"]:
    """Return a direction's activation, differentiable in the images (0..1)."""
    kept: list[Tensor] = []
    handle = agent.layer(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        features = agent.policy.features_extractor(images)
        agent.policy.action_net(features)
    finally:
        handle.remove()
    if not kept:
        raise ValueError(f"layer {layer} has weights but no output of its own")
    return along(kept[0], layer, direction, position)


def along(
    output: Float[Tensor, "n channels *positions"],
    layer: str,
    direction: Float[Tensor, "channels"],
    position: tuple[int, int] | None,
) -> Float[Tensor, "n"]:
    """Return a direction's activation at a position of a layer's output, or its mean over all.

    Raises:
        ValueError: a direction or a position that does not fit the output.
    """
    if direction.shape != output.shape[1:2]:
        raise ValueError(
            f"{layer} has {output.shape[1]} channels: expected a direction of as many numbers, "
            f"got shape {tuple(direction.shape)}"
        )
    values = torch.einsum("nc...,c->n...", output, direction.to(output))
    if position is None:
        return values.reshape(len(values), -1).mean(1)
    inside = values.ndim == 3 and all(
        0 <= at < size for at, size in zip(position, values.shape[1:], strict=True)
    )
    if not inside:
        raise ValueError(
            f"{layer} gives maps of shape {tuple(values.shape[1:])}: no position {position}"
        )
    return values[:, position[0], position[1]]


def strongest_patches(
    agent: AgentLike,
    layer: str,
    direction: Float[Tensor, "channels"],
    frames: Iterable[Frames],
    *,
    count: int = 9,
) -> tuple[Patch, ...]:
    """Return the places in real pictures where a direction of a layer is largest, one a level.

    Args:
        agent: whose layer.
        layer: a step of the forward pass that gives maps.
        direction: over its channels.
        frames: from `rlbilinear.probes.patches.played_frames`, or any others.
        count: how many.

    Returns:
        The largest first; ``response`` and ``contribution`` are the activation, ``pixels`` all of
        the picture that it may depend on.

    Raises:
        ValueError: unknown layer, one without maps, another direction, or a count below 1.
    """
    check_whole(count=count)
    agent = as_agent(agent)
    earlier = windows_through(agent, layer)
    _, height, width = agent.config.observation_shape
    best: dict[int, Patch] = {}
    for batch in frames:
        output = agent.activations(batch.observations, [layer])[layer]
        if output.ndim != 4:
            raise ValueError(f"{layer} gives no maps but {tuple(output.shape[1:])}")
        along(output[:1], layer, direction, None)
        maps = torch.einsum("nchw,c->nhw", output, direction.to(output)).cpu().numpy()
        flat = maps.reshape(len(maps), -1)
        for n in np.argsort(-flat.max(1), kind="stable").tolist():
            level, peak = int(batch.levels[n]), float(flat[n].max())
            if level in best and best[level].response >= peak:
                continue
            if level not in best and len(best) >= count:
                lowest = min(best, key=lambda each: best[each].response)
                if best[lowest].response >= peak:
                    continue
                del best[lowest]
            y, x = divmod(int(flat[n].argmax()), maps.shape[2])
            at = Rectangle(y, x, y + 1, x + 1)
            best[level] = Patch(
                contribution=peak,
                level=level,
                step=int(batch.steps[n]),
                observation=batch.observations[n].copy(),
                response=peak,
                position=(y, x),
                window=at,
                pixels=read_by(at, earlier, (height, width)),
            )
    return tuple(sorted(best.values(), key=lambda patch: -patch.response))
