"""What a service that does not run has left to do, read from its databases without touching them. Stdlib only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from modelhub_tui.service.statefile import DATABASE

NODE_DATABASE = Path("node") / "node.db"
"""What the node of this machine has placed, below the state folder."""
_WAIT_S = 1.0
"""Longest wait for somebody who writes at this moment."""


def unfinished(state_dir: Path) -> tuple[int, int]:
    """Return how many registered models this machine was still to fetch, and how many of them somebody holds.

    Both are 0 if that cannot be read.

    A model that is registered and that the node never heard of counts: the node fetches it at the next start.
    """
    try:
        query = "SELECT name, coalesce(json_extract(body, '$.paused'), 0) FROM models"
        registered = dict(_rows(state_dir / DATABASE, query))
        rows = _rows(
            state_dir / NODE_DATABASE, "SELECT name FROM models WHERE json_extract(body, '$.state') != 'wanted'"
        )
        settled = {row[0] for row in rows}
    except sqlite3.Error:
        return 0, 0  # broken, or of another version: the service says so when it starts
    held = [paused for name, paused in registered.items() if name not in settled]
    return len(held), sum(map(bool, held))


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    if not path.is_file() or path.is_symlink():
        return []
    # Read only: a program that merely looks creates nothing, and locks nobody out.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)) as db:
        return db.execute(query).fetchall()
