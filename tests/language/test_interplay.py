"""Whether a layer multiplies two things that texts have."""

import json

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear.language.bilinear_models import with_bilinear
from rlbilinear.language.closed_form import convert
from rlbilinear.language.interplay import (
    Design,
    edit_effects,
    interplay,
    interplay_circuit,
    last_inputs,
    output_direction,
    parts,
    prompts,
    table,
    verdict,
)
from rlbilinear.language.reading import open_model
from rlbilinear.layers import BilinearLinear
from rlbilinear.quadratic import QuadraticForm

DESIGN = Design(
    ("the cat {second} {first}", "a small dog {second} {first}"),
    (("sees", "likes"), ("finds", "like"), ("ball", "tree")),
    (("does not", "does")),
)


@pytest.fixture
def reading(llama, batches, tokenizer):
    return open_model(with_bilinear(llama, convert(llama, batches)), tokenizer)


def random_form(seed, width=7):
    torch.manual_seed(seed)
    layer = BilinearLinear(width, 3, hidden_features=9, bias=True).double()
    return layer.quadratic_form(torch.randn(3).double())


@given(st.integers(0, 10_000))
def test_what_is_made_and_what_is_passed_is_all_there_is(seed):
    form = random_form(seed)
    x = torch.randn(5, 2, 2, 7, dtype=torch.float64)
    found = interplay(form, x)
    torch.testing.assert_close(
        found.together - found.without, found.made + found.passed, atol=1e-9, rtol=1e-9
    )
    q = form(x)
    torch.testing.assert_close(found.without, q[:, 0, 1] - q[:, 1, 1])
    torch.testing.assert_close(found.together, q[:, 0, 0] - q[:, 1, 0])


def test_parts_make_up_the_inputs():
    x = torch.randn(4, 2, 2, 7, dtype=torch.float64)
    mean, first, second, both = parts(x)
    torch.testing.assert_close(x[:, 0, 1], mean + first - second - both)
    torch.testing.assert_close(x[:, 1, 1], mean - first - second + both)


def test_a_layer_makes_nothing_where_its_form_is_linear_or_its_inputs_have_one_thing():
    form = random_form(0)
    linear = QuadraticForm.affine(form.linear, 0.5)
    x = torch.randn(4, 2, 2, 7, dtype=torch.float64)
    assert interplay(linear, x).made.abs().max() < 1e-12
    one, other, common = torch.randn(3, 4, 7, dtype=torch.float64)
    added = torch.stack(
        [torch.stack([common + a * one + b * other for b in (1, 0)], 1) for a in (1, 0)], 1
    )
    found = interplay(form, added)
    assert found.passed.abs().max() < 1e-9 < found.made.abs().min()


def test_texts_are_in_the_order_of_their_cells():
    cells = DESIGN.cells(torch.arange(24.0))
    texts = DESIGN.texts()
    assert cells.shape == (3, 2, 2, 2)
    assert texts[int(cells[1, 1, 0, 1])] == "a small dog does finds"
    assert texts[int(cells[2, 0, 1, 0])] == "the cat does not tree"
    fitted, tested = DESIGN.halves()
    assert fitted.first == (DESIGN.first[0], DESIGN.first[2]) and tested.first == DESIGN.first[1:2]


def test_the_last_token_is_read_whatever_is_filled_up_after_it(reading, tokenizer):
    texts = ["the cat", "a small dog likes the house"]
    x = last_inputs(reading, 1, prompts(tokenizer, texts))
    for row, text in zip(x, texts, strict=True):
        tokens = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        ((_, alone),) = reading.mlp_inputs(1, [tokens])
        torch.testing.assert_close(row, alone[0, -1].double(), atol=1e-5, rtol=1e-5)


def test_the_tables_and_edits_are_those_of_the_model(reading, tokenizer):
    given = prompts(tokenizer, DESIGN.texts())
    x = DESIGN.cells(last_inputs(reading, 1, given))
    direction = reading.logit_direction("e", "s")
    form = reading.mlp(1).quadratic_form(direction)
    rows = table(form, x)
    row = rows[(rows["pair"] == 2) & (rows["template"] == 1)].iloc[0]
    assert row["made"] == pytest.approx(interplay(form, x).made[2, 1].item())
    own = output_direction(reading, 1, x)
    without = interplay(reading.mlp(1).quadratic_form(own), x).without
    assert without.mean() == pytest.approx((own @ own).item(), rel=1e-4)

    circuit = interplay_circuit(reading, 1, direction, x, "pair")
    targets = reading.token("e"), reading.token("s")
    edits = edit_effects(reading, circuit, DESIGN, targets, controls=4)
    assert len(edits) == 3 + 2 * 4
    with reading.edited(1, circuit.scaled(reading.mlp(1), 2.0)), torch.no_grad():
        logits = reading.logits(given.tokens)[torch.arange(24), given.last]
    cells = DESIGN.cells((logits[:, targets[0]] - logits[:, targets[1]]).double())
    doubled = edits[(edits["control"] == "") & (edits["factor"] == 2)].iloc[0]
    assert doubled["together"] == pytest.approx((cells[..., 0, 0] - cells[..., 1, 0]).mean().item())
    assert doubled["without"] == pytest.approx((cells[..., 0, 1] - cells[..., 1, 1]).mean().item())


def test_verdicts_compare_changes_with_those_of_the_controls():
    def rows(control, changes):
        return [
            {"control": control, "factor": factor, "without": 1.0, "together": -1.0 + change}
            for factor, change in changes.items()
        ]

    own = rows("", {1.0: 0.0, 0.0: 0.5, 2.0: -0.4})
    rivals = [row for _ in range(19) for row in rows("random", {0.0: 0.1, 2.0: -0.2})]
    p, held = verdict(pd.DataFrame(own + rivals))
    assert held == "validated" and p == {0.0: 0.05, 2.0: 0.05}
    p, held = verdict(pd.DataFrame(own + rivals[2:] + rows("random", {0.0: -0.1, 2.0: 0.4})))
    assert held == "not validated" and p == {0.0: 0.05, 2.0: 0.1}
    same = rows("", {1.0: 0.0, 0.0: 0.5, 2.0: 0.4})
    assert verdict(pd.DataFrame(same + rivals))[1] == "not validated"


def test_bad_designs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'the \{first\}' has not one \{first\} and"):
        Design(("the {first}",), DESIGN.first, DESIGN.second)
    with pytest.raises(ValueError, match="at least one of each"):
        Design(DESIGN.templates, (), DESIGN.second)
    with pytest.raises(ValueError, match=r"two texts each, got \('a',\)"):
        Design(DESIGN.templates, (("a",),), DESIGN.second)
    file = tmp_path / "design.json"
    with pytest.raises(ValueError, match="expected JSON with templates, first and second"):
        Design.read(file)
    file.write_text(json.dumps({"templates": DESIGN.templates, "first": DESIGN.first}))
    with pytest.raises(ValueError, match="KeyError"):
        Design.read(file)
    file.write_text(
        json.dumps({"templates": DESIGN.templates, "first": DESIGN.first, "second": DESIGN.second})
    )
    assert Design.read(file) == DESIGN
