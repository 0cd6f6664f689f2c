"""What the program talks about: catalog entries, models, nodes, transfers, and how a model's state is derived.

Everything here is a frozen, slotted value or a pure function: no I/O, no clock, no pydantic. Outside text has been
through `modelhub_tui.untrusted` before it enters these values, so widgets may draw every string as it is.
Units: `_bytes` are bytes, `_s` seconds, `_bps` bytes per second; `at`/`last_seen` are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from modelhub_tui.values import dataclass

MAX_MODEL_FILES = 20_000
"""Files that one model may have; a list of more is refused by routers and nodes alike."""


class ModelState(StrEnum):
    """The one state of a model, whichever router generation told us about it."""

    AVAILABLE = "available"
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    PAUSED = "paused"
    FAILED = "failed"
    DOWNLOADED = "downloaded"
    DELETING = "deleting"


IN_FLIGHT = frozenset({ModelState.QUEUED, ModelState.DOWNLOADING, ModelState.PAUSED, ModelState.FAILED})
"""States shown as variants of "downloading": registered, and not whole on any node."""


class Phase(StrEnum):
    """What a transfer is doing right now."""

    WAITING = "waiting"
    """Known to the node, not begun: in its queue."""
    FETCHING = "fetching"
    VERIFYING = "verifying"
    """All bytes are on disk; the checksum is being computed."""
    RETRYING = "retrying"
    """Between two attempts; `retry_in_s` says when the next one starts."""
    PAUSED = "paused"
    """Held by a person, or by a disk that is nearly full; `error` says which. What is on disk is kept."""
    FAILED = "failed"
    """Gave up; `error` says why, and a person has to act."""


class Ability(StrEnum):
    """What a router generation lets us do; the UI offers nothing else."""

    REGISTER = "register"
    PULL = "pull"
    """Registering makes nodes fetch the model."""
    PULL_ON_NODE = "pull_on_node"
    """A download is ordered on one chosen endpoint (G4)."""
    QUANTIZATION = "quantization"
    """Such an order may name any quantization."""
    CANCEL = "cancel"
    RETRY = "retry"
    DELETE = "delete"
    """Removes the registration; nodes follow where the generation has nodes."""
    DELETE_ON_NODE = "delete_on_node"
    """Removes the model from one chosen endpoint (G4, Ollama)."""
    APPROVE = "approve"
    """Lets a pending node in (G1, G2)."""
    PAUSE = "pause"
    """A transfer can be held and let go on, with what it has kept."""
    ORDER = "order"
    """Places in the queue of transfers can be changed."""
    LIMITS = "limits"
    """Parallel transfers, bandwidth, disk floor and trash can be limited while running."""
    UNDO = "undo"
    """A deletion can be taken back for a while."""
    ADOPT = "adopt"
    """Models found on a node's disk that nobody registered can be registered as they are."""


LOCAL_ABILITIES = frozenset(
    {*Ability} - {Ability.PULL_ON_NODE, Ability.QUANTIZATION, Ability.DELETE_ON_NODE, Ability.APPROVE}
)
"""Of our own service."""


