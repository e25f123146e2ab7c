"""Network bodies, usable as Stable-Baselines3 features extractors.

Each body is a flat sequence of named layers, so that ``body.layers.block2`` is the place where a
reader of the printed network would look for it. They take observations as floats in [0, 1], which
is what a Stable-Baselines3 policy hands its features extractor.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args

import gymnasium as gym
import torch
from jaxtyping import Float
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from rlbilinear import BilinearConv2d, BilinearLinear, GatedLinear
from rlbilinear.agents.blocks import (
    GATES,
    Gate,
    ProductBlock,
    ReluBlock,
    check_choice,
    product_conv,
    product_dense,
    residual_block,
)
from rlbilinear.checks import check_whole, check_whole_each, is_whole

FEATURES = 256
"""Width of the dense layer at the end of a body, where nothing else is said."""

T = TypeVar("T", bound="Body")

Pool = Literal["max", "average"]
POOLS: tuple[str, ...] = get_args(Pool)

TILED_IMAGES = 16
"""How many images the initial weights of a `PolynomialBody` are scaled on."""

LARGEST = 1e25
"""What a `PolynomialBody` starts with at most, so that gradients are finite in float32 too."""


class Body(BaseFeaturesExtractor):
    """Named layers in sequence, run channels-last (2 to 3.5 times faster on a CPU)."""

    def __init__(
        self, observation_space: gym.Space, features: int, layers: "OrderedDict[str, nn.Module]"
    ) -> None:
        super().__init__(observation_space, features)
        self.layers = nn.Sequential(layers)
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, observations: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """Observations in [0, 1] to features."""
        return self.layers(observations.contiguous(memory_format=torch.channels_last))

    def apply(self: T, fn: Callable[[nn.Module], Any]) -> T:
        """Apply a function to every module, its weights lying as torch's initialisers need them."""
        self.layers.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        super().apply(fn)
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self


class ProductBody(Body):
    """A body whose layers multiply: bilinear, or its gated twin.

    Stable-Baselines3's policies make all weights orthogonal with gain sqrt(2) unless told
    ``ortho_init=False``. Products of such factors explode in depth, so these bodies keep the small
    initial weights that they are made with; heads and layers of others are not touched by it.
    """

    def apply(self: T, fn: Callable[[nn.Module], Any]) -> T:
        """Apply a function to every module, but for Stable-Baselines3's orthogonal weights."""
        if getattr(fn, "func", fn) is ActorCriticPolicy.init_weights:
            return self
        return super().apply(fn)


