"""What the router remembers: registered models and known nodes, as plain frozen values.

A record is read member by member: the database may have been written by another version, or edited by hand. What a
record is about, and what becomes a path, must have its form, or the record is refused; what only describes is cleaned.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any, Self

from pydantic import ValidationError

from modelhub_tui.domain import MAX_MODEL_FILES, Placement
from modelhub_tui.identifiers import (
    BadIdentifier,
    commit,
    is_blob_id,
    is_sha256,
    model_name,
    repo_id,
    safe_repo_path,
)
from modelhub_tui.service.router.bodies import END_OF_TIME_S, NodeBody
from modelhub_tui.untrusted import clean, clean_block, encodable
from modelhub_tui.values import dataclass

MAX_TEMPLATE = 200_000
_INT53 = 2**53 - 1
_IDENTITY = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
_MOST_WORDS = 100
_MOST_EARLIER = 20


class BadRecord(ValueError):
    """A stored record cannot be used; its text says why in a few words, safe to show."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of a registered model, pinned to a commit."""

    path: str
    repo: str
    revision: str
    """Full commit hash."""
    size: int | None = None
    sha256: str | None = None
    blob_id: str | None = None
    """Git's sha1 of the file; only for files that are not LFS objects, where `sha256` is unknown."""

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads back."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """Read one stored file.

        Raises:
            BadRecord: It is none.
        """
        if not isinstance(raw, dict):
            raise BadRecord("one of its files is no object")
        try:
            path, repo = safe_repo_path(raw.get("path")), repo_id(raw.get("repo"))
            revision = commit(raw.get("revision"))
        except BadIdentifier as error:
            raise BadRecord(str(error)) from error
        size, sha256, blob_id = raw.get("size"), raw.get("sha256"), raw.get("blob_id")
        if size is not None and not is_count(size):
            raise BadRecord(f"the size of {path} is no size")
        if not (sha256 is None or is_sha256(sha256)) or not (blob_id is None or is_blob_id(blob_id)):
            raise BadRecord(f"the checksum of {path} is none")
        return cls(path, repo, revision, size, sha256, blob_id)


@dataclass(frozen=True, slots=True)
class Registration:
    """One registered model."""

    name: str
    repo: str
    filename: str
    """The file a person would name: the GGUF, its first shard, or the index of a sharded safetensors model."""
    revision: str
    files: tuple[ManifestFile, ...]
    format: str
    title: str = ""
    description: str = ""
    size: int = 0
    required_memory: int = 0
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    quantization: str = ""
    parameter_count: str = ""
    context_length: int | None = None
    license: str = ""
    gated: bool = False
    chat_template: str | None = None
    catalog_id: str | None = None
    attempt: int = 1
    """Counts retries asked for by people."""
    registered_at: float = 0.0
    deleting: bool = False
    """Deregistered; kept until every node has removed its copy."""
    paused: bool = False
    """A person holds its transfer."""
    queue: float = 0.0
    """Place in the order in which nodes take models up; a smaller number goes first."""
    id: str = ""
    """Of this registration, and of no other: what a removal names. Registered again, a model gets another one."""
    earlier: tuple[str, ...] = ()
    """Of registrations of the same name, deleted before: a node that was away then has their files in its trash."""

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads back."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {**told, "files": [each.to_json() for each in self.files]}

    def after(self, before: Registration) -> Self:
        """This one, with what is known of the one that was deleted under the same name before it."""
        ids = dict.fromkeys(filter(None, (*before.earlier, before.id, *self.earlier)))
        return replace(self, earlier=tuple(ids)[-_MOST_EARLIER:])

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """Read a stored record; members of a newer version are ignored.

        Raises:
            BadRecord: It is no such record.
        """
        if not isinstance(raw, dict):
            raise BadRecord("it is no object")
        try:
            name, repo = model_name(raw.get("name")), repo_id(raw.get("repo"))
            filename, revision = safe_repo_path(raw.get("filename")), commit(raw.get("revision"))
        except BadIdentifier as error:
            raise BadRecord(str(error)) from error
        files = raw.get("files")
        if not isinstance(files, list | tuple) or not 0 < len(files) <= MAX_MODEL_FILES:
            raise BadRecord("its list of files is none, or is empty or too long")
        flags = {each: raw.get(each, False) for each in ("deleting", "paused", "gated")}
        if not all(isinstance(each, bool) for each in flags.values()):
            raise BadRecord("whether it is being deleted, held or gated is neither true nor false")
        attempt, queue = raw.get("attempt", 1), raw.get("queue", 0.0)
        if not is_count(attempt) or not _is_number(queue):
            raise BadRecord("its attempt or place in the queue is no number")
        template, entry = raw.get("chat_template"), raw.get("catalog_id")
        return cls(
            name,
            repo,
            filename,
            revision,
            tuple(map(ManifestFile.from_json, files)),
            format=_line(raw.get("format")),
            title=_line(raw.get("title")),
            description=clean_block(raw["description"]) if isinstance(raw.get("description"), str) else "",
            size=_count(raw.get("size")) or 0,
            required_memory=_count(raw.get("required_memory")) or 0,
            tags=_lines(raw.get("tags")),
            capabilities=_lines(raw.get("capabilities")),
            quantization=_line(raw.get("quantization")),
            parameter_count=_line(raw.get("parameter_count")),
            context_length=_count(raw.get("context_length")),
            license=_line(raw.get("license")),
            chat_template=encodable(template[:MAX_TEMPLATE]) if isinstance(template, str) else None,
            catalog_id=clean(entry, 100) if isinstance(entry, str) else None,
            attempt=attempt,
            registered_at=_moment(raw.get("registered_at")),
            queue=float(queue),
            id=raw["id"] if is_identity(raw.get("id")) else "",
            earlier=_identities(raw.get("earlier")),
            **flags,
        )


@dataclass(frozen=True, slots=True)
class Removal:
    """An order to nodes: take a registration's files off the disk. Kept until every node has carried it out."""

    order: str
    """Of this order, and of no other: what a node confirms."""
    registration: str
    name: str
    keep: bool
    """Its files go to the trash; else they are freed, from there as well."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What is kept of a node between two runs of the router."""

    id: str
    machine_name: str
    runtime_port: int
    token_hash: str
    approved: bool
    registered_at: float
    body: dict[str, Any]
    """The node's own description of itself, as validated."""
    supervised: bool = False
    last_seen: float = 0.0
    placements: tuple[tuple[str, Placement], ...] = ()
    """(model name, placement): kept, so that a restarted router does not forget what is on disk."""

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads back."""
        raw = asdict(self)
        raw["placements"] = [[name, asdict(placement)] for name, placement in self.placements]
        return raw

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """Read a stored record; members of a newer version are ignored, and a placement that is none is left out.

        Raises:
            BadRecord: It is no such record.
        """
        if not isinstance(raw, dict):
            raise BadRecord("it is no object")
        flags = (raw.get("approved"), raw.get("supervised", False))
        node_id, token_hash = raw.get("id"), raw.get("token_hash")
        if not isinstance(node_id, str) or not node_id or clean(node_id, 64) != node_id:
            raise BadRecord("its id is none")
        if not isinstance(token_hash, str) or not is_sha256(token_hash):
            raise BadRecord("its token is none")
        if not all(isinstance(each, bool) for each in flags):
            raise BadRecord("whether it is approved is neither true nor false")
        try:
            body = NodeBody.model_validate(raw.get("body"))
        except ValidationError as error:
            raise BadRecord("its description of itself cannot be read") from error
        if (raw.get("machine_name"), raw.get("runtime_port")) != (body.machine_name, body.runtime_port):
            raise BadRecord("its name or port is not the one it told")
        placements = raw.get("placements")
        found = map(_placement, placements if isinstance(placements, list) else ())
        return cls(
            node_id,
            body.machine_name,
            body.runtime_port,
            token_hash,
            raw["approved"],
            _moment(raw.get("registered_at")),
            body.model_dump(mode="json"),
            flags[1],
            _moment(raw.get("last_seen")),
            tuple(each for each in found if each is not None),
        )


def _placement(raw: object) -> tuple[str, Placement] | None:
    """One stored placement, or None if it is none."""
    match raw:
        case [str(name), {"node": str(node), **more}]:
            path, verified = more.get("path"), more.get("verified")
            return clean(name, 1000), Placement(
                _line(node),
                path=clean(path, 8192) if isinstance(path, str) else None,
                paths=_paths(more.get("paths")),
                disk_bytes=_count(more.get("disk_bytes")),
                node_id=_line(more.get("node_id")),
                verified=verified if isinstance(verified, bool) else None,
                unverified=_paths(more.get("unverified")),
                shared_bytes=_count(more.get("shared_bytes")) or 0,
            )
    return None


def is_identity(value: object) -> bool:
    """Whether it can be what tells one registration, order or store from all others."""
    return isinstance(value, str) and _IDENTITY.match(value) is not None


def is_count(value: object) -> bool:
    """Whether it is a whole number that a size, or a number of things, can be."""
    return type(value) is int and 0 <= value <= _INT53


def is_moment(value: object) -> bool:
    """Whether it is a time that can be shown: seconds since the epoch, before the year 10000."""
    return _is_number(value) and 0 <= value < END_OF_TIME_S  # type: ignore[operator]


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1e15 < value < 1e15  # type: ignore[operator]  # false for NaN, too


def _count(value: object) -> int | None:
    return value if is_count(value) else None  # type: ignore[return-value]


def _moment(value: object) -> float:
    return float(value) if is_moment(value) else 0.0  # type: ignore[arg-type]


def _line(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def _paths(value: object) -> tuple[str, ...]:
    found = value if isinstance(value, list | tuple) else ()
    return tuple(clean(each, 8192) for each in found if isinstance(each, str))


def _identities(value: object) -> tuple[str, ...]:
    return tuple(filter(is_identity, value[-_MOST_EARLIER:])) if isinstance(value, list | tuple) else ()


def _lines(value: object) -> tuple[str, ...]:
    return tuple(map(_line, value[:_MOST_WORDS])) if isinstance(value, list | tuple) else ()
