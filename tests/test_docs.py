"""The documentation: code runs, commands parse, links lead somewhere, nothing is missing."""

import ast
import importlib
import json
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import tyro

from rlbilinear.commands.main import SUBCOMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
PACKAGES = {folder: package for package, folder in SETUP["package-dir"].items()}
SMALL = {
    "classifier": {"epochs": 3},
    "demo": {"fit_levels": 30, "levels": 20, "steered": 1},
    "maze_editor": {"seed": 5},
    "relu_agent": {"fit_levels": 2, "levels": 2, "alone": 1},
    "your_agent": {"steps": 512, "states": 240},
}
"""Parameters with which the notebooks run in tests."""


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize(
    "page", [text for text in TEXTS if blocks(text.read_text(), "python")], ids=name_of
)
def test_a_page_runs_from_top_to_bottom(page, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page.read_text(), "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    assert capsys.readouterr().out or page.name == "README.md"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_at_a_small_size(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        code = "".join(line for line in cell["source"] if not line.startswith("%"))
        exec(compile(code, f"{name}.ipynb, cell {number}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert names.keys() >= SMALL[name].keys()
            names.update(SMALL[name])
    plt.close("all")
    assert not list(tmp_path.iterdir())


def test_every_notebook_is_tested_and_stored_with_outputs():
    stored = sorted((ROOT / "notebooks").iterdir())
    assert [path.stem for path in stored] == sorted(SMALL)
    assert sum(path.stat().st_size for path in stored) < 600_000
    for name in SMALL:
        cells = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert outputs
        assert not [each for each in outputs if each["output_type"] == "error"]
        assert not [each for each in outputs if each.get("name") == "stderr"]


def notebook(name):
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())


def commands():
    """Yield each command line of a page, with the page."""
    for text in TEXTS:
        for block in blocks(text.read_text(), "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("rlbilinear "):
                    words = shlex.split(line, comments=True)[1:]
                    yield pytest.param(words, id=f"{name_of(text)}: {' '.join(words[:3])}")


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_is_one_that_parses(words):
    name, *arguments = words
    command = importlib.import_module(f"rlbilinear.commands.{SUBCOMMANDS[name].module}").main
    tyro.cli(command.options, args=arguments)


def anchors(markdown):
    """Return the anchors of a page's headings, as the site and GitHub make them."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("text", TEXTS, ids=name_of)
def test_links_lead_somewhere(text):
    prose = re.sub(r"^```.*?^```", "", text.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (text.parent / place).resolve() if place else text
        if target.parent == DOCS / "notebooks":  # made of the notebooks
            target = ROOT / "notebooks" / f"{target.stem}.ipynb"
        assert target.exists(), f"{link}: there is no {target}"
        assert not anchor or anchor in anchors(target.read_text()), f"{link}: no such heading"


def test_the_site_has_every_page_once():
    pages = [page.relative_to(DOCS).as_posix() for page in PAGES]
    pages += [f"notebooks/{name}.md" for name in SMALL]
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert Counter(listed) == Counter(pages)


def modules():
    """Return the file of each module, by its installed name."""
    found = {}
    for folder, package in PACKAGES.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            if parts[-1] != "__main__":
                inner = parts[:-1] if parts[-1] == "__init__" else parts
                found[".".join([package, *inner])] = file
    return found


def test_the_reference_has_every_module_once():
    pages = (DOCS / "api").glob("*.md")
    listed = [name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    missing = modules().keys() - {"rlbilinear.commands"} - set(listed)
    assert not missing, f"give each a line `::: NAME` on a page of docs/api: {missing}"
    assert not set(listed) - modules().keys(), "no such module"
    assert max(Counter(listed).values()) == 1


@pytest.mark.parametrize("module", modules())
def test_nothing_public_lacks_documentation(module):
    tree = ast.parse(modules()[module].read_text())
    assert ast.get_docstring(tree)
    missing = [name for name, text in documented(tree.body) if not text]
    assert not missing


def documented(body):
    """Yield public functions and classes, and public members of these classes, with their text."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            overload = any("overload" in ast.unparse(each) for each in node.decorator_list)
            setter = any(".setter" in ast.unparse(each) for each in node.decorator_list)
            yield node.name, ast.get_docstring(node) or overload or setter
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", text) for name, text in documented(node.body))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
