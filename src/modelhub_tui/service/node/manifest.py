"""What a router says, checked: the list of models to hold, and the files of one of them.

Everything in here is hostile until it has been read by this module: a path that leaves its folder, a size that is no
number, a URL that points anywhere but at the hub. Sources: docs/wire.md, and the upstream router's `/v0` answers, which
name neither repo nor size.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from modelhub_tui import identifiers
from modelhub_tui.domain import MAX_MODEL_FILES
from modelhub_tui.hub_refs import HUB_HOSTS
from modelhub_tui.identifiers import (
    BadIdentifier,
    is_blob_id,
    is_blob_name,
    is_checksum,
    is_commit,
    is_model_name,
    is_sha256,
    repo_id,
    safe_repo_path,
)
from modelhub_tui.service.node import faults
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

_SMALL_BYTES = 16 * 1024 * 1024
_ID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One model a router wants us to hold."""

    name: str
    fingerprint: str
    """Changes when the files behind the name may have changed."""
    attempt: int = 0
    """Grows when a person asks for another try."""
    paused: bool = False
    """A person wants its transfer held."""
    queue: float | None = None
    """Place in the order of transfers; None from a router that has none."""
    registration: str | None = None
    """What an order to remove it would name; None from a router that gives no such orders."""


@dataclass(frozen=True, slots=True)
class Removal:
    """An order to take a model's files off the disk."""

    order: str
    """Of this order, and of no other: what we confirm."""
    registration: str
    name: str
    keep: bool
    """They go to the trash; else they are freed, from there as well."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model: where it is on the hub, and what is known of its content."""

    repo: str
    revision: str
    path: str
    size: int | None = None
    etag: str | None = None
    """Name of the blob on disk. Where a checksum is known it is that: the sha256 (64 hex) or git blob sha1 (40 hex) of
    the registration, else of the first ETag that is one; whatever the hub says later. Else a name that is none."""
    priority: int = 0
    commit: str | None = None
    """Full commit; None while `revision` is a branch nobody has resolved yet."""
    done: bool = False
    """Whole on disk and, where there is a checksum, seen to be what it names."""
    fetched: bool = False
    """We brought it; False for a file that was in the cache before us."""
    by_etag: bool = False
    """The registration told no checksum: that in `etag` is from the ETag of the file's first answer."""

    @property
    def digest(self) -> str | None:
        """What the content is compared with; None: nobody told a checksum, and the file cannot be verified."""
        return self.etag if is_checksum(self.etag) else None

    def as_json(self) -> dict[str, Any]:
        """For the record. `from_json` reads it back."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> File:
        """Read what `as_json` gave. Words that become paths are matched again: older versions let more of them in.

        Raises:
            ValueError, TypeError: It makes no sense.
        """
        made = cls(**{name: raw[name] for name in cls.__slots__ if name in raw})
        repo_id(made.repo), safe_repo_path(made.path), identifiers.revision(made.revision)
        if not (made.commit is None or is_commit(made.commit)) or not (made.etag is None or is_blob_name(made.etag)):
            raise BadIdentifier("neither a commit nor a checksum")
        return made


def unverifiable_name(commit: str, path: str) -> str:
    """A blob's name where no checksum is known. One for each file: an ETag that is none may be the same for many."""
    return f"unverified-{hashlib.sha256(f'{commit}/{path}'.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A router's list of the models to hold."""

    wanted: dict[str, Wanted]
    """By name."""
    unread: frozenset[str] = frozenset()
    """Names that are listed with something that cannot be read: such a model is neither fetched nor let go."""
    doubtful: bool = False
    """Something is listed without a name: it may stand for any model that is not listed otherwise."""
    removals: dict[str, Removal] | None = None
    """What is to be removed, by registration. None from a router that gives no orders: what it has removed can only be
    guessed from what it lists no longer."""

    def may_list(self, name: str) -> bool:
        """Whether the router may have this model; one that it may have is not taken for removed."""
        return self.doubtful or self.names(name)

    def names(self, name: str) -> bool:
        """Whether the router lists it, readably or not."""
        return name in self.wanted or name in self.unread


def read_list(raw: object, *, orders: bool = False) -> Listed:
    """The models to hold. One that cannot be read does no harm to the others, and is not taken for removed.

    Args:
        orders: The router lists what is to be removed, too.

    Raises:
        ValueError: Not a list of models at all. (An answer like that must never be taken for an empty list.)
    """
    if isinstance(raw, dict) and isinstance(raw.get("data"), list):
        raw = raw["data"]
    if not isinstance(raw, list):
        raise ValueError("the answer is not a list of models")
    wanted: dict[str, Wanted] = {}
    unread: set[str] = set()
    removals: dict[str, Removal] = {}
    doubtful = False
    for each in raw:
        name = (each.get("name") or each.get("id")) if isinstance(each, dict) else None
        if not isinstance(name, str) or not name:
            doubtful = True
        elif not is_model_name(name):
            continue  # none of ours: no model that we hold has such a name
        elif each.get("status") == "deleting" and each.get("registered") is False:
            removal = _removal(name, each)
            if removal is not None:
                removals[removal.registration] = removal
        elif not _is_readable(each):
            unread.add(name)
        # An admin key is shown supported models too; those are not for us, nor are those on their way out.
        elif each.get("registered") is not False and each.get("status") not in ("available", "deleting"):
            wanted[name] = _wanted(name, each)
    wanted = {name: one for name, one in wanted.items() if name not in unread}
    return Listed(wanted, frozenset(unread), doubtful, removals if orders else None)


