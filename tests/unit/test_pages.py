"""The pages that promise something name the code that keeps the promise and the test that shows it: both are there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {"reliability.md": 30, "security.md": 50}
"""With at least so many tests named."""


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Functions, classes and their members in a file, as `Class.member`; tests in a class also by their own name."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name if node.name.startswith("test_") else prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")

    if path.is_file():
        visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_test_it_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= PAGES[page]
    assert text.count("`tests/") - len(re.findall(r"`tests/[\w/]+`", text)) == len(named)
    assert [f"{path}::{name}" for path, name in named if name not in names_in(ROOT / path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_place_it_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = [each for each in re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", text) if not each[0].startswith("tests/")]
    source = ROOT / "src" / "modelhub_tui"
    assert [path for path, _ in named if not (source / path).is_file()] == []
    assert [f"{path}::{name}" for path, name in named if name and name not in names_in(source / path)] == []


def test_every_promise_of_security_has_a_place_and_a_test() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].strip() != "promise"]
    assert len(rows) > 20
    assert [row[0] for row in rows if len(row) != 3 or ".py" not in row[1] or "`tests/" not in row[2]] == []
