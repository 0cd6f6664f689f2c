"""API keys a person asked to keep: one file in the state folder, 0600, by router."""

from __future__ import annotations

from pathlib import Path

from modelhub_tui.config import Settings
from modelhub_tui.own_folder import read_private, write_private


def kept_key(settings: Settings) -> str | None:
    """Return the key kept for the configured router; None if there is none, or the file is not ours alone."""
    key = read_private(_path(settings)).get(settings.router or "")
    return key if isinstance(key, str) and key else None


def keep_key(settings: Settings, key: str) -> None:
    """Keep a key for the configured router.

    Raises:
        OSError: It cannot be written.
        ServiceFailed: The state folder is not ours alone.
    """
    path = _path(settings)
    write_private(path, {**read_private(path), settings.router or "": key})


def _path(settings: Settings) -> Path:
    return settings.state_dir / "router-keys.json"
