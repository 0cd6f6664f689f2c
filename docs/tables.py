"""Write the README's tables of keys, settings and commands from the code: `python docs/tables.py`.

A test fails when they differ, so the README cannot promise a key that does not exist.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from modelhub_tui.commands import ALL_BY_GROUP, GROUPS, MOVES
from modelhub_tui.config import SETTINGS

README = Path(__file__).parents[1] / "README.md"


def keys_table() -> str:
    """Keys by group, in the order of the help screen."""
    rows = ["| key | does |", "|---|---|"]
    rows += [f"| `{_cell(keys)}` | {what} |" for keys, what in MOVES]
    for group in GROUPS:
        rows += [f"| `{_cell(each.shown)}` | {each.help} |" for each in ALL_BY_GROUP if each.group == group]
    return "\n".join(rows)


def settings_table() -> str:
    """Settings with every place they can be given."""
    rows = ["| setting | flag | environment | default | meaning |", "|---|---|---|---|---|"]
    for each in SETTINGS:
        flag, default = (f"`{text}`" if text else "" for text in (each.flag, each.default))
        rows.append(f"| `{each.name}` | {flag} | `{each.env}` | {default} | {each.help} |")
    return "\n".join(rows)


def with_tables(text: str) -> str:
    """Return a README's text with fresh tables between its markers."""
    for name, table in (("keys", keys_table()), ("settings", settings_table())):
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda match, table=table: f"{match[1]}{table}{match[2]}", text)
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
