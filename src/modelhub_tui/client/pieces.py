"""A JSON array read member by member, a megabyte of text at a time.

Parsed at once, a list of 64 MB takes gigabytes, and holds up every other thread for seconds.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from json import detect_encoding
from typing import Any

from modelhub_tui import net

WINDOW_BYTES = 1 << 20
LONGEST = 8 << 20
"""Characters of one member."""
_A_VALUE = "\0"
"""Stands for any value among the characters that may come next; none begins with it."""
_SPACE = re.compile(r"[ \t\n\r]*")


def pieces(body: bytes) -> Iterator[tuple[str, Any]]:
    """The members of an array, each as its text and its value; takes time in proportion to the body.

    Raises:
        ValueError: It is no JSON array, or one member is too long. What was told before may have been used.
    """
    decode = codecs.getincrementaldecoder(detect_encoding(body))("surrogatepass").decode
    text, at, expected = "", 0, "["
    for begin in range(0, len(body), WINDOW_BYTES):
        last = begin + WINDOW_BYTES >= len(body)
        text, at = text[at:] + decode(body[begin : begin + WINDOW_BYTES], last), 0
        while (at := _after_space(text, at)) < len(text):
            found = text[at]
            if expected == "end":
                raise ValueError("something follows the list")
            if found in expected:
                at += 1
                expected = {"[": "]" + _A_VALUE, ",": _A_VALUE, "]": "end"}[found]
            elif not expected.endswith(_A_VALUE):
                raise ValueError("not a list")
            else:
                value, end = _value(text, at, last)
                if end is None:
                    break
                yield text[at:end], value
                at, expected = end, ",]"
    if expected != "end":
        raise ValueError("the list has no end")


def _value(text: str, at: int, last: bool) -> tuple[Any, int | None]:
    """The value that begins here and where it ends; None where it goes on in the next window."""
    try:
        value, end = net.decoder().scan_once(text, at)  # type: ignore[attr-defined]
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (StopIteration, ValueError) as error:
        if last or len(text) - at > LONGEST:
            raise ValueError("a member is no JSON, or too long") from error
        return None, None
    # A number may go on behind the window.
    return (None, None) if end == len(text) and not last else (value, end)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at
