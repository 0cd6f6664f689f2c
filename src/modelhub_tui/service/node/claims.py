"""What each service on this machine needs of a cache that they share: a small file each, beside the library's locks.

Two state folders, or two users, may have the same HuggingFace cache. Each service writes down which files belong to its
models, in `.locks/<owner>.modelhub.claim`; no scan of the library looks in there. Whoever removes anything asks the
others' claims first, and both claiming and removing happen under one lock: `flock` on the cache folder itself.

A claim holds while its service is stopped, as its models are still registered. It is void when the state folder it
speaks of is gone (where we can look), or when nobody has renewed it for a month. What we may not read, or cannot
understand, is somebody's claim to everything. A cache where nothing can be locked or written is used without.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from modelhub_tui import locks
from modelhub_tui.service.node.folders import Folder
from modelhub_tui.service.node.manifest import File
from modelhub_tui.small_files import NotAPlainFile, read_small
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

CLAIM_SUFFIX = ".modelhub.claim"
EXPIRES_S = 30 * 86400.0
RENEW_S = 3600.0
_LOCK_WAIT_S = 5.0
_LOCK_POLL_S = 0.02
_LIMIT_BYTES = 64 * 1024 * 1024
_OWNER = re.compile(r"[0-9a-f]{32}\Z")
_TRASH = "\0trash"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who claims: one for each state folder, over restarts and lost databases."""

    id: str
    path: Path
    """The file that says so."""

    @property
    def tag(self) -> str:
        """Short, for names of files."""
        return self.id[:12]

    @classmethod
    def of(cls, folder: Path) -> Owner:
        """The owner that a node's folder stands for, made when there is none yet.

        Raises:
            OSError: It is there and cannot be read.
        """
        path = folder / "owner"
        said = _read_owner(path)
        if said is None:
            said = uuid.uuid4().hex
            temporary = path.with_name("owner.tmp")
            try:
                temporary.write_text(said)
                temporary.chmod(0o600)
                temporary.replace(path)
            except OSError as error:
                log.warning("%s cannot be written, so what we claim is void: %s", path, error)
        return cls(said, path)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What another service's file says."""

    at: str
    where: str
    files: dict[str, tuple[File, ...]]
    """By repo."""


