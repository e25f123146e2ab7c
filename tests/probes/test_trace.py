from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from rlbilinear import BilinearConv2d, Eigenfilters
from rlbilinear.agents.edits.directions import remove_direction, steer
from rlbilinear.probes.concepts import to_cells
from rlbilinear.probes.study import CONTROLS, unit
from rlbilinear.probes.trace import (
    TOP,
    Writer,
    bilinear_writers,
    eigenfilter_table,
    filter_counts,
    filter_edits,
    partner_table,
    reader_table,
    scale_filters,
)
from rlbilinear.probes.writers import writer_maps


@pytest.fixture(scope="module")
def direction():
    return unit(np.array([1.0, -2, 0.5, 0, 3, 1]))


@pytest.fixture(scope="module")
def observations(study):
    return study.held_out.observations


def test_writers_are_the_blocks_of_the_stage_up_to_the_layer(bilinear_agent, relu_agent, direction):
    def names(agent, layer):
        found = bilinear_writers(agent, layer, direction)
        return [(writer.block, writer.branch, writer.before) for writer in found]

    first, second = ("block1", "block1.bilinear", "pool1"), ("block2", "block2.bilinear", "block1")
    assert names(bilinear_agent, "block1") == [first]
    assert names(bilinear_agent, "block2") == [first, second]
    assert names(bilinear_agent, "block3") == [("block3", "block3.bilinear", "pool2")]
    assert names(bilinear_agent, "pool2") == names(bilinear_agent, "stem") == []
    assert names(relu_agent, "block1") == names(relu_agent, "relu1") == []


def edited(agent):
    """An agent with a skip that mixes channels, and a bias map, on the way to block2."""
    scaled = remove_direction(agent, "block2", torch.tensor([1.0, 1, 0, 0, 2, 0]), 0.3)
    return steer(scaled, "block2", torch.ones(6, 16, 16))


@pytest.mark.parametrize("change", [lambda agent: agent, edited], ids=["as trained", "edited"])
def test_a_writers_filters_add_up_to_what_it_writes(
    bilinear_agent, observations, direction, change
):
    agent = change(bilinear_agent)
    expected = writer_maps(agent, "block2", direction, observations)
    writers = bilinear_writers(agent, "block2", direction)
    assert [writer.block for writer in writers] == ["block1", "block2"]
    for writer in writers:
        inputs = agent.activations(observations, [writer.before])[writer.before].numpy()
        maps = writer.maps(inputs, len(writer.filters.values))
        assert np.allclose(maps.sum(1), expected[writer.branch], atol=1e-4)
        assert np.array_equal(writer.maps(inputs, 3), maps[:, :3])


@pytest.mark.parametrize("change", [lambda agent: agent, edited], ids=["as trained", "edited"])
def test_ablating_all_filters_removes_exactly_what_the_block_writes(
    bilinear_agent, observations, direction, change
):
    agent = change(bilinear_agent)
    last = bilinear_writers(agent, "block2", direction)[-1:]
    before = writer_maps(agent, "block2", direction, observations)
    ablated = scale_filters(agent, last, 10_000, [0.0])
    after = writer_maps(ablated, "block2", direction, observations)
    size = np.abs(before[last[0].branch]).max()
    assert np.abs(after[last[0].branch]).max() < 1e-4 * size
    for name in before.keys() - {last[0].branch}:
        assert np.allclose(after[name], before[name], atol=1e-5)
    other = unit(np.array([2.0, 1, 0, 7, 0, 0]))  # orthogonal: it is written as before
    kept = [
        sum(writer_maps(each, "block2", other, observations).values()) for each in (agent, ablated)
    ]
    assert np.allclose(*kept, atol=1e-4)
    flipped = scale_filters(agent, last, 10_000, [-1.0])
    after = writer_maps(flipped, "block2", direction, observations)
    assert np.allclose(after[last[0].branch], -before[last[0].branch], atol=1e-4 * size)


def test_a_writer_whose_direction_is_stopped_is_none(bilinear_agent, direction):
    blocked = remove_direction(bilinear_agent, "block2", direction)
    assert bilinear_writers(blocked, "block2", direction)[:-1] == []


def test_controls_change_each_block_as_much(study):
    first = study.fit.activations["pool1"]
    edits = filter_edits(study, study.directions["difference"])
    assert list(edits) == [
        f"{what} in each of block1, block2"
        for what in ("top eigenfilter", f"top {TOP} eigenfilters", "all eigenfilters")
    ]

    def change(agent):
        """Root mean square change of what block1 adds, whose input no edit changes."""
        x = torch.from_numpy(first)
        with torch.no_grad():
            one, other = (each.layer("block1.bilinear")(x) for each in (agent, study.agent))
        return (one - other).square().sum(1).mean().sqrt().item()

    sizes = []
    for own, controls in edits.values():
        sizes.append(change(own))
        assert sizes[-1] > 1e-4
        assert {kind: len(agents) for kind, agents in controls.items()} == {
            **dict.fromkeys(CONTROLS, 1),
            "random": len(study.random),
        }
        for control in chain.from_iterable(controls.values()):
            assert change(control) == pytest.approx(sizes[-1], rel=1e-3)
    assert len(set(sizes)) == 3


def test_without_bilinear_blocks_there_is_nothing_to_edit(study):
    at_pool = replace(study, layer="pool1")
    assert filter_edits(at_pool, study.directions["difference"]) == {}


