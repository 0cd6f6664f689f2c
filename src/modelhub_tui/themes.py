"""The three looks: dark, light, and one in the terminal's own colours."""

from __future__ import annotations

from dataclasses import replace

from textual.theme import BUILTIN_THEMES, Theme

DARK = Theme(
    name="dark",
    primary="#7aa2f7",
    secondary="#5a7bc4",
    accent="#f6a15b",
    warning="#e5b567",
    error="#f2738b",
    success="#7fd18c",
    foreground="#d5daea",
    background="#11131a",
    surface="#191c26",
    panel="#222634",
    variables={
        "footer-background": "#191c26",
        "footer-key-foreground": "#7aa2f7",
        "scrollbar": "#2c3142",
        "scrollbar-hover": "#2c3142",
        "scrollbar-active": "#7aa2f7",
        "scrollbar-background": "#11131a",
        "scrollbar-background-hover": "#11131a",
        "scrollbar-background-active": "#11131a",
        "border-blurred": "#2c3142",
        "input-cursor-background": "#d5daea",
        "input-cursor-foreground": "#11131a",
    },
)
LIGHT = Theme(
    name="light",
    primary="#2f5fd0",
    secondary="#5576b8",
    accent="#b4581c",
    warning="#94650a",
    error="#bd2f4a",
    success="#227a3b",
    foreground="#20242f",
    background="#fbfbfd",
    surface="#f0f1f6",
    panel="#e4e7f0",
    dark=False,
    variables={
        "footer-background": "#e4e7f0",
        "footer-key-foreground": "#2f5fd0",
        "scrollbar": "#cfd4e2",
        "scrollbar-hover": "#cfd4e2",
        "scrollbar-active": "#2f5fd0",
        "scrollbar-background": "#fbfbfd",
        "scrollbar-background-hover": "#fbfbfd",
        "scrollbar-background-active": "#fbfbfd",
        "border-blurred": "#cfd4e2",
    },
)
_ANSI_DARK = BUILTIN_THEMES["ansi-dark"]
# Reverse shows on any background; the original's black cursor does not on a black one.
_CURSOR = {
    "input-cursor-background": "ansi_default",
    "input-cursor-foreground": "ansi_default",
    "input-cursor-text-style": "reverse",
}
ANSI = replace(_ANSI_DARK, name="ansi", variables={**_ANSI_DARK.variables, **_CURSOR})

OURS = (DARK, LIGHT, ANSI)
DEFAULT = DARK.name
# Names that people and other programs use for the same thing.
_ALIASES = {"textual-ansi": "ansi", "modelhub-dark": "dark", "modelhub-light": "light"}


def choose_theme(wanted: str | None, env_term: str, no_color: bool) -> str | None:
    """The theme to start with; None if `wanted` names none.

    A terminal with few colours, or without any, gets its own ones: mixed colours would be rounded to ugly ones.
    """
    if wanted:
        name = _ALIASES.get(wanted.strip().lower(), wanted.strip().lower())
        known = {each.name for each in OURS} | set(BUILTIN_THEMES)
        return name if name in known else None
    return ANSI.name if no_color or env_term in ("linux", "vt100", "vt220", "dumb", "ansi") else DEFAULT
