"""The marks widgets draw, in a Unicode and an ASCII set. Every mark is one cell wide in every terminal: no emoji."""

from __future__ import annotations

from collections.abc import Mapping

from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of marks. Each is one cell wide."""

    name: str
    available: str
    queued: str
    downloading: str
    paused: str
    failed: str
    downloaded: str
    deleting: str
    yes: str
    no: str
    downloads: str
    likes: str
    selected: str
    bar_done: str
    bar_half: str
    """End of the done part when it reaches into half a cell; empty when the set has no such mark."""
    bar_rest: str
    edge: str
    """Left edge of a card."""
    cursor: str
    """Left edge of the highlighted card: must be told from `edge` without colour."""
    thumb: str
    """The scroll position, at the right edge of a list."""
    dot: str
    """Between two facts."""
    ellipsis: str
    rule: str
    bullet: str


UNICODE = Glyphs(
    name="unicode",
    available="○",
    queued="◔",
    downloading="◐",
    paused="‖",
    failed="✗",
    downloaded="✓",
    deleting="◌",
    yes="✓",
    no="✗",
    downloads="↓",
    likes="♥",
    selected="◆",
    bar_done="━",
    bar_half="╸",
    bar_rest="─",
    edge="▏",
    cursor="▌",
    thumb="▐",
    dot="·",
    ellipsis="…",
    rule="─",
    bullet="•",
)

ASCII = Glyphs(
    name="ascii",
    available="o",
    queued="~",
    downloading="%",
    paused="=",
    failed="!",
    downloaded="+",
    deleting="-",
    yes="+",
    no="!",
    downloads="v",
    likes="*",
    selected="*",
    bar_done="#",
    bar_half="",
    bar_rest="-",
    edge=" ",
    cursor=">",
    thumb="|",
    dot="-",
    ellipsis="~",
    rule="-",
    bullet="-",
)


def choose_glyphs(env: Mapping[str, str], encoding: str | None) -> Glyphs:
    """Pick the set this terminal can show.

    Args:
        env: The environment. `TERM=linux` means a console whose font lacks most marks.
        encoding: Of the output stream, such as `utf-8`; None when unknown, which then says nothing.
    """
    if env.get("TERM", "") in ("linux", "dumb", "vt100", "vt220"):
        return ASCII
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or ""
    said = encoding or locale.partition(".")[2]
    if said and said.lower().replace("-", "").replace("_", "") not in ("utf8", "utf8sig", "utf16", "utf32"):
        return ASCII
    # Python says UTF-8 for the C and POSIX locales (PEP 538, 540), yet the terminal behind may know ASCII only.
    return ASCII if locale in ("C", "POSIX") else UNICODE
