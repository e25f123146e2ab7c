import pytest

from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.steps.tracing import trace_weights
from rlbilinear.probes.study import LEAST, Sizes, prepare

TINY = Sizes(**LEAST)


@pytest.mark.parametrize("layer", ["pool1", "block1", "relu1"])
def test_without_bilinear_blocks_the_text_says_so(relu_agent, layer):
    study = prepare(relu_agent, layer, cheese_presence, sizes=TINY, progress=False)
    part = trace_weights(study)
    assert "No bilinear layer writes at this layer" in part.section.text
    assert "No bilinear layer reads this layer's output" in part.section.text
    assert part.tables["readers"].empty and part.tables["partners"].empty
    assert part.tables["writers"]["writer"].unique().tolist() == [layer]
    assert not any("eigenfilters" in name for name in (*part.tables, *part.figures))
