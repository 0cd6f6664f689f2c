"""The one place that makes outside text safe to show.

Model names, tags, descriptions, file names and error bodies come from routers, hubs and files that anybody may have
written. They are cleaned once, where they enter, and drawn as plain text ever after (never as markup).
"""

from __future__ import annotations

import json
import re
import unicodedata

ONE_LINE = 300
"""Default limit, in characters, for a name or a sentence."""
BLOCK = 20_000
"""Default limit, in characters, for a text of several lines."""

# Cc and Cs never reach a terminal; Cf holds bidi overrides and zero-width characters, Co and Cn draw as anything.
_DROPPED = {"Cc", "Cf", "Cs", "Co", "Cn"}
_SPACES = {"Zs", "Zl", "Zp"}
_BLANKS = frozenset("\t\n\r\v\f\u115f\u1160\u2800\u3164\uffa0")
"""Drawn as nothing, though not spaces by category: line breaks, the Hangul fillers and the empty Braille cell."""
_PLAIN = re.compile(r"[ -~]*\Z")
_TIDY = re.compile(r"[!-~]++(?: [!-~]++)*+\Z")
"""Plain words with one space between two, as nearly all texts are."""
_MAX_MARKS = 4
_NO_PORT = re.compile(r"([^:/?#\[]*):(?![0-9]{1,5}(?:[/#]|\Z))")
"""A host with something after its colon that is no port: whatever it is, it may be a secret."""


def clean(text: object, limit: int = ONE_LINE) -> str:
    """Return `text` as one safe line: no control, format or bidi characters, single spaces, at most `limit` long.

    Newlines and odd spaces become spaces; what is cut ends in an ellipsis; stacked combining marks are thinned out.
    """
    if isinstance(text, str) and len(text) <= limit and _TIDY.match(text):
        return text
    raw = _text(text)[: limit * 8]
    if not _PLAIN.match(raw):
        raw = _scrub(raw)
    line = " ".join(raw.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def clean_block(text: object, limit: int = BLOCK) -> str:
    """Do as `clean()`, but keep line breaks: for descriptions and READMEs. `limit` counts the whole text."""
    lines = [
        clean(line, limit) for line in _text(text)[: limit * 2].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ]
    block = "\n".join(lines).strip("\n")
    return block if len(block) <= limit else block[: limit - 1] + "…"


def clean_url(text: object, limit: int = 80) -> str:
    """Return an address as it may be shown, well-formed or not: without what could be a password or a key."""
    said = clean(text, 2000)
    scheme, mark, rest = said.partition("://") if "://" in said else ("", "", said)
    rest, query, _ = rest.partition("?")
    _, at, host = rest.rpartition("@")
    if at:
        rest = f"[hidden]@{host}"
    elif mark and (odd := _NO_PORT.match(rest)):
        rest = f"{odd[1]}:[hidden]"
    return clean(f"{scheme}{mark}{rest}{'?…' if query else ''}", limit)


def printable(text: str) -> str:
    """Return `text` as a terminal may get it, layout included: without what `clean()` drops, except line feeds.

    The last line before an output, for texts that were put together from cleaned ones: nearly all pass as they are.
    """
    if "\n" in text:
        return "\n".join(map(printable, text.split("\n")))
    return text if text.isprintable() else _scrub(text)


def escaped(json_text: str) -> str:
    """Return JSON with what a terminal must not get as escapes of JSON: it says the same as before."""
    if json_text.replace("\n", "").isprintable():
        return json_text
    return "".join(char if char == "\n" or char.isprintable() else json.dumps(char)[1:-1] for char in json_text)


def encodable(text: str) -> str:
    """The text with what no encoding has (half a surrogate pair) replaced; all else as it is: for data, not to show."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else str(value)
    except ValueError:  # an int of more digits than Python prints
        return "a huge number"


def _scrub(raw: str) -> str:
    """Character by character: the slow path, taken only when something outside printable ASCII is there."""
    out: list[str] = []
    marks = 0
    for char in raw:
        category = unicodedata.category(char)
        if category in _SPACES or char in _BLANKS:
            char = " "
        elif category in _DROPPED:
            # Before marks are counted: a dropped character must not separate two stacks that then become one.
            continue
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= _MAX_MARKS:
            out.append(char)
    return "".join(out)
