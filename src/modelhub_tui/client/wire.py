"""The `/v0` protocol's JSON, as it enters: checked member by member, cleaned, and turned into domain values.

Tolerant: absent, null and unknown members are fine, an unknown word falls back, a decorative member of the wrong type
counts as absent, and a record whose identity is unusable is left out without harm to the rest of its list.

Plain functions, not pydantic: nearly every member would need a validator of its own for that, and importing pydantic
would double the time of `modelhub list` (docs/decisions/0007).
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import compress
from typing import Any, Generic, TypeVar

from modelhub_tui import net
from modelhub_tui.client.base import Registered
from modelhub_tui.client.lines import Lines
from modelhub_tui.domain import (
    Event,
    Gpu,
    HubStats,
    Limits,
    Node,
    NodeStatus,
    Phase,
    Placement,
    RouterModel,
    Transfer,
    Trashed,
)
from modelhub_tui.untrusted import clean, clean_block

log = logging.getLogger(__name__)

T = TypeVar("T")

_NAME_LIMIT, _FILE_LIMIT, _PATH_LIMIT = 500, 1024, 4096
MOST_MODELS, MOST_NODES = 100_000, 10_000
_MOST_PARTS = 500_000
"""Transfers, placements and the like of all records together: some 200 MB."""
_MOST_WORDS = 100
"""Tags, or names of nodes, of one record."""
_MOST = 1000
"""Transfers, placements, tags or paths of one record that are read; more is nonsense."""


class WrongShapeError(ValueError):
    """A body that is no JSON, or not the list or object it should be."""


class UnusableError(ValueError):
    """A record that cannot be taken, because it is not clear what it is about."""


def read_identity(value: Any, limit: int = _NAME_LIMIT) -> str:
    """A name goes back to the router in requests, so it is taken as it is or not at all."""
    if not isinstance(value, str) or not value or clean(value, limit) != value:
        raise UnusableError("unusable name")
    return value


def read_identity_or_none(value: Any, limit: int = _NAME_LIMIT) -> str | None:
    return None if value is None else read_identity(value, limit)


def read_word(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise UnusableError("not a word")


def read_record(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise UnusableError("not an object")


def read_line(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""


def read_path(value: Any) -> str | None:
    return clean(value, _PATH_LIMIT) or None if isinstance(value, str) else None


def read_number(value: Any) -> float | None:
    """A number of sane size; NaN, infinities, booleans and negative ones are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        return None
    return float(value)


def read_count(value: Any) -> int | None:
    if type(value) is int:
        return value if 0 <= value < 10**18 else None
    return int(value) if read_number(value) is not None and value == int(value) else None


def read_lines(value: Any, limit: int = 100) -> tuple[str, ...]:
    told = value[:_MOST_WORDS] if isinstance(value, list) else ()
    found = (clean(each, limit) for each in told if isinstance(each, str))
    return tuple(each for each in found if each)


def read_paths(value: Any) -> tuple[str, ...]:
    found = (read_path(each) for each in value[:_MOST]) if isinstance(value, list) else ()
    return tuple(each for each in found if each)


def read_time(value: Any) -> float | None:
    """RFC 3339 with any number of fractional digits, `Z` or an offset, as seconds since the epoch."""
    from datetime import UTC, datetime  # a router without nodes names no time

    try:
        at = datetime.fromisoformat(value)
        moment = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return moment if 0 <= moment < END_OF_TIME_S else None


END_OF_TIME_S = 253_402_300_800.0
"""The year 10000, which no calendar of the standard library has."""
_PHASES, _NODE_STATES = frozenset(Phase), frozenset(NodeStatus)
_FORMATS = {"hf_gguf": "gguf", "hf_safetensors": "safetensors", "hf_onnx": "onnx"}


