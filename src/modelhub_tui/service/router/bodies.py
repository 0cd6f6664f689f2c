"""Request bodies, validated: what clients and nodes may send. Outside text is cleaned here, once."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from modelhub_tui.domain import Phase, Place
from modelhub_tui.service.limits import MAX_TRASH_S
from modelhub_tui.untrusted import clean

MAX_MODELS = 20_000
"""Most placements or transfers that one heartbeat may carry."""
_INT64 = 2**63 - 1
END_OF_TIME_S = 253_402_300_800.0
"""The year 10000, which no calendar of the standard library has."""


def _address(text: str) -> str:
    ip_address(text)  # which takes anything at all after a `%`
    return clean(text, 64)


def _something(text: str) -> str:
    if not text:
        raise ValueError("it has no character that can be shown")
    return text


def _place(said: object) -> object:
    # What is no text may not be hashable either; pydantic says what is wrong with it.
    return Place(said) if isinstance(said, str) and said in {*Place} else said


def _phase(said: object) -> object:
    """An unknown phase is a newer node's word for "busy"."""
    if not isinstance(said, str):
        return said
    return Phase(said) if said in {*Phase} else Phase.WAITING


def _no_trickle(bandwidth: int) -> int:
    if 0 < bandwidth < 1024:
        raise ValueError("less than 1024 bytes per second is no limit but a stop; 0 means no limit")
    return bandwidth


Line = Annotated[str, Field(max_length=20_000), AfterValidator(clean)]
Path = Annotated[str, Field(max_length=8192), AfterValidator(lambda text: clean(text, 8192))]
ModelName = Annotated[str, Field(max_length=1000), AfterValidator(lambda text: clean(text, 1000))]
Bytes = Annotated[int, Field(ge=0, le=_INT64)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Number = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Moment = Annotated[float, Field(ge=0, lt=END_OF_TIME_S, allow_inf_nan=False)]
Names = Annotated[list[ModelName], Field(max_length=MAX_MODELS)]
ReadyModels = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=2, max_length=2)]


class Body(BaseModel):
    """Base of all bodies: exact types as upstream's deserialiser wants them, unknown members ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class AdoptBody(Body):
    """`POST /v0/models/adopt`"""

    name: Annotated[ModelName, Field(min_length=1)]


class MoveBody(Body):
    """`POST /v0/transfers/{name}/move`"""

    to: Annotated[Place, BeforeValidator(_place)]


class LimitsBody(Body):
    """`PATCH /v0/service/limits`: what is left out stays as it is."""

    parallel_transfers: Annotated[int, Field(ge=1, le=16)] = 2
    bandwidth_bps: Annotated[int, Field(ge=0, le=_INT64), AfterValidator(_no_trickle)] = 0
    disk_floor_bytes: Bytes | None = None
    trash_seconds: Annotated[int, Field(ge=0, le=MAX_TRASH_S)] = 3600
    trash_bytes: Bytes = 64 * 1024**3


class RegisterBody(Body):
    """`POST /v0/models/register`"""

    repo: Annotated[str, Field(max_length=2000)]
    """`owner/name` or any hub URL; parsed by `hub_refs`."""
    filename: Annotated[str, Field(max_length=1024)] | None = None
    display_name: Line | None = None
    chat_template: Annotated[str, Field(max_length=200_000)] | None = None
    revision: Annotated[str, Field(max_length=200)] | None = None


class GpuBody(Body):
    """One kind of graphics card."""

    model: Line
    count: Annotated[int, Field(ge=1, le=1024)] = 1
    memory: Bytes | None = None


class NodeBody(Body):
    """`POST /v0/nodes`"""

    machine_name: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(clean), AfterValidator(_something)]
    ip_address: Annotated[str, Field(max_length=64), AfterValidator(_address)]
    runtime_version: Line
    runtime_port: Annotated[int, Field(ge=0, le=65535)]
    heartbeat_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] | None = None
    """Longest time between two of its heartbeats, as far as it has a say in that."""
    gpu_available: bool
    gpu_devices: Annotated[list[GpuBody], Field(max_length=64)] = []
    gpu_count: Count | None = None
    gpu_model: Line | None = None
    supported_runtimes: Annotated[list[Line], Field(max_length=32)] = []
    ram_bytes: Bytes | None = None
    disk_free_bytes: Bytes | None = None
    disk_total_bytes: Bytes | None = None
    models_dir: Path | None = None
    models_bytes: Bytes | None = None
    unfinished_bytes: Bytes | None = None
    trash_bytes: Bytes | None = None
    disk_floor_bytes: Bytes | None = None


class EventBody(Body):
    """One thing that happened to a transfer."""

    at: Moment
    what: Line


class TransferBody(Body):
    """One transfer in a heartbeat."""

    name: ModelName
    phase: Annotated[Phase, BeforeValidator(_phase)] = Phase.WAITING
    bytes_done: Bytes = 0
    bytes_total: Bytes | None = None
    bytes_per_s: Number | None = None
    eta_s: Number | None = None
    file: Line | None = None
    file_index: Count = 0
    file_count: Count = 0
    attempt: Count = 0
    max_attempts: Count = 0
    retry_in_s: Number | None = None
    error: Line | None = None
    error_code: Line | None = None
    stalled_s: Number | None = None
    refetched_bytes: Bytes = 0
    history: Annotated[list[EventBody], Field(max_length=100)] = []


class FoundFile(Body):
    """One file of a model that a node found in its cache."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    size: Bytes
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    blob_id: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None