def test_counts_of_filters_by_hand():
    def writer(values):
        filters = Eigenfilters(
            torch.tensor(values), torch.zeros(len(values), 2, 1, 1), torch.zeros(2, 1, 1),
            torch.tensor(0.0), (1, 1), (0, 0),
        )  # fmt: skip
        return Writer("block1", "block1.bilinear", "pool1", torch.ones(2), filters)

    (row, one) = filter_counts([writer([-4.0, 3.0, 2.0, -1.0]), writer([2.0])]).to_dict("records")
    expected = {"filters for 50 %": 2, "filters for 90 %": 3, "filters for 99 %": 4}
    assert row == {"writer": "block1", "rank": 4, **expected}
    assert one == {"writer": "block1", "rank": 1, **dict.fromkeys(expected, 1)}


def test_eigenfilters_as_detectors(study, bilinear_agent):
    writers = bilinear_writers(bilinear_agent, "block2", study.directions["difference"])
    table = eigenfilter_table(writers, study.held_out, "cheese_presence")
    assert table.groupby("writer").size().to_dict() == {"block1": TOP, "block2": TOP}
    assert (table.groupby("writer")["share"].sum() < 1).all()
    row, writer = table.iloc[TOP + 2], writers[1]
    assert (row["writer"], row["index"]) == ("block2", 2)
    filters = writer.filters
    x = torch.from_numpy(study.held_out.activations["block1"])
    kernel = filters.filters[2:3].float()
    maps = filters.values[2].abs() * torch.nn.functional.conv2d(x, kernel, padding=1)[:, 0] ** 2
    cells, labels = to_cells(maps.numpy(), 15), study.held_out.labels["cheese_presence"]
    expected = average_precision_score(labels.ravel().astype(int), cells.ravel())
    assert row["average_precision"] == pytest.approx(expected, rel=1e-3)
    assert row["base_rate"] == pytest.approx(labels.mean())
    sizes = filters.values.abs()
    assert row["share"] == pytest.approx((sizes[2] / sizes.sum()).item())


def test_readers_shares_add_up_to_one(study, direction):
    table = reader_table(study.agent, "pool1", direction, study.pairs)
    assert table["reader"].unique().tolist() == ["block1", "block2"]
    assert np.allclose(table.groupby("reader")["share"].sum(), 1)
    dense = reader_table(study.agent, "block4", direction, study.pairs)
    assert dense["reader"].unique().tolist() == ["dense"]
    assert dense["share"].sum() == pytest.approx(1)


def test_a_readers_parts_against_a_blinded_input(study, direction):
    """The part without ``s`` is what the branch makes of an input without the direction."""
    branch = study.agent.layer("block2.bilinear")
    u = direction.float()
    outputs, rest, square = [], [], []
    for states in (study.pairs.base, study.pairs.source):
        x = study.agent.activations(states.observations, ["block1"])["block1"]
        along = torch.einsum("c,d,ndhw->nchw", u, u, x)
        with torch.no_grad():
            outputs.append(branch(x))
            rest.append(branch(x - along))
            square.append(branch(along))
    total, without, alone = (source - base for base, source in (outputs, rest, square))
    table = reader_table(study.agent, "block1", direction, study.pairs).set_index("part")
    norm = (total * total).sum()
    shares = {"rest": (without * total).sum() / norm, "s²": (alone * total).sum() / norm}
    for part, share in shares.items():
        assert table.loc[part, "share"] == pytest.approx(share.item(), abs=1e-4)


def test_partners_of_the_next_reader(study, direction):
    table = partner_table(study.agent, "block1", direction, study.pairs)
    assert set(table["reader"]) == {"block2"} and table["component"].tolist() == [0, 1, 2, 3]
    assert table["value"].is_monotonic_decreasing and (table["value"] > 0).all()
    correlations = table[["free cells", "mouse", "path"]]
    assert (correlations.abs() <= 1).all(axis=None) and correlations.abs().gt(0.01).any(axis=None)


def test_partners_of_a_reader_with_gaps_are_those_of_the_kernel_filled_with_zeros(study, direction):
    tables = []
    small = study.agent.layer("block2.bilinear")
    for filled in (False, True):
        sizes = {"kernel_size": 5, "dilation": 1} if filled else {"kernel_size": 3, "dilation": 2}
        conv = BilinearConv2d(6, 6, padding=2, **sizes)
        with torch.no_grad():
            for own, given in ((conv.left, small.left), (conv.right, small.right)):
                own.weight.zero_()
                own.weight[..., :: 2 if filled else 1, :: 2 if filled else 1] = given.weight
        agent = study.agent.with_layer("block2.bilinear", conv)
        tables.append(partner_table(agent, "block1", direction, study.pairs))
    numbers = [table.drop(columns="reader").to_numpy(float) for table in tables]
    np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer", ["stem", "block2"])
def test_where_no_convolution_reads_the_tables_are_empty_but_have_columns(study, direction, layer):
    readers = reader_table(study.agent, layer, direction, study.pairs)
    partners = partner_table(study.agent, layer, direction, study.pairs)
    assert readers.empty and partners.empty
    assert list(readers) == ["reader", "part", "share"]
    assert isinstance(partners, pd.DataFrame) and "path" in partners