def _transfer(value: Any) -> Transfer:
    """One member of `transfers`. An unknown phase is one that a person need not act on: waiting."""
    told = read_record(value)
    phase = told.get("phase")
    if not isinstance(phase, str):
        raise UnusableError("no phase")
    return Transfer(
        node=read_line(told.get("node")),
        node_id=read_line(told.get("node_id")),
        phase=Phase(phase) if phase in _PHASES else Phase.WAITING,
        bytes_done=read_count(told.get("bytes_done")) or 0,
        bytes_total=read_count(told.get("bytes_total")) or None,
        bytes_per_s=read_number(told.get("bytes_per_s")),
        eta_s=read_number(told.get("eta_s")),
        file=read_path(told.get("file")),
        file_index=read_count(told.get("file_index")) or 0,
        file_count=read_count(told.get("file_count")) or 0,
        attempt=read_count(told.get("attempt")) or 0,
        max_attempts=read_count(told.get("max_attempts")) or 0,
        retry_in_s=read_number(told.get("retry_in_s")),
        error=read_line(told.get("error")) or None,
        error_code=read_line(told.get("error_code")) or None,
        stalled_s=read_number(told.get("stalled_s")),
        refetched_bytes=read_count(told.get("refetched_bytes")) or 0,
        orphaned=told.get("orphaned") is True,
        history=read_each(_event, told.get("history"))[-10:],
    )


def _event(value: Any) -> Event:
    """One member of `history`."""
    told = read_record(value)
    at, what = read_time(told.get("at")), read_line(told.get("what"))
    if at is None or not what:
        raise UnusableError("an event without time or words")
    return Event(at, what)


def _placement(value: Any) -> Placement:
    """One member of `placements`."""
    told = read_record(value)
    paths = read_paths(told.get("paths"))
    path = read_path(told.get("path")) or (paths[0] if paths else None)
    return Placement(
        node=read_line(told.get("node")),
        path=path,
        paths=paths or ((path,) if path else ()),
        disk_bytes=read_count(told.get("disk_bytes")),
        node_id=read_line(told.get("node_id")),
        verified=verified if isinstance(verified := told.get("verified"), bool) else None,
        unverified=read_paths(told.get("unverified")),
        shared_bytes=read_count(told.get("shared_bytes")) or 0,
    )


def read_stats(value: Any) -> HubStats | None:
    """`hf_info`; None if it says nothing."""
    if not isinstance(value, dict):
        return None
    downloads, likes = read_count(value.get("downloads")), read_count(value.get("likes"))
    return None if downloads is None and likes is None else HubStats(downloads, likes, value.get("stale") is True)


def read_model(value: Any) -> RouterModel:
    """One member of `GET /v0/models`. Who does not say `registered` lists only what is, as upstream does."""
    told = read_record(value)
    name, status, registered = read_identity(told.get("name")), read_word(told.get("status")), told.get("registered")
    if registered is None:
        registered = status not in ("available", "deleting")
    elif not isinstance(registered, bool):
        raise UnusableError("registered is neither true nor false")
    description = told.get("description")
    return RouterModel(
        name=name,
        repo=read_identity_or_none(told.get("repo")) or name,
        file=read_identity_or_none(told.get("filename"), _FILE_LIMIT),
        registered=registered,
        title=read_line(told.get("title")),
        description=clean_block(description) if isinstance(description, str) else "",
        revision=read_line(told.get("revision")) or None,
        size_bytes=read_count(told.get("size")) or None,
        required_memory_bytes=read_count(told.get("required_memory")) or None,
        quantization=read_line(told.get("quantization")),
        parameters=read_line(told.get("parameter_count")),
        context_length=read_count(told.get("context_length")),
        license=read_line(told.get("license")),
        gated=told.get("gated") is True,
        tags=read_lines(told.get("tags")),
        capabilities=read_lines(told.get("capabilities")),
        format=read_line(told.get("format")) or _FORMATS.get(read_line(told.get("source")), ""),
        deleting=status == "deleting",
        stuck=read_line(told.get("reason")) if status == "deleting" else "",
        paused=told.get("paused") is True,
        queue_position=read_count(told.get("queue_position")) or None,
        found=told.get("found") is True,
        unusable=(read_line(told.get("reason")) or "no reason told") if told.get("unusable") is True else "",
        transfers=read_each(_transfer, told.get("transfers")),
        placements=read_each(_placement, told.get("placements")),
        stats=read_stats(told.get("hf_info")),
    )


def _gpu(value: Any) -> Gpu:
    told = read_record(value)
    memory_bytes = read_count(told.get("memory"))
    if not memory_bytes:
        raise UnusableError("a card without memory")
    return Gpu(read_line(told.get("model")), memory_bytes, min(read_count(told.get("count")) or 1, 1024))


