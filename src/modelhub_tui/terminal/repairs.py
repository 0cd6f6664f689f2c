"""Mend what is wrong in the Textual we are bound to."""

from __future__ import annotations

from typing import Any

from textual._styles_cache import StylesCache

from modelhub_tui.terminal.delta import is_supported


def mend() -> None:
    """Let closed dialogs go. Does nothing with a Textual whose private parts are unknown, or the second time.

    Textual keeps 1,024 answers of a method together with the object that was asked, and with that all a widget has
    ever drawn: 0.4 MB for each dialog that was opened, up to 50 MB (github.com/Textualize/textual/issues/6665).
    The answer does not depend on the object, so the class is asked instead.
    """
    method: Any = StylesCache.__dict__.get("get_inner_outer")
    if is_supported() and hasattr(method, "cache_info"):
        setattr(StylesCache, "get_inner_outer", classmethod(method))  # noqa: B010 - to mypy it is a method
