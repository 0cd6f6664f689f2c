"""Paths as people write them in settings and in the environment. Imports nothing: the first picture needs it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Return a path with `~`, `~user`, `$NAME` and `${NAME}` replaced, as `huggingface_hub` has it for its own.

    First the home folder, then variables, each once; what is not known stays as it is.

    Args:
        env: The environment; its HOME is what `~` means.
    """
    if text.startswith("~"):
        name, slash, rest = text.partition("/")
        home = env.get("HOME", "") if name == "~" else ""
        # What HOME ends in would give a second slash.
        text = f"{home.rstrip('/') if home else os.path.expanduser(name)}{slash}{rest}"  # noqa: PTH111
    if "$" not in text:
        return text
    import re

    def value(found: re.Match[str]) -> str:
        return env.get(found[1].strip("{}"), found[0])

    return re.sub(r"\$(\w+|\{[^}]*\})", value, text, flags=re.ASCII)