class Place(StrEnum):
    """Where to move a transfer in the queue."""

    FIRST = "first"
    EARLIER = "earlier"
    LATER = "later"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service's transfers and trash may take; changed while running, kept over restarts."""

    parallel_transfers: int = 2
    """Models fetched at the same time by one node."""
    bandwidth_bps: int = 0
    """Bytes per second of all transfers of one node together; 0 means unlimited."""
    disk_floor_bytes: int | None = None
    """Free space that transfers leave alone; None means 2 % of the disk, at most 512 MiB."""
    trash_seconds: int = 3600
    """How long a deletion can be undone; 0 frees the space at once."""
    trash_bytes: int = 64 * 1024**3
    """Most that the trash of one node may hold; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Trashed:
    """A deleted model that can be had back."""

    name: str
    title: str
    repo: str
    file: str | None
    bytes: int
    """What emptying it frees, on all nodes together."""
    deleted_at: float
    expires_at: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a transfer."""

    at: float
    what: str
    """A sentence, such as "stalled at 12.1 GB, retried"."""


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One file of a catalog entry."""

    path: str
    """Path inside the repo, with forward slashes."""
    size_bytes: int | None = None
    sha256: str | None = None
    repo: str | None = None
    """Where it lives when that is not the entry's own repo (a projector, a VAE); None means the entry's repo."""
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One curated, supported model. Source: catalog.yaml."""

    id: str
    name: str
    description: str
    repo: str
    files: tuple[CatalogFile, ...]
    """The weights: the recommended file first, then its shards or parts."""
    companions: tuple[CatalogFile, ...] = ()
    """Needed beside the weights (vision projector, text encoder, VAE)."""
    revision: str | None = None
    required_memory_bytes: int | None = None
    required_memory_rule: str = ""
    quantization: str = ""
    parameters: str = ""
    context_length: int | None = None
    license: str = ""
    gated: bool = False
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    """snake_case: text_generation, vision, embedding, speech_to_text, text_to_speech, image_generation."""
    format: str = "gguf"
    total_bytes: int | None = None
    """Size of `files` together, for entries whose files' own sizes are not all known."""

    @property
    def file(self) -> str:
        """The recommended file, the one a register request names."""
        return self.files[0].path

    @property
    def size_bytes(self) -> int | None:
        """All weights and companions together; None when that is unknown."""
        weights = [each.size_bytes for each in self.files]
        parts = [self.total_bytes] if None in weights else weights
        parts += [each.size_bytes for each in self.companions]
        return None if None in parts else sum(size for size in parts if size is not None)


@dataclass(frozen=True, slots=True)
class HubStats:
    """Popularity of a repo on HuggingFace. None means the hub did not say, which is not the same as 0."""

    downloads: int | None = None
    """Over the last 30 days."""
    likes: int | None = None
    stale: bool = False
    """Older than the ten minutes it is good for; shown dimmed until refreshed."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One node fetching one model."""

    node: str
    phase: Phase
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_s: float | None = None
    """Over a short moving window; None before there is one."""
    eta_s: float | None = None
    file: str | None = None
    """The file being worked on, as a path in its repo."""
    file_index: int = 0
    """1-based position of `file` among `file_count`; 0 when unknown."""
    file_count: int = 0
    attempt: int = 0
    max_attempts: int = 0
    retry_in_s: float | None = None
    error: str | None = None
    """One sentence: why it failed, or why it is being retried."""
    error_code: str | None = None
    """The same for programs; the codes are listed in docs/wire.md."""
    stalled_s: float | None = None
    """Seconds since the last byte, while it fetches and nothing arrives; None while bytes arrive."""
    refetched_bytes: int = 0
    """Bytes that had to be fetched again because they were lost or wrong; no part of `bytes_done`."""
    orphaned: bool = False
    """Nobody works on it: the node that reported it is gone. It can be restarted or forgotten."""
    history: tuple[Event, ...] = ()
    """The last things that happened to it, oldest first, at most ten; kept over restarts."""
    node_id: str = ""

    @property
    def waits_for_line(self) -> bool:
        """Whether it is tried again by itself in `retry_in_s`, because of what ails the hub or the way there."""
        return self.phase is Phase.WAITING and self.retry_in_s is not None

    @property
    def fraction(self) -> float | None:
        """0..1, or None while the total is unknown."""
        return min(self.bytes_done / self.bytes_total, 1.0) if self.bytes_total else None


@dataclass(frozen=True, slots=True)
class Placement:
    """One node holding one model, whole."""

    node: str
    path: str | None = None
    """Absolute path of the first file on that node, if it tells."""
    paths: tuple[str, ...] = ()
    disk_bytes: int | None = None
    node_id: str = ""
    verified: bool | None = None
    """Whether every file was compared with a checksum; False: for some there is none; None: the node does not say."""
    unverified: tuple[str, ...] = ()
    """Those of `paths` that cannot be verified."""
    shared_bytes: int = 0
    """Of `disk_bytes`: what another service on that machine has registered, too, so that it stays there."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of graphics card of a node."""

    name: str
    memory_bytes: int
    count: int = 1


