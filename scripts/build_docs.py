"""Build the documentation site into build/site: make docs. Any warning is an error.

The pages of docs/ are copied to build/docs, the notebooks become pages beside them with the outputs
that they were stored with, and Zensical builds both with the API reference.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build" / "docs"


def copy_pages() -> None:
    """Copy docs/, and the notebooks as pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        write_notebook(notebook, PAGES / "notebooks")


def write_notebook(notebook: Path, folder: Path) -> None:
    """Write a notebook as a page, its pictures beside it."""
    exporter = MarkdownExporter()
    body, resources = exporter.from_notebook_node(nbformat.read(notebook, nbformat.NO_CONVERT))
    pictures = folder / notebook.stem
    pictures.mkdir(parents=True)
    for name, data in resources["outputs"].items():
        (pictures / name).write_bytes(data)
        body = body.replace(f"]({name})", f"]({notebook.stem}/{name})")
    body = re.sub(r"\]\(\.\./docs/", "](../", body)  # links are those of the repository
    (folder / f"{notebook.stem}.md").write_text(body)


def build() -> int:
    """Build the site; return the exit code: not 0 when there was a warning."""
    subprocess.run(["sh", "scripts/package_tree.sh"], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout, end="")
    undocumented = re.findall(r"^griffe: .*", done.stdout, re.M)  # not counted by --strict
    return done.returncode or int(bool(undocumented))


if __name__ == "__main__":
    copy_pages()
    sys.exit(build())
