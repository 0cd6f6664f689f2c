"""API keys a person asked to keep: one file in the state folder, 0600, by router."""

from __future__ import annotations

import json
import os
from pathlib import Path

from modelhub_tui.config import Settings


def kept_key(settings: Settings) -> str | None:
    """Return the key kept for the configured router; None if there is none, or the file is not ours alone."""
    key = _read(_path(settings)).get(settings.router or "")
    return key if isinstance(key, str) and key else None


def keep_key(settings: Settings, key: str) -> None:
    """Keep a key for the configured router.

    Raises:
        OSError: It cannot be written.
    """
    path = _path(settings)
    keys = {**_read(path), settings.router or "": key}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(keys, file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _path(settings: Settings) -> Path:
    return settings.state_dir / "router-keys.json"


def _read(path: Path) -> dict[str, object]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, encoding="utf-8") as file:
            state = os.fstat(fd)
            if state.st_uid != os.getuid() or state.st_mode & 0o077:
                return {}
            keys = json.loads(file.read(1_000_000))
    except (OSError, ValueError):
        return {}
    return keys if isinstance(keys, dict) else {}