class NodeStatus(StrEnum):
    """Life cycle of a node, in the router's words."""

    PENDING = "pending"
    REGISTERING = "registering"
    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Node:
    """A process that holds model files."""

    id: str
    name: str
    status: NodeStatus
    last_seen: float | None = None
    gpus: tuple[Gpu, ...] = ()
    ram_bytes: int | None = None
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None
    models_dir: str | None = None
    models_bytes: int | None = None
    """What its registered models take on disk, shared files counted once; from an older node unfinished ones too."""
    trash_bytes: int | None = None
    """What emptying its trash would free; it is emptied by itself when a transfer needs the room."""
    disk_floor_bytes: int | None = None
    """Free space that its transfers leave alone."""
    unfinished_bytes: int | None = None
    """What unfinished downloads take beside `models_bytes`."""
    found_bytes: int | None = None
    """What the models take beside them that it found in its cache and nobody registered, shared files counted once."""
    version: str = ""
    kind: str = "node"
    """`node` (it reports to the router) or `endpoint` (the router asks it)."""
    software: str = ""
    """What an endpoint runs, such as `ollama`; empty for a node."""
    takes_downloads: bool = False
    """Whether a download can be ordered here (G4)."""
    deletes: bool = False
    """Whether a model can be deleted here (G4)."""
    cpu_percent: float | None = None
    memory_percent: float | None = None
    gpu_percent: float | None = None
    latency_ms: float | None = None
    problem: str = ""
    """What the router last had to complain about, in its own words; empty if nothing."""

    @property
    def local_bytes(self) -> int | None:
        """What all models on it take that a list shows, registered or found; None if it does not tell."""
        return None if self.models_bytes is None else self.models_bytes + (self.found_bytes or 0)

    @property
    def gpu_memory_bytes(self) -> int:
        """Memory of all its cards together, in bytes; 0 without a card."""
        return sum(gpu.memory_bytes * gpu.count for gpu in self.gpus)


@dataclass(frozen=True, slots=True)
class RouterModel:
    """What a router says about one model, in any generation's words translated to ours."""

    name: str
    """The name to use in requests: the registered name, or what registering would give."""
    repo: str
    file: str | None
    registered: bool
    title: str = ""
    description: str = ""
    revision: str | None = None
    size_bytes: int | None = None
    required_memory_bytes: int | None = None
    quantization: str = ""
    parameters: str = ""
    context_length: int | None = None
    license: str = ""
    gated: bool = False
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    format: str = ""
    deleting: bool = False
    """Deregistered, but a node has not yet removed its files."""
    stuck: str = ""
    """Why a node cannot remove them so far, in one sentence; empty if it has not said so."""
    paused: bool = False
    """A person wants its transfer held."""
    queue_position: int | None = None
    """Its place among the models that are not whole anywhere, from 1; None once it is."""
    found: bool = False
    """On a node's disk, but registered nowhere: it can be adopted."""
    unusable: str = ""
    """Why its registration cannot be used, which can only be deleted then; empty for all others."""
    transfers: tuple[Transfer, ...] = ()
    placements: tuple[Placement, ...] = ()
    stats: HubStats | None = None


@dataclass(frozen=True, slots=True)
class RouterInfo:
    """Who answers."""

    label: str
    """What the status line shows, such as "this machine" or "llmlb 5.7.1"."""
    url: str = ""
    version: str = ""
    generation: str = ""
    """`local` for our own service; `G1`..`G4` for the upstream router's generations."""
    supplies_stats: bool = False
    """True when the router itself reports hub stats, so that nobody else has to ask the hub."""
    abilities: frozenset[Ability] = LOCAL_ABILITIES


