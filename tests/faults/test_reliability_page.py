"""docs/reliability.md and its battery of tests know of each other (tests/unit/test_pages.py has the rest)."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.test_wire import CASES
from tests.unit.test_pages import names_in

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def test_every_case_of_the_line_is_in_its_table_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## The line and the hub") : text.index("## What the hub says no to")]
    rows = [line.rsplit("|", 2)[1] for line in table.splitlines() if line.startswith("| ")]
    cited = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}
    assert cited == {each.name for each in CASES}


def test_every_test_of_the_battery_is_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = ("test_wire.py", "test_disk.py", "test_kills.py", "test_service.py", "test_shared_cache.py")
    # This one says of another test that it tests what it says.
    apart = {"test_large_files_did_come_over_several_connections"}
    all_names = {name for file in files for name in names_in(Path(__file__).with_name(file))}
    named = {name for name in all_names if name.startswith("test_")}
    assert {name for name in named - apart if f"::{name}" not in text} == set()