def read_node(value: Any) -> Node:
    """One member of `GET /v0/nodes`. An unknown status is not one to rely on: offline."""
    told = read_record(value)
    node_id, status = read_identity(told.get("id")), read_word(told.get("status"))
    return Node(
        id=node_id,
        name=read_line(told.get("custom_name")) or read_line(told.get("machine_name")) or node_id,
        status=NodeStatus(status) if status in _NODE_STATES else NodeStatus.OFFLINE,
        last_seen=read_time(told.get("last_seen")),
        gpus=read_each(_gpu, told.get("gpu_devices")),
        ram_bytes=read_count(told.get("ram_bytes")),
        disk_free_bytes=read_count(told.get("disk_free_bytes")),
        disk_total_bytes=read_count(told.get("disk_total_bytes")),
        models_dir=read_path(told.get("models_dir")),
        models_bytes=read_count(told.get("models_bytes")),
        unfinished_bytes=read_count(told.get("unfinished_bytes")),
        found_bytes=read_count(told.get("found_bytes")),
        trash_bytes=read_count(told.get("trash_bytes")),
        disk_floor_bytes=read_count(told.get("disk_floor_bytes")),
        version=read_line(told.get("runtime_version")),
        problem=read_line(told.get("problem")),
    )


def read_each(convert: Callable[[Any], T], value: Any) -> tuple[T, ...]:
    """The usable members of a list, or nothing if it is none."""
    found = (read_usable(convert, each) for each in value[:_MOST]) if isinstance(value, list) else ()
    return tuple(each for each in found if each is not None)


def read_usable(convert: Callable[[Any], T], value: Any) -> T | None:
    try:
        return convert(value)
    except UnusableError as error:
        log.debug("left out: %s", error)
        return None


def read_health(body: bytes) -> str | None:
    """The version in our own service's greeting, or None if it is somebody else's."""
    try:
        told = net.loads(body)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("service") != "modelhub":
        return None
    return read_line(told.get("version"))


def read_registered(body: bytes) -> Registered:
    """Read the answer to a registration.

    Raises:
        WrongShapeError: It is not one.
    """
    try:
        told = read_record(net.loads(body))
        name = read_identity(told.get("name"))
    except ValueError as error:
        raise WrongShapeError("no name") from error
    size_bytes = read_count(told.get("size_bytes")) or None
    return Registered(name, read_path(told.get("filename")), size_bytes, read_lines(told.get("warnings"), 300))


def read_limits(body: bytes) -> Limits:
    """Read `GET /v0/service/limits`; what an older or newer service leaves out is as by default.

    Raises:
        WrongShapeError: It is no object.
    """
    try:
        told = read_record(net.loads(body))
    except ValueError as error:
        raise WrongShapeError("no limits") from error
    counts = {each.name: read_count(told.get(each.name)) for each in fields(Limits)}
    return replace(Limits(), **{name: count for name, count in counts.items() if count is not None})


def read_trash(body: bytes) -> tuple[Trashed, ...]:
    """Read `GET /v0/trash`.

    Raises:
        WrongShapeError: It is no list.
    """
    try:
        told = net.loads(body)
    except ValueError as error:
        raise WrongShapeError("no JSON") from error
    if not isinstance(told, list):
        raise WrongShapeError("not a list")
    return read_each(_trashed, told)


def _trashed(value: Any) -> Trashed:
    told = read_record(value)
    name = read_identity(told.get("name"))
    return Trashed(
        name=name,
        title=read_line(told.get("title")) or name,
        repo=read_identity_or_none(told.get("repo")) or name,
        file=read_identity_or_none(told.get("filename"), _FILE_LIMIT),
        bytes=read_count(told.get("bytes")) or 0,
        deleted_at=read_time(told.get("deleted_at")) or 0.0,
        expires_at=read_time(told.get("expires_at")) or 0.0,
        nodes=read_lines(told.get("nodes")),
    )