class Claims:
    """The claims on one cache: ours, written, and the others', read. Blocks; from any thread.

    Args:
        owner: None: nobody else is asked, and nothing is written. A node learns of its own as it starts.
        clock: Wall clock, as the file system's times are.
    """

    def __init__(self, root: Path, owner: Owner | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._root, self.owner, self._clock = root, owner, clock
        self._turn = threading.RLock()
        self._depth = 0
        self._ours: dict[str, frozenset[tuple[str, str | None, str, str | None]]] = {}
        """(repo, commit, path, etag) by model"""
        self._written: str | None = None
        self._read: dict[str, tuple[tuple[int, int, int], _Claim | None]] = {}
        self._complained: set[str] = set()

    # -- ours

    def hold(self, model: str, files: Iterable[File]) -> None:
        """Claim a model's files, and no others for it; before anything of it is looked at or written.

        Raises:
            BlockingIOError: Somebody is removing files just now, and takes long.
        """
        self.remember(model, files)
        self.write()

    def remember(self, model: str, files: Iterable[File]) -> None:
        """As `hold()`, but nothing is written before the next `write()`. Does not wait."""
        self._ours[model] = frozenset((each.repo, each.commit, each.path, each.etag) for each in files)

    def forget(self, model: str) -> None:
        """As `release()`, but nothing is written before the next `write()`. Does not wait."""
        self._ours.pop(model, None)

    def release(self, model: str) -> None:
        """Claim a model's files no longer. Raises as `hold()`."""
        self.forget(model)
        self.write()

    def hold_trash(self, any_there: bool) -> None:
        """Say whether there is trash of ours: it is taken for nobody's without a claim."""
        if any_there != (_TRASH in self._ours):
            if any_there:
                self._ours[_TRASH] = frozenset()
            else:
                self._ours.pop(_TRASH)
            self.write()

    def write(self) -> None:
        """Bring our file up to date, and renew it now and then. Trouble with the disk is put off to the next time.

        Raises:
            BlockingIOError: Somebody is removing files just now, and takes long.
        """
        if self.owner is None:
            return
        with self.alone():
            text = self._text(self.owner)
            try:
                if text is not None:
                    self._root.mkdir(parents=True, exist_ok=True)
                with Folder.at(self._root) as root, root.enter(".locks", make=text is not None) as folder:
                    self._store(folder, self.owner.id + CLAIM_SUFFIX, text)
                self._written = text
            except OSError as error:
                if text is not None:
                    self._complain("write", error)

    def _store(self, folder: Folder, name: str, text: str | None) -> None:
        told = folder.lstat(name)
        if text is None:
            folder.unlink(name)
        elif told is None or text != self._written:
            temporary = f"{name}.tmp"
            folder.unlink(temporary)
            try:
                folder.write(temporary, text.encode(), mode=0o644)
                folder.rename(temporary, folder, name)
            except OSError:
                folder.unlink(temporary)
                raise
        elif abs(self._clock() - told.st_mtime) > RENEW_S:
            os.utime(name, dir_fd=folder.fd, follow_symlinks=False)

    def _text(self, owner: Owner) -> str | None:
        ours = self._ours.copy()
        if not ours:
            return None
        files: dict[str, list[list[str | None]]] = {}
        # Two models may share a file.
        for repo, commit, path, etag in sorted(
            frozenset[tuple[str, str | None, str, str | None]]().union(*ours.values()), key=str
        ):
            files.setdefault(repo, []).append([commit, path, etag])
        return json.dumps({"at": os.fspath(owner.path), "where": _where(), "files": files})

    # -- the others'

    def others(self, files: Collection[File]) -> tuple[File, ...]:
        """What other services need of the repos of these files; to be kept as if it belonged to models of ours.

        Where nobody can say, it is these files themselves.
        """
        found: list[File] = []
        for claim in self._claims():
            if claim is None:
                found.extend(files)
            else:
                for repo in {each.repo for each in files}:
                    found.extend(claim.files.get(repo, ()))
        return tuple(found)

    def others_in(self, repo: str) -> tuple[bool, frozenset[str]]:
        """Whether another service needs anything in a repo, and the commits that it speaks of, if it says."""
        claims = self._claims()
        files = [each for claim in claims if claim is not None for each in claim.files.get(repo, ())]
        return bool(files) or None in claims, frozenset(each.commit for each in files if each.commit)

    def shared_bytes(self, files: Collection[File]) -> int:
        """Bytes of these files that would stay if we removed them, as another service needs them."""
        theirs = {(each.repo, each.etag) for each in self.others(files)}
        return sum(
            {(each.repo, each.etag): each.size or 0 for each in files if (each.repo, each.etag) in theirs}.values()
        )

    def is_alive(self, tag: str) -> bool:
        """Whether this is the tag of another service that has a claim."""
        return any(name.startswith(tag) for name, _ in self._others_files())

    def _claims(self) -> list[_Claim | None]:
        """The others' claims that hold; None for one that nobody can read."""
        return [claim for _, claim in self._others_files()]

    def _others_files(self) -> list[tuple[str, _Claim | None]]:
        if self.owner is None:
            return []
        found: list[tuple[str, _Claim | None]] = []
        with self._turn:
            try:
                with Folder.at(self._root) as root, root.enter(".locks") as folder:
                    for name in folder.names()[1]:
                        owner = name.removesuffix(CLAIM_SUFFIX)
                        if owner != name and _OWNER.match(owner) and owner != self.owner.id:
                            found.extend((owner, claim) for claim in self._one(folder, name, owner))
            except FileNotFoundError:
                pass
            except OSError as error:
                self._complain("look for", error)
                found.append(("", None))  # there may be one: what is not known to be free stays
        return found

    def _one(self, folder: Folder, name: str, owner: str) -> Iterator[_Claim | None]:
        """Another's claim, if it holds."""
        told = folder.lstat(name)
        if told is None:
            return
        stamp = (told.st_mtime_ns, told.st_size, told.st_ino)
        if name not in self._read or self._read[name][0] != stamp:
            try:
                claim = _parse(folder.read(name, _LIMIT_BYTES))
            except FileNotFoundError:
                return
            except NotAPlainFile:
                claim = None
            except (OSError, ValueError) as error:
                self._complain(f"read {name}", error)
                claim = None
            self._read[name] = (stamp, claim)
        claim = self._read[name][1]
        if claim is not None and claim.where == _where() and _is_gone(Path(claim.at), owner):
            return
        if self._clock() - told.st_mtime < EXPIRES_S:
            yield claim

    # -- the lock

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only service that claims or removes anything. May be entered again by the same thread.

        Raises:
            BlockingIOError: Another is at it, and takes long.
        """
        if self.owner is None:
            yield
            return
        with self._turn:
            if self._depth:
                yield
                return
            with self._locked():
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            try:
                fd = held.enter_context(Folder.at(self._root)).fd
            except OSError:
                fd = None  # no cache yet, or none to be read: nothing to be removed
            until = time.monotonic() + _LOCK_WAIT_S
            while fd is not None:
                try:
                    taken = locks.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    self._complain("lock", error)  # such as a network's, which locks no folders
                    break
                if taken is not False:
                    break
                if time.monotonic() > until:
                    why = "another modelhub service is removing files from this cache"
                    raise BlockingIOError(errno.EBUSY, why, os.fspath(self._root))
                time.sleep(_LOCK_POLL_S)
            yield

    def _complain(self, doing: str, error: Exception) -> None:
        """Once each: it would be said every minute."""
        if doing not in self._complained:
            self._complained.add(doing)
            log.warning("cannot %s the claims on %s: %s", doing, self._root, error)


def _read_owner(path: Path) -> str | None:
    """The id in an owner's file; None if there is none, or nothing that is one."""
    try:
        said = read_small(path, 100).decode()
    except (FileNotFoundError, NotADirectoryError, NotAPlainFile, ValueError):
        return None
    return said if _OWNER.match(said) else None


def _is_gone(path: Path, owner: str) -> bool:
    """Whether an owner's file says that there is no such service any more; False if nobody can look."""
    try:
        return _read_owner(path) != owner
    except OSError:
        return False


def _parse(raw: bytes) -> _Claim:
    """Raises ValueError: it makes no sense."""
    try:
        told = json.loads(raw)
        files = {
            str(repo): tuple(_file(repo, *each) for each in listed) for repo, listed in dict(told["files"]).items()
        }
        return _Claim(str(told["at"]), str(told["where"]), files)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no claim") from error


def _file(repo: str, commit: str | None, path: str, etag: str | None) -> File:
    """For comparison only: nothing of it becomes a path."""
    if not isinstance(path, str) or not all(each is None or isinstance(each, str) for each in (commit, etag)):
        raise ValueError("it is no file")
    return File(repo, commit or "", path, etag=etag, commit=commit)


def _where() -> str:
    """The same for processes to which a path means the same file; empty where nobody can say."""
    try:
        boot = read_small("/proc/sys/kernel/random/boot_id", 100).decode().strip()
        return f"{boot}/{os.stat('/proc/self/ns/mnt').st_ino}"  # noqa: PTH116
    except (OSError, ValueError):
        return ""