@dataclass(frozen=True, slots=True)
class RouterReport:
    """One consistent answer of a router. The client returns the *same object* while nothing has changed."""

    models: tuple[RouterModel, ...] = ()
    nodes: tuple[Node, ...] = ()
    notices: tuple[str, ...] = ()
    """What the user should know about these answers, one sentence each: a list that may not be read, for instance."""
    unheard: str = ""
    """Why a node that belongs to the router has not told yet what it holds; empty once it has. Until then nobody knows
    that something is *not* there."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the UI shows: a catalog entry and/or a model the router knows, with its one state."""

    key: str
    """Identity over time: see `model_key()`. Selection, cursor and cached drawings follow it."""
    name: str
    """The router's name for it; what requests carry."""
    title: str
    description: str
    repo: str
    file: str | None
    state: ModelState
    reason: str = ""
    """Why it waits or failed, in one sentence; empty when there is nothing to explain."""
    catalog_id: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    size_bytes: int | None = None
    required_memory_bytes: int | None = None
    required_memory_rule: str = ""
    quantization: str = ""
    parameters: str = ""
    context_length: int | None = None
    license: str = ""
    gated: bool = False
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    format: str = ""
    registered: bool = False
    paused: bool = False
    queue_position: int | None = None
    found: bool = False
    """On a node's disk, but registered nowhere: it can be adopted."""
    unusable: str = ""
    """Why its registration cannot be used, which can only be deleted then; empty for all others."""
    transfers: tuple[Transfer, ...] = ()
    placements: tuple[Placement, ...] = ()
    stats: HubStats | None = None

    def is_moving(self) -> bool:
        """Whether it is on its way, or trying to be."""
        return self.state in IN_FLIGHT

    def is_local(self) -> bool:
        """Whether it is whole on at least one node, or being removed from one."""
        return self.state is ModelState.DOWNLOADED or self.state is ModelState.DELETING

    def is_transferred(self) -> bool:
        """Whether any node has a transfer of it, in whatever state."""
        return bool(self.transfers)

    @property
    def transfer(self) -> Transfer | None:
        """The transfer to show: the one that is furthest along."""
        if len(self.transfers) == 1:
            return self.transfers[0]
        return max(self.transfers, key=lambda each: (each.phase is not Phase.FAILED, each.bytes_done), default=None)

    @property
    def is_unverifiable(self) -> bool:
        """Whether some node has files of it that could be compared with no checksum."""
        return any(each.verified is False for each in self.placements)

    @property
    def disk_bytes(self) -> int | None:
        """Bytes on disk of one copy; None while no node told."""
        return next((each.disk_bytes for each in self.placements if each.disk_bytes is not None), None)


class Link(StrEnum):
    """How well we hear the router."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"
    """No answer; `Connection.problem` and `retry_in_s` say what is tried."""
    REFUSED = "refused"
    """It answers, but not to us: a key is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Connection:
    """State of the link to the router."""

    link: Link = Link.CONNECTING
    problem: str = ""
    """One sentence; empty while LIVE."""
    advice: str = ""
    """What to do about it; empty while LIVE."""
    heard_at: float | None = None
    """When the data in the fleet was last confirmed; None if never."""
    retry_at: float | None = None
    """When the next attempt starts; None if none is planned."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything the UI shows, at one moment. Immutable: a new one replaces it."""

    models: tuple[Model, ...] = ()
    nodes: tuple[Node, ...] = ()
    router: RouterInfo = field(default_factory=lambda: RouterInfo(label=""))
    connection: Connection = field(default_factory=Connection)
    notices: tuple[str, ...] = ()
    """Sentences to show once each, such as that the router has undone a delete."""
    unlisted: int = 0
    """Models the router had when it was last heard that are not among these: too many to be kept between sessions."""
    unheard: str = ""
    """Why what is on the disk is not known yet, in one sentence; see `RouterReport.unheard`."""

    @property
    def transferring(self) -> tuple[Model, ...]:
        """Models that are moving, or trying to."""
        return tuple(filter(Model.is_moving, self.models))

    @property
    def local(self) -> tuple[Model, ...]:
        """Models that are whole on at least one node, or being removed from one."""
        return tuple(filter(Model.is_local, self.models))

    @property
    def bytes_per_s(self) -> float:
        """Speed of all transfers together."""
        return sum(each.bytes_per_s or 0.0 for model in self.models for each in model.transfers)
