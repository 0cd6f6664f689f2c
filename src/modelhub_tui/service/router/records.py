"""What the router remembers: registered models and known nodes, as plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Self

from modelhub_tui.domain import Placement
from modelhub_tui.values import dataclass


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

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read a stored record; members of a newer version are ignored.

        Raises:
            TypeError, KeyError, ValueError: It is no such record.
        """
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items() if name in known
        }
        file_keys = {each.name for each in fields(ManifestFile)}
        files = tuple(ManifestFile(**{k: v for k, v in each.items() if k in file_keys}) for each in raw["files"])
        return cls(**{**values, "files": files})


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
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read a stored record; members of a newer version are ignored."""
        known = {each.name for each in fields(cls)}
        placements = tuple(
            (name, Placement(**{**each, **{key: tuple(each.get(key, ())) for key in ("paths", "unverified")}}))
            for name, each in raw["placements"]
        )
        return cls(**{**{name: value for name, value in raw.items() if name in known}, "placements": placements})
