"""API keys a person asked to keep: one file in the state folder, 0600, by the origin of a router."""

from __future__ import annotations

from pathlib import Path

from modelhub_tui.config import Settings
from modelhub_tui.identifiers import origin
from modelhub_tui.own_folder import read_private, write_private


def kept_key(settings: Settings) -> str | None:
    """Return the key kept for the configured router; None if there is none, or the file is not ours alone."""
    key = _kept(settings).get(_origin(settings.router or ""))
    return key if isinstance(key, str) and key else None


def keep_key(settings: Settings, key: str) -> None:
    """Keep a key for the configured router.

    Raises:
        OSError: It cannot be written.
        ServiceFailed: The state folder is not ours alone.
    """
    write_private(_path(settings), {**_kept(settings), _origin(settings.router or ""): key})


def _kept(settings: Settings) -> dict[str, object]:
    # Whole addresses were the names before.
    return {_origin(name): key for name, key in read_private(_path(settings)).items()}


def _origin(url: str) -> str:
    try:
        return origin(url)
    except ValueError:
        return url


def _path(settings: Settings) -> Path:
    return settings.state_dir / "router-keys.json"
