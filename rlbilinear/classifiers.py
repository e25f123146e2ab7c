"""Bilinear image classifiers: small networks whose every class is read from the weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.checks import check_whole, likeliest
from rlbilinear.family import FormFamily
from rlbilinear.layers import BilinearLinear
from rlbilinear.spectrum import to_double
from rlbilinear.stack import BilinearStack, Stage
from rlbilinear.tensor import BilinearTensor


class BilinearClassifier(nn.Module):
    """Embedding, bilinear layers, head: ``logits = head(layer(... layer(embedding(x))))``.

    There are no non-linearities but the products, so with one layer every logit is a quadratic form
    of the input. Embedding and head have no bias, the bilinear layers have when asked.

    Args:
        inputs: pixels.
        classes: logits.
        width: width of the embedding and of every layer's output.
        hidden: products in each layer; ``width`` of them, without a down-projection, when None.
        layers: bilinear layers.
        residual: whether a skip connection goes around each.
        bias: whether the bilinear layers have biases.

    Shapes: input ``(n, inputs)``, output ``(n, classes)``.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        width: int = 64,
        hidden: int | None = None,
        layers: int = 1,
        residual: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_whole(inputs=inputs, classes=classes, width=width, layers=layers)
        self.residual = residual
        self.embedding = nn.Linear(inputs, width, bias=False)
        self.layers = nn.ModuleList(
            BilinearLinear(width, width, hidden_features=hidden, bias=bias) for _ in range(layers)
        )
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n classes"]:
        """Return the logits."""
        x = self.embedding(x)
        for layer in self.layers:
            x = x + layer(x) if self.residual else layer(x)
        return self.head(x)

    def stack(self) -> BilinearStack:
        """Return the network as one polynomial, in float64."""
        skip = nn.Identity() if self.residual else None
        layers = [Stage(layer, skip) for layer in self.layers]
        return BilinearStack([self.embedding, *layers, self.head])

    def tensor(self) -> BilinearTensor:
        """Return the logits as one tensor of what goes into the last bilinear layer, exactly.

        That is the embedding when there is one layer: `pixel_tensor` goes through it.
        """
        last = self.layers[-1]
        assert isinstance(last, BilinearLinear)
        tensor = BilinearTensor.of(last)
        if self.residual:
            eye = torch.eye(tensor.in_features).to(tensor.linear)
            tensor = BilinearTensor(
                tensor.left, tensor.right, tensor.down, tensor.linear + eye, tensor.constant
            )
        return tensor.with_outputs(to_double(self.head.weight))

    def pixel_tensor(self) -> BilinearTensor:
        """Return the logits as one tensor of the pixels.

        Raises:
            ValueError: the network has several layers, and its logits are of higher degree.
        """
        if len(self.layers) != 1:
            raise ValueError(
                f"with {len(self.layers)} bilinear layers the logits are not quadratic in the "
                "pixels; see stack()"
            )
        return self.tensor().with_inputs(to_double(self.embedding.weight))

    def class_forms(self) -> FormFamily:
        """Return every logit as a form of what goes into the last bilinear layer.

        ``class_forms()[i]`` is class i's; ``class_forms().eigh()`` decomposes all of them together.
        """
        return self.tensor().quadratic_forms()


@dataclass(frozen=True)
class Training:
    """How a classifier is trained.

    The published MNIST models were trained with a weight decay of 0.5, which for small tasks is
    enough to collapse the weights to zero: the default is none.

    Attributes:
        epochs: passes over the data.
        batch: images in each step.
        learning_rate: of AdamW, at the start; it falls along a cosine to zero.
        weight_decay: of AdamW.
        noise: standard deviation of the Gaussian noise on the inputs, drawn anew in every step.
        seed: seed of the order and of the noise.
    """

    epochs: int = 100
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    noise: float = 0.0
    seed: int = 0


class Epoch(NamedTuple):
    """What an epoch of training came to."""

    epoch: int
    loss: float
    accuracy: float
    """on the training batches, noise included"""


def train_classifier(
    model: nn.Module,
    images: Float[Tensor, "n inputs"],
    labels: Int[Tensor, "n"],
    training: Training | None = None,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Epoch]:
    """Train a classifier in place; the same seed gives the same weights on the same machine.

    Args:
        model: images to logits.
        images: all of them, on the model's device.
        labels: what ``loss`` compares the logits with: classes for cross-entropy.
        training: how.
        loss: of logits and labels.
        on_epoch: called after each epoch, for progress.
        on_step: called after each step with the number of steps taken, for checkpoints.

    Raises:
        ValueError: images and labels of different number, or none.
        FloatingPointError: the loss is not finite any more.
    """
    training = training or Training()
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"expected as many labels as images, got {len(labels)}, {len(images)}")
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    steps = training.epochs * -(-len(images) // training.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    history, taken = [], 0
    for epoch in range(training.epochs):
        total, right = 0.0, 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(training.batch):
            x, y = images[chosen], labels[chosen]
            if training.noise:
                x = x + training.noise * torch.randn(x.shape, generator=generator).to(x)
            logits = model(x)
            error = loss(logits, y)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            schedule.step()
            taken += 1
            if on_step is not None:
                on_step(taken)
            total += error.item() * len(x)
            right += (logits.argmax(1) == (y if y.ndim == 1 else y.argmax(1))).sum().item()
        if not torch.isfinite(torch.tensor(total)):
            raise FloatingPointError(
                f"the loss is not finite after epoch {epoch}: lower the learning rate "
                f"({training.learning_rate})"
            )
        history.append(Epoch(epoch, total / len(images), right / len(images)))
        if on_epoch is not None:
            on_epoch(history[-1])
    return history


def accuracy(
    predict: Callable[[Tensor], Tensor], images: Float[Tensor, "n inputs"], labels: Tensor
) -> float:
    """Return the share of images whose largest logit is the label's.

    Raises:
        FloatingPointError: logits that are not finite: the largest would be none of them.
    """
    with torch.no_grad():
        return (likeliest(predict(images)) == labels).double().mean().item()
