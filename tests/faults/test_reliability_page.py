"""docs/reliability.md promises nothing without a test: every test and case it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.faults.test_wire import CASES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name for each in ast.walk(tree) if isinstance(each, kinds) and each.name.startswith("test_")}


def test_every_test_it_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if name not in named_in(ROOT / path)]
    assert missing == []


def test_every_case_of_the_line_is_in_its_table_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## The line and the hub") : text.index("## What the hub says no to")]
    rows = [line.rsplit("|", 2)[1] for line in table.splitlines() if line.startswith("| ")]
    cited = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}
    assert cited == {each.name for each in CASES}


def test_every_test_of_the_battery_is_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = ("test_wire.py", "test_disk.py", "test_kills.py", "test_service.py")
    # This one says of another test that it tests what it says.
    apart = {"test_large_files_did_come_over_several_connections"}
    named = {name for file in files for name in named_in(Path(__file__).with_name(file))}
    assert {name for name in named - apart if f"::{name}" not in text} == set()