def _is_readable(raw: dict[str, Any]) -> bool:
    """Whether all that decides about a model is what it should be."""
    texts = (raw.get(key) for key in ("status", "repo", "filename", "revision"))
    flags = (raw.get(key) for key in ("registered", "paused"))
    return (
        all(each is None or isinstance(each, str) for each in texts)
        and all(each is None or isinstance(each, bool) for each in flags)
        and raw.get("unusable") in (None, False)
    )


def _removal(name: str, raw: dict[str, Any]) -> Removal | None:
    """An order, or None: what is not said in full is not carried out."""
    order, registration, keep = raw.get("order"), raw.get("registration"), raw.get("keep")
    if not (_is_id(order) and _is_id(registration) and isinstance(keep, bool)):
        return None
    return Removal(order, registration, name, keep)


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _ID.match(value) is not None


def _wanted(name: str, raw: dict[str, Any]) -> Wanted:
    attempt, place = raw.get("attempt"), raw.get("queue_position")
    return Wanted(
        name,
        "|".join(raw.get(key) or "" for key in ("repo", "filename", "revision"))[:1000],
        attempt if type(attempt) is int and 0 <= attempt < 2**53 else 0,
        paused=raw.get("paused") is True,
        queue=float(place) if type(place) is int and 0 <= place < 2**53 else None,
        registration=told if _is_id(told := raw.get("registration")) else None,
    )


def read_manifest(raw: object, endpoint: str) -> tuple[File, ...]:
    """The files of one model, in the router's order.

    Raises:
        Fault: `unsupported`: something in it cannot be trusted or understood.
    """
    files = raw.get("files") if isinstance(raw, dict) else None
    if not isinstance(files, list) or not files or len(files) > MAX_MODEL_FILES:
        raise faults.bad_manifest("it lists no files" if not files else "it is not a list, or far too long")
    out: dict[tuple[str, str, str], File] = {}
    for each in files:
        if not isinstance(each, dict):
            raise faults.bad_manifest("an entry is not an object")
        file = _file(each, endpoint)
        out.setdefault((file.repo, file.revision, file.path), file)
    for repo, revision, path in out:
        for end in (at for at, letter in enumerate(path) if letter == "/"):
            if (repo, revision, path[:end]) in out:
                raise faults.bad_manifest(f"{clean(path[:end], 80)} is a file and a folder in it")
    return tuple(out.values())


def fetch_order(files: tuple[File, ...]) -> list[int]:
    """Indexes of `files`: high priority first, then small files, then shards by name."""
    return sorted(
        range(len(files)),
        key=lambda i: (-files[i].priority, (files[i].size or 0) >= _SMALL_BYTES, files[i].path, i),
    )


def _file(raw: dict[str, Any], endpoint: str) -> File:
    repo, revision, path = raw.get("repo"), raw.get("revision"), raw.get("path")
    if not (isinstance(repo, str) and isinstance(path, str)):
        repo, revision, path = _from_url(raw.get("url"), endpoint)
    revision = revision if isinstance(revision, str) and revision else "main"
    try:
        repo, path, revision = repo_id(repo), safe_repo_path(path), identifiers.revision(revision)
    except BadIdentifier as error:
        raise faults.bad_manifest(str(error)) from error
    size = raw.get("size")
    if size is not None and (type(size) is not int or not 0 <= size < 2**53):
        raise faults.bad_manifest(f"the size of {clean(path, 80)} is no size")
    etag = None
    for key, fits in (("sha256", is_sha256), ("blob_id", is_blob_id)):
        value = raw.get(key)
        if value is None or etag:
            continue
        if not isinstance(value, str) or not fits(value.lower()):
            raise faults.bad_manifest(f"the {key} of {clean(path, 80)} is no checksum")
        etag = value.lower()
    priority = raw.get("priority")
    return File(
        repo=repo,
        revision=revision,
        path=path,
        size=size,
        etag=etag,
        priority=priority if type(priority) is int else 0,
        commit=revision if is_commit(revision) else None,
    )


def _from_url(url: object, endpoint: str) -> tuple[str, str, str]:
    """Repo, revision and path of an upstream router's file URL. Only the configured hub's, or HuggingFace's own."""
    said = urlsplit(url) if isinstance(url, str) else None
    if said is None or said.scheme not in ("http", "https") or said.username or said.password:
        raise faults.bad_manifest("a file has neither repo and path nor a usable URL")
    base = urlsplit(endpoint)
    prefix = base.path.rstrip("/") if said.netloc.lower() == base.netloc.lower() else ""
    if said.netloc.lower() not in HUB_HOSTS | {base.netloc.lower()} or not said.path.startswith(prefix + "/"):
        raise faults.bad_manifest(f"{clean(said.netloc, 80)} is not the configured hub ({base.netloc})")
    parts = said.path[len(prefix) + 1 :].split("/")
    if len(parts) < 5 or parts[2] != "resolve":
        raise faults.bad_manifest(f"{clean(said.path, 80)} is no file URL")
    return (
        "/".join(unquote(part) for part in parts[:2]),
        unquote(parts[3]),
        "/".join(unquote(part) for part in parts[4:]),
    )
