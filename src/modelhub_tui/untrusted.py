"""The one place that makes outside text safe to show, and outside paths safe to use.

Model names, tags, descriptions, file names and error bodies come from routers, hubs and files that anybody may have
written. They are cleaned once, where they enter, and drawn as plain text ever after (never as markup).
"""

from __future__ import annotations

import re
import unicodedata

ONE_LINE = 300
"""Default limit, in characters, for a name or a sentence."""
BLOCK = 20_000
"""Default limit, in characters, for a text of several lines."""

# Cc and Cs never reach a terminal; Cf holds bidi overrides and zero-width characters, Co and Cn draw as anything.
_DROPPED = {"Cc", "Cf", "Cs", "Co", "Cn"}
_SPACES = {"Zs", "Zl", "Zp"}
_PLAIN = re.compile(r"[ -~]*\Z")
_MAX_MARKS = 4


def clean(text: object, limit: int = ONE_LINE) -> str:
    """Return `text` as one safe line: no control, format or bidi characters, single spaces, at most `limit` long.

    Newlines and odd spaces become spaces; what is cut ends in an ellipsis; stacked combining marks are thinned out.
    """
    raw = text if isinstance(text, str) else "" if text is None else str(text)
    raw = raw[: limit * 8]
    if not _PLAIN.match(raw):
        raw = _scrub(raw)
    line = " ".join(raw.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def clean_block(text: object, limit: int = BLOCK) -> str:
    """As `clean()`, but keeps line breaks: for descriptions and READMEs. `limit` counts the whole text."""
    raw = text if isinstance(text, str) else "" if text is None else str(text)
    lines = [clean(line, limit) for line in raw[: limit * 2].replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    block = "\n".join(lines).strip("\n")
    return block if len(block) <= limit else block[: limit - 1] + "…"


def _scrub(raw: str) -> str:
    """Character by character: the slow path, taken only when something outside printable ASCII is there."""
    out: list[str] = []
    marks = 0
    for char in raw:
        category = unicodedata.category(char)
        if category in ("Mn", "Me"):
            marks += 1
            if marks > _MAX_MARKS:
                continue
        else:
            marks = 0
        if category in _SPACES or char in "\t\n\r\v\f":
            out.append(" ")
        elif category not in _DROPPED:
            out.append(char)
    return "".join(out)


_DRIVE = re.compile(r"^[A-Za-z]:")


def safe_repo_path(path: str) -> str:
    """Return a repo file's path if it stays inside its folder, with forward slashes.

    Raises:
        ValueError: Absolute, empty, with `..`, a drive letter, a UNC prefix, a backslash or a control character.
    """
    if not path or len(path) > 1024 or clean(path, 1024) != path:
        raise ValueError(f"unusable file name: {clean(path, 80)!r}")
    if path.startswith(("/", "~")) or "\\" in path or _DRIVE.match(path):
        raise ValueError(f"not a relative path: {clean(path, 80)!r}")
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.startswith("..") and part.strip(".") == "" for part in parts):
        raise ValueError(f"path leaves its folder: {clean(path, 80)!r}")
    return path
