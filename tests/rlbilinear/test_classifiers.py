import pytest
import torch
from torch.nn import functional as F

from rlbilinear.classifiers import BilinearClassifier, Training, accuracy, train_classifier

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def classifier(**options):
    torch.manual_seed(0)
    return BilinearClassifier(9, 4, **{"width": 6, **options})


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": True}, {"residual": True}, {"residual": True, "bias": True, "hidden": 11}],
)
def test_its_tensors_and_forms_are_its_logits(options):
    model, x = classifier(**options), torch.randn(5, 9)
    logits = model(x).double()
    torch.testing.assert_close(model.pixel_tensor()(x.double()), logits, **CLOSE)
    torch.testing.assert_close(model.stack()(x), logits, **CLOSE)
    embedded = model.embedding(x).double()
    torch.testing.assert_close(model.tensor()(embedded), logits, **CLOSE)
    forms = torch.stack([form(embedded) for form in model.class_forms()], 1)
    torch.testing.assert_close(forms, logits, **CLOSE)
    family = model.class_forms()
    for form, spectrum in zip(family, family.eigh(), strict=True):
        values, vectors = spectrum
        torch.testing.assert_close((vectors.T * values) @ vectors, form.matrix())


def test_deep_networks_are_stacks():
    model, x = classifier(layers=3, residual=True, bias=True), torch.randn(5, 9)
    assert model.stack().degree == 8
    torch.testing.assert_close(model.stack()(x), model(x).double(), **CLOSE)
    with pytest.raises(ValueError, match="3 bilinear layers the logits are not quadratic"):
        model.pixel_tensor()


def patterns(n, seed):
    """Four classes of noisy patterns of either sign: no linear map tells them apart."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(4, 9, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(4, (n,), generator=generator)
    signs = torch.randint(2, (n, 1), generator=generator) * 2 - 1
    noise = torch.randn(n, 9, generator=generator)
    return signs * prototypes[labels] + 0.2 * noise, labels


def test_training_learns_what_is_quadratic_and_the_seed_decides():
    x, y = patterns(400, 0)
    seen = []
    models = [classifier() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        training = Training(epochs=15, batch=64, learning_rate=1e-2, noise=0.1, seed=seed)
        history = train_classifier(model, x, y, training, on_epoch=seen.append)
    assert accuracy(models[0], *patterns(400, 1)) > 0.95
    assert history[-1].loss < history[0].loss and seen[-1] == history[-1] and len(seen) == 45
    same, other = (m.head.weight.equal(models[0].head.weight) for m in models[1:])
    assert same and not other


def test_weight_decay_shrinks_the_weights():
    x, y = patterns(100, 0)
    sizes = []
    for decay in (0.0, 5.0):
        model = classifier()
        train_classifier(model, x, y, Training(epochs=20, weight_decay=decay, learning_rate=1e-2))
        sizes.append(model.head.weight.norm().item())
    assert sizes[1] < 0.8 * sizes[0]


def test_bad_input_and_divergence_are_said():
    with pytest.raises(ValueError, match="classes must be a whole number, 1 or more; got 0"):
        BilinearClassifier(9, 0)
    x, y = patterns(10, 0)
    with pytest.raises(ValueError, match="as many labels as images"):
        train_classifier(classifier(), x, y[:5])
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train_classifier(
            classifier(), 1e30 * x, F.one_hot(y, 4).float(), Training(epochs=2), loss=F.mse_loss
        )
