"""The `/v0` protocol's JSON, as it enters: validated with pydantic, cleaned, and turned into domain values.

Tolerant: absent, null and unknown members are fine, an unknown word falls back, a decorative member of the wrong type
counts as absent, and a record whose identity is unusable is left out without harm to the rest of its list.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainValidator, TypeAdapter, ValidationError

from modelhub_tui import net
from modelhub_tui.client.base import Registered
from modelhub_tui.domain import Gpu, HubStats, Node, NodeStatus, Phase, Placement, RouterModel, Transfer
from modelhub_tui.untrusted import clean, clean_block

log = logging.getLogger(__name__)

T = TypeVar("T")
W = TypeVar("W", bound=BaseModel)

_NAME_LIMIT, _PATH_LIMIT, _TEXT_LIMIT = 500, 4096, 2000
_MOST = 1000
"""Transfers, placements, tags or paths of one record that are read; more is nonsense."""


class WrongShapeError(ValueError):
    """A body that is no JSON, or not the list or object it should be."""


def _identity(text: str) -> str:
    """A name goes back to the router in requests, so it is taken as it is or not at all."""
    if not text or clean(text, _NAME_LIMIT) != text:
        raise ValueError("unusable name")
    return text


def _line(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""


def _text(value: Any) -> str:
    return clean(value, _TEXT_LIMIT) if isinstance(value, str) else ""


def _path(value: Any) -> str | None:
    return clean(value, _PATH_LIMIT) or None if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e18 < value < 1e18:
        return None
    return float(value)


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(value) if number is not None and number >= 0 and number == math.floor(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _flag(value: Any) -> bool:
    return value is True


def _lines(value: Any) -> tuple[str, ...]:
    found = (clean(each, 100) for each in value[:_MOST] if isinstance(each, str)) if isinstance(value, list) else ()
    return tuple(each for each in found if each)


def _paths(value: Any) -> tuple[str, ...]:
    found = (_path(each) for each in value[:_MOST]) if isinstance(value, list) else ()
    return tuple(each for each in found if each)


def _time(value: Any) -> float | None:
    """RFC 3339 with any number of fractional digits, `Z` or an offset, as seconds since the epoch."""
    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


Identity = Annotated[str, AfterValidator(_identity)]
Line = Annotated[str, PlainValidator(_line)]
Text = Annotated[str, PlainValidator(_text)]
Path = Annotated[str | None, PlainValidator(_path)]
Count = Annotated[int | None, PlainValidator(_count)]
Positive = Annotated[float | None, PlainValidator(_positive)]
Flag = Annotated[bool, PlainValidator(_flag)]
Lines = Annotated[tuple[str, ...], PlainValidator(_lines)]
Paths = Annotated[tuple[str, ...], PlainValidator(_paths)]
Time = Annotated[float | None, PlainValidator(_time)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class WireTransfer(_Wire):
    """One member of `transfers`."""

    phase: str
    node: Line = ""
    bytes_done: Count = 0
    bytes_total: Count = None
    bytes_per_s: Positive = None
    eta_s: Positive = None
    file: Path = None
    file_index: Count = 0
    file_count: Count = 0
    attempt: Count = 0
    max_attempts: Count = 0
    retry_in_s: Positive = None
    error: Line = ""

    def to_domain(self) -> Transfer:
        """As the rest of the program knows it. An unknown phase is one that a person need not act on: waiting."""
        return Transfer(
            node=self.node,
            phase=Phase(self.phase) if self.phase in _PHASES else Phase.WAITING,
            bytes_done=self.bytes_done or 0,
            bytes_total=self.bytes_total or None,
            bytes_per_s=self.bytes_per_s,
            eta_s=self.eta_s,
            file=self.file,
            file_index=self.file_index or 0,
            file_count=self.file_count or 0,
            attempt=self.attempt or 0,
            max_attempts=self.max_attempts or 0,
            retry_in_s=self.retry_in_s,
            error=self.error or None,
        )


class WirePlacement(_Wire):
    """One member of `placements`."""

    node: Line = ""
    path: Path = None
    paths: Paths = ()
    disk_bytes: Count = None

    def to_domain(self) -> Placement:
        """As the rest of the program knows it."""
        path = self.path or (self.paths[0] if self.paths else None)
        return Placement(self.node, path, self.paths or ((path,) if path else ()), self.disk_bytes)


class WireStats(_Wire):
    """`hf_info`"""

    downloads: Count = None
    likes: Count = None
    stale: Flag = False


class WireModel(_Wire):
    """One member of `GET /v0/models`."""

    name: Identity
    repo: Identity | None = None
    filename: Identity | None = None
    registered: bool | None = None
    status: str | None = None
    title: Line = ""
    description: Annotated[str, PlainValidator(lambda value: clean_block(value) if isinstance(value, str) else "")] = ""
    revision: Line = ""
    size: Count = None
    required_memory: Count = None
    tags: Lines = ()
    capabilities: Lines = ()
    source: Line = ""
    format: Line = ""
    quantization: Line = ""
    parameter_count: Line = ""
    context_length: Count = None
    license: Line = ""
    gated: Flag = False
    transfers: Any = None
    placements: Any = None
    hf_info: Any = None

    def to_domain(self) -> RouterModel:
        """As the rest of the program knows it. Who does not say `registered` lists only what is, as upstream does."""
        registered = self.registered
        if registered is None:
            registered = self.status not in ("available", "deleting")
        return RouterModel(
            name=self.name,
            repo=self.repo or self.name,
            file=self.filename,
            registered=registered,
            title=self.title,
            description=self.description,
            revision=self.revision or None,
            size_bytes=self.size or None,
            required_memory_bytes=self.required_memory or None,
            quantization=self.quantization,
            parameters=self.parameter_count,
            context_length=self.context_length,
            license=self.license,
            gated=self.gated,
            tags=self.tags,
            capabilities=self.capabilities,
            format=self.format or _FORMATS.get(self.source, ""),
            deleting=self.status == "deleting",
            transfers=tuple(each.to_domain() for each in _each(_TRANSFER, self.transfers)),
            placements=tuple(each.to_domain() for each in _each(_PLACEMENT, self.placements)),
            stats=_stats(self.hf_info),
        )


class WireGpu(_Wire):
    """One member of a node's `gpu_devices`."""

    model: Line = ""
    count: Count = 1
    memory: Count = None


