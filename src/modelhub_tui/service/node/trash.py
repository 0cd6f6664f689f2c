"""Deleted models, kept for a while so that the deletion can be taken back.

A deleted model's blobs stay where they are, under another name: `blobs/<etag>` becomes `blobs/<etag>.modelhub.trash`.
That is the same folder, hence the same file system: one rename, whole or not at all, at any size. Their links go, so no
engine and no scan of the cache sees the model any more. What removal would not free is not touched here either.

Every step is written down before it is taken (`Record.put_trash`) and can be taken again, so a killed process goes on
where it was. Everything here blocks and may be called from any thread; nothing asks the network.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Any

from modelhub_tui.domain import Limits
from modelhub_tui.identifiers import BadIdentifier, commit, is_blob_name, repo_id, revision
from modelhub_tui.service.node import disk_use
from modelhub_tui.service.node.abreast import abreast
from modelhub_tui.service.node.cache import TRASH_SUFFIX, Cache, drop_file, repo_of
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.record import Record
from modelhub_tui.service.node.removal import put_aside, put_aside_plan, refs_of, remove_files, tidy
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

_STRAY = "?"
"""Begins the names of what somebody left behind without a word in the record."""
_TAG = re.compile(r"[0-9a-f]{12}\Z")
Blob = tuple[str, str]
"""(repo, etag)"""


class Stage(StrEnum):
    """How far a model is on its way through the trash."""

    MOVING = "moving"
    KEPT = "kept"
    FREEING = "freeing"


@dataclass(frozen=True, slots=True)
class Binned:
    """One deleted model. Always what the record says."""

    name: str
    store: str | None
    files: tuple[File, ...]
    blobs: tuple[Blob, ...]
    """What is kept of it under another name."""
    refs: tuple[tuple[str, str, str], ...] = ()
    """(repo, ref, commit): branches that pointed at it."""
    at: float = 0.0
    stage: Stage = Stage.KEPT
    registration: str | None = None
    """What an order to free it names."""

    def as_json(self) -> dict[str, Any]:
        """For the record. `from_json` reads it back."""
        return {
            "files": [file.as_json() for file in self.files],
            "blobs": self.blobs,
            "refs": self.refs,
            "at": self.at,
            "stage": self.stage,
            "registration": self.registration,
        }

    @classmethod
    def from_json(cls, name: str, store: str | None, body: dict[str, Any]) -> Binned:
        """Read what `as_json` gave, and match again what becomes a path.

        Raises:
            ValueError, TypeError, KeyError: It makes no sense.
        """
        return cls(
            name=name,
            store=store,
            files=tuple(File.from_json(each) for each in body["files"]),
            blobs=tuple((repo_id(repo), _blob_name(etag)) for repo, etag in body["blobs"]),
            refs=tuple((repo_id(repo), revision(ref), commit(at)) for repo, ref, at in body["refs"]),
            at=float(body["at"]),
            stage=Stage(body["stage"]),
            registration=told if isinstance(told := body.get("registration"), str) else None,
        )


@dataclass(frozen=True, slots=True)
class Heap:
    """What a heartbeat tells of the trash."""

    names: tuple[tuple[str, str | None, int], ...] = ()
    """(model, the store that listed it, bytes that freeing it gives)"""
    bytes: int = 0
    """What emptying all of it gives; shared blobs counted once."""
    whole: bool = True
    """Nothing is in it of which nobody knows what it was: then what it has of a model cannot be told."""
    registrations: frozenset[str] = frozenset()
    """Of all models in it, whatever their stage."""
    reclaimable: int = 0
    """What `make_room()` can free of that: not what is being moved, nor what the disk did not let go of before."""


class Trash:
    """The trash of one cache folder.

    Args:
        clock: Wall clock, seconds since the epoch: ages over restarts.
        monotonic: Ages while running: a wall clock that jumps by an hour empties no trash.
    """

    def __init__(
        self,
        cache: Cache,
        record: Record,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache, self._record = cache, record
        self._monotonic = monotonic
        self._wall_at_start, self._started = clock(), monotonic()
        self._lock = threading.RLock()
        self.limits = Limits()
        self._ready = False
        """Whether this may wait: not while the node starts, on its event loop."""
        self.heap = Heap()
        """Replaced as a whole: read it without waiting for what is going on."""
        self._recovered = False
        self._items: dict[str, Binned] = {}
        for name, store, body in record.trash_rows():
            try:
                self._items[name] = Binned.from_json(name, store, body)
            except (ValueError, TypeError, KeyError):
                log.warning("the record of %r in the trash makes no sense; left out", name)
        self._measure()
        self._ready = True

    # -- into the trash -------------------------------------------------------------------------------------------

    def discard(
        self,
        name: str,
        store: str | None,
        files: tuple[File, ...],
        keep: Collection[File] = (),
        registration: str | None = None,
    ) -> None:
        """Take a whole model off the disk, so that it can be had back while the limits allow it.

        Args:
            files: What the model consists of.
            keep: Files of all other models we hold or fetch; what they need stays.

        Raises:
            OSError: Something could not be moved or removed; calling again goes on where it ended.
        """
        with self._lock, self._cache.claims.alone():
            before = self._items.get(name)
            keep = (*keep, *self._cache.claims.others(files))
            if not self._wanted_at_all(files) or not self._keep(name, store, files, keep, registration):
                remove_files(self._cache, files, keep)
                if before is not None:
                    self._free(before)
            self.maintain()

    def _keep(
        self,
        name: str,
        store: str | None,
        files: tuple[File, ...],
        keep: Collection[File],
        registration: str | None,
    ) -> bool:
        """Move a model to the trash; False, and nothing done, when that cannot be written down."""
        links, blobs = put_aside_plan(self._cache, files, keep)
        refs = refs_of(self._cache, files)
        row = Binned(name, store, files, blobs, refs, self._now(), Stage.MOVING, registration)
        before = self._items.get(name)
        if before is not None:
            # Deleted before and not yet forgotten, or begun and killed half way: what it keeps counts on.
            row = replace(
                row,
                files=tuple(dict.fromkeys([*files, *before.files])),
                blobs=tuple(dict.fromkeys([*before.blobs, *blobs])),
                refs=tuple(dict.fromkeys([*refs, *before.refs])),
            )
        try:
            self._record.put_trash(name, store, row.as_json())
        except sqlite3.Error as error:
            log.warning("%s is removed for good: the trash cannot be written down (%s)", name, error)
            return False
        self._remember(row)
        put_aside(self._cache, links, row.blobs)
        remove_files(self._cache, files, keep)
        there = tuple(each for each in row.blobs if os.path.lexists(self._cache.trashed(*each)))
        self._put(replace(row, blobs=there, stage=Stage.KEPT))
        return True

    def _wanted_at_all(self, files: Iterable[File]) -> bool:
        size = sum({(file.repo, file.etag): file.size or 0 for file in files}.values())
        return self.limits.trash_seconds > 0 and size <= self.limits.trash_bytes

    @property
    def holds_any(self) -> bool:
        """Whether there is anything that could be brought back. Does not wait."""
        return bool(self._items)

    @property
    def trouble(self) -> str:
        """As `Record.trouble`."""
        return self._record.trouble

    # -- and back -------------------------------------------------------------------------------------------------

    def bring_back(self, files: Iterable[File]) -> tuple[File, ...]:
        """Put back whatever the trash has of these files, whichever model it was deleted with.

        Returns:
            All files; those that came back as they were before, checked (`done`) where they had been. Write that down,
            then call `settle()`.

        Raises:
            OSError: Something could not be moved; calling again goes on where it ended.
        """
        with self._lock:
            known = {(each.repo, each.etag): each for row in self._items.values() for each in row.files}
            held = {blob for row in self._items.values() for blob in row.blobs}
            # Where nobody tells a checksum, the file's place does: what is at a commit does not change.
            placed = {
                (each.repo, each.commit or "", each.path): each
                for row in self._items.values()
                for each in row.files
                if (each.repo, each.etag) in held
            }
            out, lifted = [], []
            for file in files:
                before = placed.get((file.repo, file.commit or "", file.path))
                if file.commit and file.etag is None and before is not None and file.size in (None, before.size):
                    file = replace(file, etag=before.etag, by_etag=before.by_etag, size=before.size)
                if file.etag and (file.repo, file.etag) in held and self._lift(file):
                    before = known.get((file.repo, file.etag), file)
                    file = replace(file, done=before.done, fetched=before.fetched)
                    lifted.append(file)
                out.append(file)
            self._cache.sync_names(lifted)
            self._point_refs(out)
            return tuple(out)

    def _lift(self, file: File) -> bool:
        """Rename one blob back and link it; False when the trash does not have it, or not whole."""
        if not file.etag or not file.commit or self._cache.is_whole(file):
            return False
        trashed, blob = self._cache.trashed(file.repo, file.etag), self._cache.blob(file.repo, file.etag)
        try:
            told = trashed.lstat()
            if not stat.S_ISREG(told.st_mode) or told.st_size != file.size:
                return False
        except FileNotFoundError:
            return False
        self._cache.prepare(file.repo, file.commit)
        with self._cache.library_lock(file.repo, file.etag):
            trashed.replace(blob)
        self._cache.make_link(file, sync=False)
        return True

    def _point_refs(self, files: Iterable[File]) -> None:
        """Let the branches that pointed at these files' commits do so again, unless they have moved on."""
        commits = {(file.repo, file.commit) for file in files if file.done}
        for repo, ref, at in {each for row in self._items.values() for each in row.refs}:
            if (repo, at) not in commits:
                continue
            *folders, name = ref.split("/")
            with contextlib.suppress(OSError), self._cache.home(repo) as home:
                home.enter("snapshots", at).close()
                with home.enter("refs", *folders, make=True) as refs:
                    moved_on = refs.lstat(name) is not None
                if not moved_on:
                    self._cache.write_ref(repo, ref, at)

    def settle(self, name: str) -> None:
        """Forget what has been brought back; what is left of the model `name` itself is freed."""
        with self._lock:
            for row in [*self._items.values()]:
                if row.name == name:
                    self._free(row)
                else:
                    self._settle_row(row)

    # -- for good -------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """At start: finish what was begun, and take in what somebody left behind without a word in the record."""
        with self._lock:
            self._cache.claims.hold_trash(bool(self._items))
            for row in [*self._items.values()]:
                if row.stage is Stage.FREEING:
                    self._free(row)
                # MOVING: the model itself is still recorded as one to remove; `discard()` is called for it again.
            strays = self._strays()
            for row in [*self._items.values()]:
                if row.stage is Stage.KEPT:
                    self._settle_row(row)
            for repo, etags in strays.items():
                log.info("%s: %d deleted files that nobody remembers; kept for a while", repo, len(etags))
                blobs = tuple((repo, etag) for etag in etags)
                self._put(Binned(f"{_STRAY}{repo}", None, (), blobs, (), self._now()))
            self._recovered = True
            self._measure()
            self.maintain()

    def _strays(self) -> dict[str, list[str]]:
        """Take over deleted files that no record speaks of: of ours, of a service that is no more, of older versions.

        Returns:
            Their etags, by repo. They have the names that our own trash has.
        """
        mine = {blob for row in self._items.values() for blob in row.blobs}
        strays: dict[str, list[str]] = {}
        with self._cache.claims.alone():
            for path in self._cache.root.glob(f"models--*/blobs/*{TRASH_SUFFIX}"):
                repo, stem = repo_of(path.parent.parent.name), path.name.removesuffix(TRASH_SUFFIX)
                etag, _, tag = stem.rpartition(".")
                if not etag or not _TAG.match(tag):
                    etag, tag = stem, ""  # as older versions named it
                if repo is None or not is_blob_name(etag) or path.is_symlink():
                    continue
                ours = self._cache.trashed(repo, etag)
                if path != ours:
                    if (tag and self._cache.claims.is_alive(tag)) or not self._cache.claims.owner:
                        continue
                    path.replace(ours)
                if (repo, etag) not in mine:
                    strays.setdefault(repo, []).append(etag)
        return {repo: [*dict.fromkeys(etags)] for repo, etags in strays.items()}

    def maintain(self) -> None:
        """Free what is too old or too much, the oldest first, and what could not be freed before."""
        with self._lock:
            for row in [*self._items.values()]:
                if row.stage is Stage.FREEING or self._now() - row.at >= self.limits.trash_seconds:
                    self._free(row)
                else:
                    self._settle_row(row)  # somebody may have emptied the folder by hand
            self.make_room(self.heap.bytes - self.limits.trash_bytes)

    def make_room(self, needed_bytes: int) -> int:
        """Free the oldest until `needed_bytes` are won, or nothing is left; returns what was won, in bytes."""
        won = 0
        with self._lock:
            for row in sorted(self._items.values(), key=lambda each: each.at):
                if won >= needed_bytes:
                    break
                if row.stage is not Stage.MOVING:
                    won += self._free(row)
        return won

    def free(self, names: Collection[str]) -> int:
        """Free these models for good; returns what was won, in bytes."""
        with self._lock:
            return sum(self._free(row) for row in [*self._items.values()] if row.name in names)

    def ordered(self, registrations: Collection[str]) -> list[str]:
        """Names of the models of these registrations. Does not wait."""
        rows = [row for row in [*self._items.values()] if row.stage is not Stage.MOVING]
        return [row.name for row in rows if row.registration in registrations]

    def rows(self, names: Collection[str]) -> list[Binned]:
        """What is known of these models, of those that can be put back. Does not wait."""
        return [row for row in [*self._items.values()] if row.stage is Stage.KEPT and row.name in names]

    def _free(self, row: Binned) -> int:
        """Remove one model's blobs for good. Trouble with the disk is put off to the next `maintain()`."""
        others = {blob for each in self._items.values() if each is not row for blob in each.blobs}
        self._put(replace(row, stage=Stage.FREEING))
        sizes: list[int] = []

        def drop(blob: Blob) -> None:
            path = self._cache.trashed(*blob)
            size = disk_use.freed_by_removing(path)
            drop_file(path)
            sizes.append(size)

        try:
            with self._cache.claims.alone():
                abreast(drop, [blob for blob in row.blobs if blob not in others])
                for repo in {repo for repo, _ in row.blobs}:
                    tidy(self._cache, repo)
        except OSError as error:
            log.warning("%s cannot be freed yet: %s", row.name, error)
            self._measure()
            return sum(sizes)
        self._drop(row.name)
        if won := sum(sizes):
            log.info("%s is gone for good: %s freed", row.name, human_size(won))
        return won

    # -- bookkeeping ----------------------------------------------------------------------------------------------

    def _settle_row(self, row: Binned) -> None:
        """Write what is really there; a model whose kept blobs are all gone is forgotten."""
        there = tuple(blob for blob in row.blobs if os.path.lexists(self._cache.trashed(*blob)))
        if row.stage is Stage.MOVING or there == row.blobs:
            return
        if there:
            self._put(replace(row, blobs=there))
        else:
            log.warning("what was kept of %s is gone from the disk; bringing it back fetches it again", row.name)
            self._drop(row.name)

    def _put(self, row: Binned) -> None:
        """Change a row. One that cannot be written down now tells less than the disk, and the next start asks both."""
        try:
            self._record.put_trash(row.name, row.store, row.as_json())
        except sqlite3.Error as error:
            log.warning("the trash cannot be written down: %s", error)
        self._remember(row)

    def _remember(self, row: Binned) -> None:
        self._items[row.name] = row
        self._measure()

    def _drop(self, name: str) -> None:
        try:
            self._record.drop_trash(name)
        except sqlite3.Error as error:
            log.warning("the trash cannot be written down: %s", error)
        self._items.pop(name, None)
        self._measure()

    def _measure(self) -> None:
        if self._ready:
            with contextlib.suppress(BlockingIOError):
                self._cache.claims.hold_trash(bool(self._items))
        kept = [row for row in self._items.values() if row.stage is Stage.KEPT]
        sizes = {
            blob: disk_use.freed_by_removing(self._cache.trashed(*blob))
            for row in self._items.values()
            for blob in row.blobs
        }
        known = (row for row in kept if not row.name.startswith(_STRAY))
        names = tuple((row.name, row.store, sum(sizes[blob] for blob in row.blobs)) for row in known)
        stuck = {blob for row in self._items.values() if row.stage is not Stage.KEPT for blob in row.blobs}
        self.heap = Heap(
            names,
            sum(sizes.values()),
            whole=self._recovered and not any(row.name.startswith(_STRAY) for row in self._items.values()),
            registrations=frozenset(row.registration for row in self._items.values() if row.registration),
            reclaimable=sum(size for blob, size in sizes.items() if blob not in stuck),
        )

    def _now(self) -> float:
        return self._wall_at_start + self._monotonic() - self._started


def _blob_name(text: object) -> str:
    if not is_blob_name(text):
        raise BadIdentifier("that is no name of a blob")
    assert isinstance(text, str)
    return text