class Bimpala(ProductBody):
    """Bilinear IMPALA: linear first convolution, bilinear blocks, bilinear dense layer.

    Args:
        observation_space: a Box of shape (channels, height, width).
        kernel_size: of the blocks, odd.
        channels: channels of the stream: one number for every depth, as published, or one for each
            stage; where it changes, a linear convolution stands before the max-pool.
        blocks: number of bilinear blocks after each pool.
        stem_kernel: kernel of the first convolution; ``kernel_size`` when None.
        stem_stride: stride of the first convolution.
        pool_kernel: kernel of the pools (stride 2); ``kernel_size`` when None.
        features: outputs of the dense layer.
        gate: none, or what stands around the left factor of each product: relu, silu or gelu.
        pool: max or average.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        kernel_size: int = 3,
        channels: int | Sequence[int] = 32,
        blocks: Sequence[int] = (2, 2, 2),
        stem_kernel: int | None = None,
        stem_stride: int = 1,
        pool_kernel: int | None = None,
        features: int = FEATURES,
        gate: Gate = "none",
        pool: Pool = "max",
    ) -> None:
        shape = _image_shape(observation_space)
        stem = kernel_size if stem_kernel is None else stem_kernel
        window = kernel_size if pool_kernel is None else pool_kernel
        check_whole_each(0, blocks=blocks)
        widths = channels if isinstance(channels, Sequence) else [channels] * len(blocks)
        _check_odd(kernel_size=kernel_size, stem_kernel=stem, pool_kernel=window)
        check_whole(stem_stride=stem_stride, features=features)
        _check_stages(widths, blocks)
        check_choice("gate", gate, GATES)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"] = nn.Conv2d(shape[0], widths[0], stem, stem_stride, stem // 2)
        previous, block = widths[0], 0
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
            if width != previous:
                layers[f"conv{stage}"] = _conv(previous, width, kernel_size)
            layers[f"pool{stage}"] = _pool(pool, window)
            for _ in range(count):
                block += 1
                layers[f"block{block}"] = residual_block(width, kernel_size, gate)
            previous = width
        layers["flatten"] = nn.Flatten()
        layers["dense"] = product_dense(_flat_size(layers, shape), features, gate)
        super().__init__(observation_space, features, layers)
        _initialise(self)


class BimpalaFull(ProductBody):
    """IMPALA's shape with products: stages that widen, blocks ``x + conv(bilinear(x))``, biases.

    The published code gives each factor of a product two biases, one in the layer and one of its
    own, of which only the sum matters: 2 x 160 in the blocks and 2 x 256 in the dense layer.
    Here each has one, so the agent has 832 parameters fewer: 1,192,432 with kernel 3 in the place
    of 1,193,264; 1,438,960 of 1,439,792 with 5; 1,808,752 of 1,809,584 with 7.

    Args:
        observation_space: a Box of shape (channels, height, width).
        kernel_size: of all convolutions, odd.
        channels: number of channels of each stage.
        blocks: number of blocks of each stage.
        stem_stride: stride of the first convolution.
        pool_kernel: kernel of the pools (stride 2).
        features: outputs of the dense layer.
        gate: none, or what stands around the left factor of each product: relu, silu or gelu.
        pool: max or average.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        kernel_size: int = 3,
        channels: Sequence[int] = (16, 32, 32),
        blocks: Sequence[int] = (2, 2, 2),
        stem_stride: int = 1,
        pool_kernel: int = 3,
        features: int = FEATURES,
        gate: Gate = "none",
        pool: Pool = "max",
    ) -> None:
        shape = _image_shape(observation_space)
        _check_odd(kernel_size=kernel_size, pool_kernel=pool_kernel)
        check_whole(stem_stride=stem_stride, features=features)
        check_choice("gate", gate, GATES)
        layers = _stages(
            shape[0],
            channels,
            blocks,
            stem=(kernel_size, stem_stride),
            kernel_size=kernel_size,
            make_pool=lambda: _pool(pool, pool_kernel),
            make_block=lambda width: ProductBlock(width, kernel_size, gate),
        )
        layers["flatten"] = nn.Flatten()
        layers["dense"] = product_dense(_flat_size(layers, shape), features, gate, bias=True)
        super().__init__(observation_space, features, layers)
        _initialise(self)