class WireNode(_Wire):
    """One member of `GET /v0/nodes`."""

    id: Identity
    machine_name: Line = ""
    custom_name: Line = ""
    status: str = ""
    last_seen: Time = None
    runtime_version: Line = ""
    gpu_devices: Any = None
    ram_bytes: Count = None
    disk_free_bytes: Count = None
    disk_total_bytes: Count = None
    models_dir: Path = None

    def to_domain(self) -> Node:
        """As the rest of the program knows it. An unknown status is not one to rely on: offline."""
        gpus = (each for each in _each(_GPU, self.gpu_devices) if each.memory)
        return Node(
            id=self.id,
            name=self.custom_name or self.machine_name or self.id,
            status=NodeStatus(self.status) if self.status in _NODE_STATES else NodeStatus.OFFLINE,
            last_seen=self.last_seen,
            gpus=tuple(Gpu(each.model, each.memory or 0, min(each.count or 1, 1024)) for each in gpus),
            ram_bytes=self.ram_bytes,
            disk_free_bytes=self.disk_free_bytes,
            disk_total_bytes=self.disk_total_bytes,
            models_dir=self.models_dir,
            version=self.runtime_version,
        )


class WireRegistered(_Wire):
    """The answer to a registration."""

    name: Identity
    filename: Path = None
    size_bytes: Count = None
    warnings: Lines = ()

    def to_domain(self) -> Registered:
        """As the rest of the program knows it."""
        return Registered(self.name, self.filename, self.size_bytes or None, self.warnings)


class WireHealth(_Wire):
    """`GET /health` of our own service."""

    service: str
    version: Line = ""


_PHASES, _NODE_STATES = frozenset(Phase), frozenset(NodeStatus)
_FORMATS = {"hf_gguf": "gguf", "hf_safetensors": "safetensors", "hf_onnx": "onnx"}
_TRANSFER, _PLACEMENT = TypeAdapter(WireTransfer), TypeAdapter(WirePlacement)
_MODEL, _NODE, _GPU, _STATS = (
    TypeAdapter(WireModel),
    TypeAdapter(WireNode),
    TypeAdapter(WireGpu),
    TypeAdapter(WireStats),
)
_REGISTERED, _HEALTH = TypeAdapter(WireRegistered), TypeAdapter(WireHealth)


