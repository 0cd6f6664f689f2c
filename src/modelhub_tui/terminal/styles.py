"""Styles of cells, as parameters of an SGR sequence ("1;38;2;255;0;0"), and after a line feed the hyperlink if any."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def _parts(style: str) -> tuple[tuple[str, ...], str, str, str]:
    """A style's attributes, foreground, background and hyperlink."""
    sgr, _, link = style.partition("\n")
    attributes: list[str] = []
    foreground = background = ""
    numbers = sgr.split(";") if sgr else []
    at = 0
    while at < len(numbers):
        size = {"5": 3, "2": 5}.get("".join(numbers[at + 1 : at + 2]), 1) if numbers[at] in ("38", "48") else 1
        part, code = ";".join(numbers[at : at + size]), int(numbers[at])
        if 30 <= code <= 39 or 90 <= code <= 97:
            foreground = "" if code == 39 else part
        elif 40 <= code <= 49 or 100 <= code <= 107:
            background = "" if code == 49 else part
        else:
            attributes.append(part)
        at += size
    return tuple(attributes), foreground, background, link


_UNSEEN = frozenset({"1", "2", "3"})
"""Bold, dim and italic: they show on text only."""


@lru_cache(maxsize=4096)
def blank_style(style: str) -> str:
    """The part of a style that shows on a blank: its background, if nothing is drawn on blanks too, such as a line."""
    attributes, _, background, link = _parts(style)
    return style if link or not _UNSEEN.issuperset(attributes) else background


@lru_cache(maxsize=1024)
def is_plain(style: str) -> bool:
    """Say whether blanks in this style are background and nothing else, which is what erasing leaves."""
    return blank_style(style) == _parts(style)[2]


@lru_cache(maxsize=4096)
def ground(style: str) -> str:
    """A style's background alone: what erasing leaves."""
    return _parts(style)[2]


@lru_cache(maxsize=4096)
def by_ground(style: str) -> tuple[object, ...]:
    """Order of styles in which neighbours have most in common."""
    attributes, foreground, background, link = _parts(style)
    return link, background, attributes, foreground


@lru_cache(maxsize=8192)
def restyle(old: str, new: str) -> str:
    """The sequence that turns the terminal's style from `old` to `new`; "" is the terminal's default style."""
    (had, old_fg, old_bg, old_link), (has, fg, bg, link) = _parts(old), _parts(new)
    out = "" if old_link == link else f"\x1b]8;{link or ';'}\x1b\\"
    if not has and not fg and not bg:
        return f"{out}\x1b[m" if had or old_fg or old_bg else out
    changes: list[str] = []
    if not set(had) <= set(has):
        # Attributes cannot be switched off one by one: 22 ends both bold and dim.
        changes, had, old_fg, old_bg = ["0"], (), "", ""
    changes += [part for part in has if part not in had]
    if fg != old_fg:
        changes.append(fg or "39")
    if bg != old_bg:
        changes.append(bg or "49")
    return f"{out}\x1b[{';'.join(changes)}m" if changes else out