class PolynomialBody(ProductBody):
    """A plain stack of bilinear layers: one homogeneous polynomial of the image, of degree 128.

    No biases and no skips, so ``features(a x) = a^128 features(x)``: images half as bright have
    features 1e38 times smaller, about the range of float32. No initial weights suit all images.
    These are drawn and then scaled, layer by layer, so that each product has mean square 1 on
    images of random tiles; `calibrate` does the same on the game's own frames, and is to be called
    before training, as other frames than those may have features near 0. White and other extreme
    images always have finite ones.

    Args:
        observation_space: a Box of shape (channels, height, width).
        kernel_size: of the convolutions, odd: one number, or one for each.
        channels: outputs of each convolution.
        pooled: which convolutions, counted from 1, have a pool of 2 after them.
        dense: outputs of each dense layer; the last are the features.
        gate: none, or what stands around the left factor of each product: relu, silu or gelu.
        pool: max or average.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        kernel_size: int | Sequence[int] = (7, 5, 5, 5, 5),
        channels: Sequence[int] = (16, 32, 32, 32, 32),
        pooled: Sequence[int] = (1, 3, 4, 5),
        dense: Sequence[int] = (256, 512),
        gate: Gate = "none",
        pool: Pool = "average",
    ) -> None:
        shape = _image_shape(observation_space)
        check_whole_each(channels=channels, pooled=pooled, dense=dense)
        kernels = (
            kernel_size if isinstance(kernel_size, Sequence) else [kernel_size] * len(channels)
        )
        if len(kernels) != len(channels) or not dense:
            raise ValueError(
                f"expected a kernel_size for each of channels, and dense layers: got {kernels}, "
                f"{channels} and {dense}"
            )
        _check_odd(**{f"kernel_size[{index}]": size for index, size in enumerate(kernels)})
        if not set(pooled) <= set(range(1, len(channels) + 1)):
            raise ValueError(f"pooled must be among 1 to {len(channels)}, got {pooled}")
        check_choice("gate", gate, GATES)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        previous = shape[0]
        for stage, (width, kernel) in enumerate(zip(channels, kernels, strict=True), 1):
            layers[f"conv{stage}"] = product_conv(previous, width, kernel, gate)
            if stage in pooled:
                layers[f"pool{stage}"] = _pool(pool, 2)
            previous = width
        layers["flatten"] = nn.Flatten()
        previous = _flat_size(layers, shape)
        for number, width in enumerate(dense, 1):
            layers[f"dense{number}"] = product_dense(previous, width, gate)
            previous = width
        super().__init__(observation_space, previous, layers)
        for factor in (factor for module in self.layers for factor in _factors(module)):
            nn.init.kaiming_normal_(factor.weight, nonlinearity="linear")
        if not next(self.parameters()).is_meta:
            draw = torch.Generator().manual_seed(0)
            tiles = torch.rand(TILED_IMAGES, shape[0], 8, 8, generator=draw, device="cpu")
            self.calibrate(nn.functional.interpolate(tiles, size=shape[1:]))

    @torch.no_grad()
    def calibrate(self, observations: Float[Tensor, "batch channels height width"]) -> None:
        """Scale the weights, in place, so that each product has mean square 1 on these images.

        After Mishkin and Matas 2016, "All you need is a good init", both factors scaled alike. If
        white, checked or one-coloured images had features above `LARGEST`, the last layer is scaled
        down to that.

        Args:
            observations: in [0, 1], such as ``torch.as_tensor(env.reset()) / 255``.

        Raises:
            ValueError: images that are all black, or so dark that a layer's outputs are 0.
        """
        x = observations.to(next(self.parameters()))
        for name, module in self.layers.named_children():
            if factors := _factors(module):
                square = module(x).square().mean()
                if not 0 < square < torch.inf:
                    raise ValueError(f"cannot scale {name}: its mean square is {square.item()}")
                for factor in factors:
                    factor.weight.mul_(square**-0.25)
            x = module(x)
        extreme = _extreme_images(observations.shape[1:]).to(x.device)
        peak = copy.deepcopy(self.layers).double()(extreme).abs().max().item()
        if peak > LARGEST:
            for factor in _factors(self.layers[-1]):
                factor.weight.mul_((LARGEST / peak) ** 0.5)


class Impala(Body):
    """The IMPALA network of Espeholt et al. 2018 as used for ProcGen, with its ReLUs.

    Args:
        observation_space: a Box of shape (channels, height, width).
        channels: number of channels of each stage.
        blocks: residual blocks in each stage.
        stem_kernel: kernel of the first convolution; ``kernel_size`` when None.
        stem_stride: stride of the first convolution.
        features: outputs of the dense layer.
        kernel_size: of the convolutions, odd.
        pool: max or average.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        channels: Sequence[int] = (16, 32, 32),
        blocks: Sequence[int] = (2, 2, 2),
        stem_kernel: int | None = None,
        stem_stride: int = 1,
        features: int = FEATURES,
        kernel_size: int = 3,
        pool: Pool = "max",
    ) -> None:
        stem = kernel_size if stem_kernel is None else stem_kernel
        _check_odd(kernel_size=kernel_size, stem_kernel=stem)
        check_whole(stem_stride=stem_stride, features=features)
        shape = _image_shape(observation_space)
        layers = _stages(
            shape[0],
            channels,
            blocks,
            stem=(stem, stem_stride),
            kernel_size=kernel_size,
            make_pool=lambda: _pool(pool, 3),
            make_block=lambda width: ReluBlock(width, kernel_size),
        )
        layers["relu1"] = nn.ReLU()
        layers["flatten"] = nn.Flatten()
        layers["dense"] = nn.Linear(_flat_size(layers, shape), features)
        layers["relu2"] = nn.ReLU()
        super().__init__(observation_space, features, layers)


