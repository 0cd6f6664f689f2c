"""Watches a machine all along: nothing partial may ever be told, or seen in the cache, as downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from tests.faults.machine import Machine

_BLOCK = 1 << 20


def content_is_right(path: Path) -> bool:
    """Whether a file in the cache is what its blob's name says: sha256 of LFS files, git's id of small ones."""
    name = blob_name(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256() if len(name) == 64 else hashlib.sha1(b"blob %d\0" % size)
        while piece := file.read(_BLOCK):
            digest.update(piece)
    return digest.hexdigest() == name


def blob_name(path: Path) -> str:
    """The name of the blob that a snapshot's link leads to. Not resolved: it may lie in another mount namespace."""
    return path.readlink().name if path.is_symlink() else path.name


class Witness:
    """A thread that looks again and again at `GET /v1/models`, the placements, and every snapshot folder.

    Each file is read and hashed when it is first seen, and again whenever inode, length or time of change differ.
    Use as a context manager; `problems` holds what it saw, and leaving asserts that this is nothing.
    """

    def __init__(self, machine: Machine, *, pause_s: float = 0.05) -> None:
        self._machine, self._pause_s = machine, pause_s
        self.problems: list[str] = []
        self.looks = 0
        """How often it could ask the service and look at the disk."""
        self.files_checked = 0
        self._good: set[tuple[str, int, int, int]] = set()
        self._bad: set[tuple[str, int, int, int]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.close()
        if kind is None:
            assert not self.problems, self.problems

    def close(self) -> None:
        """Look a last time, and end."""
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            self.look()
        self.look()

    def look(self) -> None:
        """One look: first what is told, then what is there."""
        told = self._told()
        for link in self._snapshot_files():
            self._check(link, "in the snapshot folder")
        for path, where in told:
            self._check(Path(path), where)
        self.looks += 1

    def _told(self) -> list[tuple[str, str]]:
        """Paths of what is said to be downloaded, each with who says so."""
        info = self._machine.info
        if info is None:
            return []
        try:
            models = _get(info.url, info.key, "/v0/models")
            usable = {each["id"] for each in _get(info.url, info.key, "/v1/models")["data"]}
        except (OSError, http.client.HTTPException, ValueError):
            return []  # it was killed, or is just starting
        told = []
        for model in models:
            if model["status"] == "deleting":
                continue
            name = model["name"]
            paths = [(path, f"placed, of {name}") for each in model["placements"] for path in each["paths"]]
            if model["status"] == "ready" and not paths:
                self._say(f"{name} is ready, but nowhere", model)
            if name in usable and not paths and model["status"] != "registered":
                # Asked for one after the other: only a model that never was whole can be wrong here.
                moving = [each["phase"] for each in model["transfers"]]
                if moving and model["status"] == "downloading" and not self._was_whole(model):
                    self._say(f"{name} is in /v1/models while it is {moving}", model)
            told += paths
        return told

    def _was_whole(self, model: dict[str, Any]) -> bool:
        """It became whole between the two questions."""
        info = self._machine.info
        if info is None:
            return True
        try:
            now = {each["name"]: each for each in _get(info.url, info.key, "/v0/models")}
        except (OSError, http.client.HTTPException, ValueError):
            return True
        return bool(now.get(model["name"], {}).get("placements"))

    def _snapshot_files(self) -> list[Path]:
        found: list[Path] = []
        for snapshots in self._machine.cache.glob("models--*/snapshots"):
            for folder, _, names in os.walk(snapshots):
                found += [Path(folder) / name for name in names if not name.endswith(".modelhub.tmp")]
        return found

    def _check(self, path: Path, where: str) -> None:
        # What is gone again is no partial file: it was deleted, or put into the trash, since we were told of it.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            at = path.stat()
            key = (blob_name(path), at.st_ino, at.st_size, at.st_mtime_ns)
            if key in self._good or key in self._bad:
                return
            self.files_checked += 1
            if content_is_right(path):
                self._good.add(key)
            elif path.exists() and path.stat().st_ino == at.st_ino:
                self._bad.add(key)
                self._say(f"{path} ({at.st_size} bytes) is visible {where}, but is not what its name says")

    def _say(self, what: str, told: object = "") -> None:
        if not any(each.startswith(what) for each in self.problems):
            self.problems.append(f"{what} at {time.monotonic():.3f} {told}".rstrip())


def _get(url: str, key: str, path: str) -> Any:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(answer.status)
        return json.loads(answer.read())
    finally:
        connection.close()
