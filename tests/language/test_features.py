"""Sparse autoencoders, interactions between their features, and gates."""

import pytest
import torch
from safetensors.torch import save_file

from rlbilinear.language.feature_study import Features, features_of
from rlbilinear.language.gates import find_gates
from rlbilinear.language.interactions import (
    feature_form,
    interaction_matrix,
    pair_sparsity,
    rank_correlations,
)
from rlbilinear.language.sae import SAETraining, SparseAutoencoder, explained, load_sae, train_sae
from rlbilinear.layers import BilinearLinear


def random_sae(inputs=6, features=9, k=None, seed=0):
    torch.manual_seed(seed)
    sae = SparseAutoencoder(inputs, features, k)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return sae


def sparse_data(tokens=4000, inputs=12, features=24, active=2):
    """Few of many directions at a time, and the directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(
        torch.randn(features, inputs, generator=generator), dim=1
    )
    codes = torch.zeros(tokens, features)
    chosen = torch.rand(tokens, features, generator=generator).topk(active).indices
    codes.scatter_(1, chosen, 1 + torch.rand(tokens, active, generator=generator))
    return codes @ directions, directions


def test_the_largest_activations_are_kept():
    sae = random_sae(k=3)
    x = torch.randn(50, 6)
    codes = sae.encode(x)
    before = sae.preactivations(x).relu()
    assert ((codes > 0).sum(1) <= 3).all()
    torch.testing.assert_close(codes.sum(1), before.topk(3).values.sum(1))


def test_training_explains_sparse_data_and_finds_its_directions():
    x, directions = sparse_data()
    how = SAETraining(features=48, k=2, steps=400, batch=512, learning_rate=1e-2)
    logged = []
    sae = train_sae(x, how, log=lambda step, numbers: logged.append(numbers), progress=False)
    assert explained(sae, x) > 0.8
    nearest = (directions @ sae.decoder.detach().T).amax(1)
    assert nearest.median() > 0.9
    assert logged[-1]["unexplained"] < logged[0]["unexplained"]


def test_autoencoders_are_read_in_either_layout(tmp_path):
    sae = random_sae(k=4)
    x = torch.randn(20, 6)
    sae.save(tmp_path / "own.safetensors")
    loaded = load_sae(tmp_path / "own.safetensors")
    assert loaded.k == 4
    torch.testing.assert_close(loaded(x), sae(x))
    save_file(
        {
            "encoder.weight": sae.encoder.detach(),
            "encoder.bias": sae.encoder_bias.detach(),
            "W_dec": sae.decoder.detach(),
            "b_dec": sae.bias.detach(),
        },
        tmp_path / "other.safetensors",
    )
    torch.testing.assert_close(load_sae(tmp_path / "other.safetensors", k=4)(x), sae(x))


def test_what_is_no_autoencoder_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="holds weight; expected W_enc"):
        load_sae(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="cannot read"):
        load_sae(tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match="fewer than a batch"):
        train_sae(torch.zeros(5, 3), SAETraining(), progress=False)
    with pytest.raises(ValueError, match="k: expected 1 to 4"):
        train_sae(torch.zeros(5, 3), SAETraining(features=4, k=5, batch=5), progress=False)


@pytest.fixture
def layer():
    torch.manual_seed(1)
    return BilinearLinear(5, 6, hidden_features=8, bias=True).double()


def test_an_output_feature_is_a_form_of_the_layers_input(layer):
    sae = random_sae().double()
    x = torch.randn(30, 5).double()
    for feature in (0, 4):
        wanted = sae.preactivations(layer(x))[:, feature]
        torch.testing.assert_close(feature_form(layer, sae, feature)(x), wanted)


def test_interactions_are_half_the_hessian(layer):
    outputs, inputs = random_sae().double(), random_sae(inputs=5, seed=2).double()
    form = feature_form(layer, outputs, 3)

    def activation(codes):
        return outputs.preactivations(layer(codes @ inputs.decoder + inputs.bias))[3]

    hessian = torch.autograd.functional.hessian(activation, torch.rand(9).double())
    matrix = interaction_matrix(form, inputs)
    torch.testing.assert_close(matrix, hessian / 2, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(interaction_matrix(form, inputs, [7, 2]), matrix[[7, 2]][:, [7, 2]])


def test_all_eigenvectors_are_the_feature_itself(layer):
    sae = random_sae().double()
    x = torch.randn(400, 5).double()
    forms = [feature_form(layer, sae, feature) for feature in range(9)]
    active = sae.preactivations(layer(x)).relu().detach()
    table = rank_correlations(forms, x, active, ranks=(0, 1, 3, 5))
    whole = table[table["rank"] == 5]
    assert (whole.loc[whole["active"] > 2, "correlation"] > 1 - 1e-9).all()
    assert (whole["active"] > 2).sum() >= 7
    assert (whole["energy"] > 1 - 1e-9).all()
    most = int((active > 0).sum(0).argmax())
    on = active[:, most] > 0
    linear = x[on] @ forms[most].linear
    wanted = torch.corrcoef(torch.stack([linear, active[on, most]]))[0, 1]
    none = table[(table["rank"] == 0) & (table["feature"] == most)]
    assert none["correlation_active"].item() == pytest.approx(wanted.item())
    energy = table.pivot(index="feature", columns="rank", values="energy")
    assert (
        (energy[0] == 0).all()
        and (energy[1] < energy[3]).all()
        and (energy[3] < energy[5] + 1e-12).all()
    )


def test_sparsity_counts_pairs():
    matrix = torch.zeros(10, 10)
    matrix[2, 3] = matrix[3, 2] = 1.0
    matrix[5, 5] = 1.0
    assert pair_sparsity(matrix) == pytest.approx({"pairs_for_90": 0.03, "diagonal": 1 / 3})


def planted_gate(sign):
    """Output 0 is ``x0² + sign x0 x1``, or ``x0 x1`` alone: a gate between inputs 0 and 1."""
    layer = BilinearLinear(4, 4, hidden_features=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.left.weight[0, 0] = 1.0
        layer.right.weight[0, 1] = sign
        layer.right.weight[0, 0] = 1.0 if sign < 0 else 0.0
        layer.down.weight[0, 0] = 1.0
    sae = SparseAutoencoder(4, 4, None)
    sae.load_state_dict(
        {
            "encoder": torch.eye(4),
            "encoder_bias": torch.zeros(4),
            "decoder": torch.eye(4),
            "bias": torch.zeros(4),
        }
    )
    return layer, sae


@pytest.mark.parametrize(("sign", "kind"), [(-1.0, "inhibits"), (1.0, "and")])
def test_planted_gates_are_found(sign, kind):
    layer, sae = planted_gate(sign)
    codes = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)) * 2
    table = find_gates(layer, sae, sae, codes, [0, 1], progress=False)
    first = table.iloc[0]
    assert first["kind"] == kind and first["output"] == 0
    assert {first["first"], first["second"]} == {0, 1}
    assert first["together"] == pytest.approx(sign / 2)
    assert len(table) == 1  # a pair is not listed in both orders
    mean = 2 * sign / 2 * (codes[:, 0] * codes[:, 1]).mean().item()
    assert first["added"] == pytest.approx(mean, rel=1e-4)


def test_gates_are_looked_for_among_some_features():
    layer, sae = planted_gate(1.0)
    codes = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)) * 2
    assert find_gates(layer, sae, sae, codes, [0, 1], among=[2, 3], progress=False).empty
    found = find_gates(layer, sae, sae, codes, [0, 1], among=[1, 3], progress=False)
    assert found.equals(find_gates(layer, sae, sae, codes, [0, 1], progress=False))


def test_features_belong_to_tokens_at_which_they_are_active_or_right_after():
    windows = torch.tensor([[5, 1, 7, 2], [1, 3, 3, 7]])
    codes = torch.zeros(6, 4)  # places without the first of each window: 1 7 2 | 3 3 7
    codes[:3, 0] = torch.tensor([0.0, 2.0, 3.0])  # at the 7, and right after it
    codes[:, 1] = 1.0  # everywhere: three of six places
    codes[3:5, 2] = 1.0  # elsewhere
    codes[5, 3] = 1.0  # at one place only
    sae = SparseAutoencoder(4, 4, None)
    features = Features(0, sae, sae, torch.zeros(6, 4), codes, codes, 4)
    found = features_of(features, windows, torch.tensor([7]), least=2)
    assert found == {0: 1.0, 1: 0.5}
    assert features_of(features, windows, torch.tensor([7]), share=0.6, least=2) == {0: 1.0}
    assert features.by_window(codes, 0).tolist() == [[0, 0, 2, 3], [0, 0, 0, 0]]


def test_without_pairs_the_table_is_empty():
    layer, sae = planted_gate(1.0)
    assert find_gates(layer, sae, sae, torch.zeros(50, 4), [0], progress=False).empty