def _valid(adapter: TypeAdapter[W], value: Any) -> W | None:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        log.debug("left out: %s", clean(error, 500))
        return None


def _each(adapter: TypeAdapter[W], value: Any) -> list[W]:
    """The usable members of a list, or nothing if it is none."""
    found = (_valid(adapter, each) for each in value[:_MOST]) if isinstance(value, list) else ()
    return [each for each in found if each is not None]


def _stats(value: Any) -> HubStats | None:
    told = _valid(_STATS, value) if isinstance(value, dict) else None
    if told is None or (told.downloads is None and told.likes is None):
        return None
    return HubStats(told.downloads, told.likes, told.stale)


def read_health(body: bytes) -> WireHealth | None:
    """Our own service's greeting, or None if it is somebody else's."""
    try:
        told = _valid(_HEALTH, net.loads(body))
    except ValueError:
        return None
    return told if told is not None and told.service == "modelhub" else None


def read_registered(body: bytes) -> Registered:
    """Read the answer to a registration.

    Raises:
        WrongShapeError: It is not one.
    """
    try:
        told = _valid(_REGISTERED, net.loads(body))
    except ValueError as error:
        raise WrongShapeError("no JSON") from error
    if told is None:
        raise WrongShapeError("no name")
    return told.to_domain()


def _to_model(record: Any) -> RouterModel | None:
    told = _valid(_MODEL, record)
    return told.to_domain() if told is not None else None


def _to_node(record: Any) -> Node | None:
    told = _valid(_NODE, record)
    return told.to_domain() if told is not None else None


class ListReader(Generic[T]):
    """Reads one list again and again; a record that did not change gives the same object as last time.

    Only what changed is validated. A service that writes one record per line also has only that parsed: at 10,000
    models this is the difference between 3 ms and 40.
    """

    def __init__(self, convert: Callable[[Any], T | None]) -> None:
        self._convert = convert
        self._seen: list[tuple[Any, T | None]] = []

    def read(self, body: bytes) -> tuple[T, ...]:
        """Return the usable records, in order.

        Raises:
            WrongShapeError: The body is no JSON array.
        """
        lines = _split(body)
        if lines is not None:
            try:
                return self._take(lines, parse=True)
            except ValueError:
                log.debug("not one record per line after all")
        try:
            told = net.loads(body)
        except ValueError as error:
            raise WrongShapeError("no JSON") from error
        if not isinstance(told, list):
            raise WrongShapeError("not a list")
        return self._take(told, parse=False)

    def _take(self, records: list[Any], *, parse: bool) -> tuple[T, ...]:
        old, moved, seen = self._seen, None, []
        for index, record in enumerate(records):
            if index < len(old) and old[index][0] == record:
                seen.append(old[index])
                continue
            if moved is None:
                moved = {_key(each): (each, value) for each, value in old}
            known = moved.get(_key(record))
            if known is None or known[0] != record:
                known = (record, self._convert(net.loads(record) if parse else record))
            seen.append(known)
        self._seen = seen
        return tuple(value for _, value in seen if value is not None)


def models_reader() -> ListReader[RouterModel]:
    """Reads `GET /v0/models`."""
    return ListReader(_to_model)


def nodes_reader() -> ListReader[Node]:
    """Reads `GET /v0/nodes`."""
    return ListReader(_to_node)


def _split(body: bytes) -> list[bytes] | None:
    """The records of a list that has one on each line, unparsed; None for any other layout.

    A JSON string holds no raw line break, so a comma before one always stands between two values.
    """
    if not (body.startswith(b"[{") and body.endswith(b"}]")):
        return None
    lines = body[1:-1].split(b",\n")
    return lines if all(each.startswith(b"{") and each.endswith(b"}") for each in lines) else None


def _key(record: Any) -> Any:
    if isinstance(record, bytes):
        return record
    name = record.get("name", record.get("id")) if isinstance(record, dict) else None
    return name if isinstance(name, str) else None
