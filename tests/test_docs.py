"""The pages of the documentation run as they stand."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    "page", ["polynomial.md", "training.md", "validate.md", "numeric-range.md", "sharing.md"]
)
def test_a_page_runs_from_top_to_bottom(page, capsys, monkeypatch, tmp_path):
    if page == "sharing.md":
        pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
    assert blocks
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())
