"""The README tells the truth: its tables, its commands, its pictures."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _tables_module():
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "docs" / "tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["keys", "settings"])
def test_tables_are_those_of_the_code(name: str) -> None:
    assert f"<!-- {name} -->" in README, "the README lost the place of a table"
    assert _tables_module().with_tables(README) == README, "run: python docs/tables.py"


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert {"run", "test"} <= named
    assert named <= targets


def test_every_subcommand_named_exists() -> None:
    named = sorted(set(re.findall(r"^modelhub ([a-z]+)", "\n".join(_shell_blocks()), re.MULTILINE)))
    assert {"pull", "rm", "list", "register"} <= set(named)
    for each in named:
        done = subprocess.run(
            [sys.executable, "-m", "modelhub_tui", each, "--help"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (each, done.stderr)


def _shell_blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_every_test_the_router_page_names_exists() -> None:
    page = (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_[a-z0-9_]+)`", page)
    written = (ROOT / "tests" / "routers" / "test_contract.py").read_text(encoding="utf-8")
    assert len(named) > 10
    assert [name for name in named if f"def {name}(" not in written] == []
