"""Write files completely or not at all, whoever else writes them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside this one to write to, which takes this one's place at the end.

    When the writing fails, the file that was there stays, and nothing is left beside it. Each call
    gives another path, with this one's ending, so that writers at the same time do no harm.
    """
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