class ListReader(Generic[T]):
    """Reads one list again and again; a record that did not change gives the same object as last time.

    Args:
        what: What is listed.
        most: Records that are read; a longer list is cut, and `notice` says so.

    Only what changed is validated. A service that writes one record per line also has only that parsed: at 10,000
    models this is the difference between 3 ms and 40.
    """

    def __init__(self, convert: Callable[[Any], T], what: str = "models", most: int = MOST_MODELS) -> None:
        self.notice = ""
        """One sentence when the list had more records than are read."""
        self._convert, self._what, self._most = convert, what, most
        self._lines = Lines()
        self._texts: list[str] = []
        """The records of a list of any other layout."""
        self._values: list[T | None] = []
        """What was read from each record; None for one that cannot be used."""

    def read(self, body: bytes) -> tuple[T, ...]:
        """Return the usable records, in order.

        Raises:
            WrongShapeError: The body is no JSON array.
        """
        try:
            if (news := self._lines.news(body)) is not None:
                return self._take_news(*news)
            if (lines := _split(body, self._most)) is not None:
                return self._take_lines(lines)
        except ValueError:
            log.debug("not one record per line after all")
        return self._take_pieces(body)

    def _take_news(self, changed: list[tuple[int, bytes]], blocks: list[bytes]) -> tuple[T, ...]:
        values = self._values[:]
        for at, line in changed:
            values[at] = read_usable(self._convert, net.loads(line))
        self._values = values
        self._lines.accept(blocks)
        self.notice = ""  # as many lines as were kept: none was left out
        return tuple(filter(None, values))  # records are true; a line of Python for each takes twice as long

    def _take_lines(self, lines: list[bytes]) -> tuple[T, ...]:
        old, more = self._lines.all(), len(lines) > self._most
        del lines[self._most :]
        # Compared without a line of Python for each: nearly all are as they were.
        changed = list(compress(range(len(lines)), map(operator.ne, old, lines)))
        changed += range(min(len(old), len(lines)), len(lines))
        values = self._values[: len(lines)] + [None] * (len(lines) - len(self._values))
        # Looking up thousands of lines costs more than parsing a few again; only a list that grew has shifted.
        shifted = bool(changed) and len(old) != len(lines)
        moved = {line: at for at, line in enumerate(old)} if shifted else {}
        parts = 0
        for at in changed:
            before = moved.get(lines[at])
            values[at] = self._values[before] if before is not None else self._read_line(lines[at])
            if (parts := parts + _parts(values[at])) > _MOST_PARTS:
                more = True
                del lines[at:], values[at:]
                break
        self._lines.keep(lines)
        return self._have([], values, more)

    def _read_line(self, line: bytes) -> T | None:
        return read_usable(self._convert, net.loads(line))

    def _take_pieces(self, body: bytes) -> tuple[T, ...]:
        from modelhub_tui.client.pieces import pieces  # our own service's lists need none

        known = {text: at for at, text in enumerate(self._texts)}
        texts: list[str] = []
        values: list[T | None] = []
        more, parts = False, 0
        try:
            for text, told in pieces(body):
                before = known.get(text)
                value = self._values[before] if before is not None else read_usable(self._convert, told)
                parts += _parts(value)
                if more := len(texts) == self._most or parts > _MOST_PARTS:
                    break
                values.append(value)
                texts.append(text)
        except ValueError as error:
            raise WrongShapeError(str(error)) from error
        self._lines.keep([])
        return self._have(texts, values, more)

    def _have(self, texts: list[str], values: list[T | None], more: bool) -> tuple[T, ...]:
        self._texts, self._values = texts, values
        cut = f"The router lists more {self._what} than can be shown; the first {len(values):,} are."
        self.notice = cut if more else ""
        return tuple(filter(None, values))  # records are true; a line of Python for each takes twice as long


def _parts(value: object) -> int:
    """How many things a record holds that each take as much memory as a small record."""
    return sum(len(getattr(value, name, ())) for name in ("transfers", "placements", "loaded"))


def models_reader() -> ListReader[RouterModel]:
    """Reads `GET /v0/models`."""
    return ListReader(read_model)


def nodes_reader() -> ListReader[Node]:
    """Reads `GET /v0/nodes`."""
    return ListReader(read_node, "nodes", MOST_NODES)


def _split(body: bytes, most: int) -> list[bytes] | None:
    """The records of a list that has one on each line, unparsed; None for any other layout.

    After `most` of them the rest comes as one.

    A JSON string holds no raw line break, so a comma before one always stands between two values. If it is not between
    two records, what stands before it is no JSON, and reading it fails.
    """
    if not (body.startswith(b"[{") and body.endswith(b"}]")):
        return None
    lines = body[1:-1].split(b",\n", most)
    return lines if len(lines) > 1 else None