class FoundBody(Body):
    """A model that is whole in a node's cache and belongs to none it holds."""

    repo: Annotated[str, Field(max_length=200)]
    revision: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]
    files: Annotated[list[FoundFile], Field(min_length=1, max_length=2000)]
    paths: Annotated[list[Path], Field(max_length=2000)] = []
    deleted_as: ModelName | None = None
    """It is in the trash, under this name, and the router has said that it knows nothing of it."""
    registration: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")] | None = None


class TrashBody(Body):
    """A deleted model that a node could put back."""

    name: ModelName
    bytes: Bytes = 0


class PlacementBody(Body):
    """One whole model in a heartbeat."""

    name: ModelName
    path: Path | None = None
    paths: Annotated[list[Path], Field(max_length=2000)] = []
    disk_bytes: Bytes | None = None
    error: Line | None = None
    """Why it is still there although it was deleted."""
    verified: bool | None = None
    unverified: Annotated[list[Path], Field(max_length=2000)] = []
    shared_bytes: Bytes = 0


class RetriesBody(Body):
    """How often one kind of fault was waited out."""

    reason: Line
    count: Bytes


class TotalsBody(Body):
    """What a node has done since its process began; only for `GET /metrics`."""

    fetched_bytes: Bytes = 0
    refetched_bytes: Bytes = 0
    verified_bytes: Bytes = 0
    retries: Annotated[list[RetriesBody], Field(max_length=100)] = []
    longest_pause_s: Number = 0.0


class SyncProgress(Body):
    """Upstream's progress of one file."""

    model_id: ModelName
    file: Line
    downloaded_bytes: Bytes
    total_bytes: Bytes


class Heartbeat(Body):
    """`POST /v0/health`"""

    node_id: Annotated[str, Field(max_length=64)]
    cpu_usage: Number
    memory_usage: Number
    active_requests: Annotated[int, Field(ge=0, le=2**32 - 1)]
    gpu_usage: Number | None = None
    gpu_memory_usage: Number | None = None
    gpu_memory_total_mb: Bytes | None = None
    gpu_memory_used_mb: Bytes | None = None
    gpu_temperature: Annotated[float, Field(allow_inf_nan=False)] | None = None
    gpu_model_name: Line | None = None
    loaded_models: Names = []
    initializing: bool = False
    ready_models: ReadyModels | None = None
    sync_state: Literal["idle", "running", "success", "failed"] | None = None
    sync_progress: SyncProgress | None = None
    transfers: Annotated[list[TransferBody], Field(max_length=MAX_MODELS)] | None = None
    placements: Annotated[list[PlacementBody], Field(max_length=MAX_MODELS)] | None = None
    found: Annotated[list[FoundBody], Field(max_length=500)] | None = None
    trash: Annotated[list[TrashBody], Field(max_length=MAX_MODELS)] | None = None
    totals: TotalsBody | None = None
    removed: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=MAX_MODELS)] | None = None
    """The orders that it has carried out, of those in the list it saw last."""
    problem: Line | None = None
    """Why it cannot tell what is in its cache; empty if it can."""
    ram_bytes: Bytes | None = None
    disk_free_bytes: Bytes | None = None
    disk_total_bytes: Bytes | None = None
    models_dir: Path | None = None
    models_bytes: Bytes | None = None
    unfinished_bytes: Bytes | None = None
    trash_bytes: Bytes | None = None
    disk_floor_bytes: Bytes | None = None