def _stages(
    colours: int,
    channels: Sequence[int],
    blocks: Sequence[int],
    *,
    stem: tuple[int, int],
    kernel_size: int,
    make_pool: Callable[[], nn.Module],
    make_block: Callable[[int], nn.Module],
) -> "OrderedDict[str, nn.Module]":
    """Return IMPALA's stages, each a convolution, a pool and blocks; stem is (kernel, stride)."""
    _check_stages(channels, blocks)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    previous, block = colours, 0
    for stage, (width, count) in enumerate(zip(channels, blocks, strict=True), 1):
        first = stage == 1
        kernel, stride = stem if first else (kernel_size, 1)
        layers["stem" if first else f"conv{stage}"] = _conv(previous, width, kernel, stride)
        layers[f"pool{stage}"] = make_pool()
        for _ in range(count):
            block += 1
            layers[f"block{block}"] = make_block(width)
        previous = width
    return layers


def _conv(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2)


def _pool(pool: Pool, kernel_size: int) -> nn.MaxPool2d | nn.AvgPool2d:
    """Make a pool of stride 2; of an odd kernel it is padded, and maps are halved, rounded up."""
    check_choice("pool", pool, POOLS)
    padding = kernel_size // 2 if kernel_size % 2 else 0
    return (nn.MaxPool2d if pool == "max" else nn.AvgPool2d)(kernel_size, 2, padding)


def _image_shape(space: gym.Space) -> tuple[int, int, int]:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 3:
        raise ValueError(f"observations must be images (channels, height, width), got {space}")
    channels, height, width = space.shape
    return channels, height, width


def _check_odd(**sizes: int) -> None:
    for name, size in sizes.items():
        if not is_whole(size) or size < 1 or size % 2 == 0:
            raise ValueError(f"{name} must be odd and positive, got {size!r}")


def _check_stages(channels: Sequence[int], blocks: Sequence[int]) -> None:
    check_whole_each(channels=channels)
    check_whole_each(0, blocks=blocks)
    if len(channels) != len(blocks) or not blocks:
        raise ValueError(
            f"channels and blocks must name the same stages: got {channels} and {blocks}"
        )


def _flat_size(layers: "OrderedDict[str, nn.Module]", shape: tuple[int, int, int]) -> int:
    with torch.no_grad():
        return nn.Sequential(layers)(torch.zeros(1, *shape)).shape[1]


def _factors(module: nn.Module) -> tuple[nn.Linear | nn.Conv2d, ...]:
    """Return the two factors of a product, none of another layer."""
    if isinstance(module, BilinearConv2d | BilinearLinear):
        return module.left, module.right
    if isinstance(module, GatedLinear):
        return module.gate, module.value
    return ()


def _initialise(body: Body) -> None:
    """Scale a product's factors so that each block starts as a small correction."""
    for module in body.modules():
        for factor in _factors(module):
            nn.init.kaiming_normal_(factor.weight, nonlinearity="linear")
            if isinstance(factor, nn.Conv2d):
                with torch.no_grad():
                    factor.weight.mul_(0.5)


def _extreme_images(shape: torch.Size) -> Float[Tensor, "batch channels height width"]:
    """Return images of the largest pixels: white, checked, and each colour alone."""
    colours, height, width = shape
    white = torch.ones(colours, height, width, dtype=torch.float64)
    checked = (torch.arange(height)[:, None] + torch.arange(width)) % 2 * white
    alone = [white * (torch.arange(colours) == c)[:, None, None] for c in range(colours)]
    return torch.stack([white, checked, *alone])
