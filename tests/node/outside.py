"""Somebody's own files beside a cache, which nothing that happens to the cache may change."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


class Outside:
    """A folder with whatever an attack is after: files of any name, and such as have the form of the cache's own.

    Args:
        words: Names to plant in every folder, beside those that are always there: of files of a model, of its blobs.
    """

    def __init__(self, root: Path, commit: str, words: tuple[str, ...] = ()) -> None:
        self.root = root
        names = ("thesis.txt", "main", "dev.lock", f"{commit}.json", "a.safetensors", *words)
        for folder in ("", commit, f"{commit}/sub", "sub", "site-packages", "empty/below", "acme"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for name in names if "empty" not in folder else ():
                content = commit if name == "main" else f"mine: {folder}/{name}"
                (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
                (root / folder / name).write_text(content)
            if "empty" not in folder:
                (root / folder / "nothing.txt").touch()
        self._before = fingerprint(root)

    def assert_untouched(self) -> None:
        """Nothing came, went or changed."""
        assert fingerprint(self.root) == self._before


def fingerprint(root: Path) -> dict[str, tuple[int, int, str]]:
    """Kind and mode, number of names, and content or target of everything below a folder, by its path there."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder) / name
            told = path.lstat()
            content = ""
            if stat.S_ISLNK(told.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(told.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(root))] = (told.st_mode, told.st_nlink, content)
    return found
