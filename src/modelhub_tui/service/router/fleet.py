"""The nodes as they are now: who is online, what each holds, what each is fetching."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
import uuid
from collections.abc import Callable, Container, Iterable
from dataclasses import field, replace
from itertools import pairwise

from modelhub_tui.domain import Event, Gpu, Node, NodeStatus, Phase, Placement, Transfer
from modelhub_tui.service.router.bodies import FoundBody, Heartbeat, NodeBody, TotalsBody, TransferBody
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.records import NodeRecord
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

MISSED_REPORTS = 3
"""A node is offline once it has missed this many: one alone that comes late says nothing."""
SILENCE_S = 60.0
"""What a node that names no interval may be silent for."""
LONGEST_SILENCE_S = 300.0
"""Whatever interval a node names."""
QUIET_S = 10.0
"""A node that works on transfers speaks every second: after this long its last speed is no news any more."""
ORPHAN_S = 15.0
"""A transfer whose node is offline for this long has no worker: longer than a restart of the node takes."""
RETRY_GRACE_S = 15.0
"""How long a failure reported before a retry is taken for old news."""
_SEEN_STEP_S = 30
_TOLD = (
    "ram_bytes",
    "disk_free_bytes",
    "disk_total_bytes",
    "models_dir",
    "models_bytes",
    "unfinished_bytes",
    "trash_bytes",
    "disk_floor_bytes",
)
"""What a heartbeat brings up to date of a node's description."""
_DISK_STEP_BYTES = 1 << 24
RUNNING = frozenset({Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING})
MOVING = RUNNING | {Phase.WAITING}


@dataclass(slots=True)
class LiveNode:
    """One node: its record, and what it last said."""

    record: NodeRecord
    body: NodeBody
    status: NodeStatus
    heard_at: float = float("-inf")
    """On the monotonic clock."""
    online_since: float | None = None
    transfers: dict[str, Transfer] = field(default_factory=dict)
    placements: dict[str, Placement] = field(default_factory=dict)
    found: tuple[FoundBody, ...] = ()
    """What is whole in its cache and belongs to no model it holds."""
    trash: dict[str, int] = field(default_factory=dict)
    """Bytes it could put back, by the name of the deleted model."""
    told: bool = False
    """It has said what it holds and what is in its trash: it is not only known from before."""
    looked: bool = False
    """It has said what it found in its cache since this router was started."""
    problem: str = ""
    """Why it cannot look there, in one sentence."""
    stuck: dict[str, str] = field(default_factory=dict)
    """Why deleted models are still there, by name, in one sentence each."""
    totals: TotalsBody | None = None
    """What it has counted. No list shows it, so it wakes no reader."""
    reports: int = 0
    """Heartbeats heard since the router was started."""
    removed: frozenset[str] | None = frozenset()
    """The orders to remove something that it has carried out; None of an upstream node, which takes none."""
    loaded_models: tuple[str, ...] = ()
    ready_models: tuple[int, int] | None = None
    initializing: bool = False
    sync_state: str | None = None
    sync_progress: tuple[str, str, int, int] | None = None
    sync_updated_at: float | None = None
    quiet: bool = False
    """It has not been heard of for so long that what it last said of speeds and seconds is stale."""
    given_up: bool = False
    """It has been silent for so long that nobody can be said to work on its transfers."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.machine_name

    @property
    def silence_s(self) -> float:
        """How long it may be silent before it is offline: as many of the intervals that it names itself."""
        every_s = self.body.heartbeat_s
        return SILENCE_S if every_s is None else min(MISSED_REPORTS * every_s, LONGEST_SILENCE_S)

    @property
    def last_seen_shown(self) -> float:
        """When it was last heard, in coarse steps while online: a heartbeat alone must not wake every reader."""
        return (
            self.record.last_seen // _SEEN_STEP_S * _SEEN_STEP_S
            if self.status is NodeStatus.ONLINE
            else self.record.last_seen
        )

    @property
    def disk_free_shown(self) -> int | None:
        """Free bytes in coarse steps, for the same reason."""
        free = self.body.disk_free_bytes
        return None if free is None else free // _DISK_STEP_BYTES * _DISK_STEP_BYTES

    def as_domain(self) -> Node:
        """The node in the program's own vocabulary."""
        gpus = tuple(Gpu(each.model, each.memory or 0, each.count) for each in self.body.gpu_devices)
        return Node(
            id=self.id,
            name=self.name,
            status=self.status,
            last_seen=self.record.last_seen,
            gpus=gpus,
            ram_bytes=self.body.ram_bytes,
            disk_free_bytes=self.body.disk_free_bytes,
            disk_total_bytes=self.body.disk_total_bytes,
            models_dir=self.body.models_dir,
            models_bytes=self.body.models_bytes,
            unfinished_bytes=self.body.unfinished_bytes,
            trash_bytes=self.body.trash_bytes,
            disk_floor_bytes=self.body.disk_floor_bytes,
            version=self.body.runtime_version,
            problem=self.problem,
        )

    def visible(self) -> tuple[object, ...]:
        """Everything of it that any list shows; equal before and after means nobody needs to know."""
        return (
            self.body.model_copy(update={"disk_free_bytes": self.disk_free_shown}),
            self.status,
            self.last_seen_shown,
            self.online_since,
            self.transfers,
            self.quiet,
            self.placements,
            self.found,
            self.trash,
            self.looked,
            self.problem,
            self.stuck,
            self.loaded_models,
            self.ready_models,
            self.initializing,
            self.sync_state,
            self.sync_progress,
        )


class Fleet:
    """All nodes. Lives on the event loop; writes nothing: the caller stores what `changed_record` says.

    Args:
        clock: Wall clock, seconds since the epoch.
        monotonic: Clock for silences: a jump of the wall clock makes nobody offline.
    """

    def __init__(
        self,
        changes: Changes,
        records: Iterable[NodeRecord] = (),
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changes = changes
        self._clock, self._monotonic = clock, monotonic
        self._retried: dict[str, float] = {}
        self.expects_own = False
        """This machine has a node of its own, which is started with the router."""
        self.trouble = ""
        """Why this machine's own node does not come online; empty if nothing is known to be wrong."""
        self.nodes: dict[str, LiveNode] = {}
        for record in records:
            node = LiveNode(
                record,
                NodeBody.model_validate(record.body),
                NodeStatus.OFFLINE if record.approved else NodeStatus.PENDING,
            )
            node.placements = dict(record.placements)
            self.nodes[record.id] = node

    # -- what a reader asks ---------------------------------------------------------------------------------------

    def transfers_of(self, name: str) -> list[tuple[LiveNode, Transfer]]:
        """Who fetches this model, with what a silent node last said shown as standing still."""
        found = []
        for node in self.nodes.values():
            transfer = node.transfers.get(name)
            if transfer is not None:
                if node.quiet or node.status is NodeStatus.OFFLINE:
                    transfer = replace(
                        transfer,
                        bytes_per_s=None,
                        eta_s=None,
                        stalled_s=None,
                        retry_in_s=None,
                        orphaned=node.given_up,
                    )
                found.append((node, self._after_retry(name, transfer)))
        return found

    def runs(self, name: str) -> bool:
        """True while a node that we hear moves bytes of this model, or tries to."""
        return any(
            node.status is not NodeStatus.OFFLINE and transfer.phase in RUNNING
            for node, transfer in self.transfers_of(name)
        )

    def forget_orphans(self, name: str) -> None:
        """Drop what only silent nodes say of a model's transfer; they remove its parts when they come back."""
        for node in self.nodes.values():
            if node.status is NodeStatus.OFFLINE and node.transfers.pop(name, None) is not None:
                self._changes.touch()

    def why_kept(self, name: str) -> str:
        """Why a deleted model is still there, as far as a node has said; empty otherwise."""
        told = (node.stuck.get(name, "") for node in self.nodes.values() if node.status is not NodeStatus.OFFLINE)
        return next(filter(None, told), "")

    @property
    def unheard(self) -> str:
        """Why what our own node holds is not known yet, in one sentence; empty once it has told since our start."""
        ours = [node for node in self.nodes.values() if node.record.supervised]
        if not self.expects_own or any(node.looked for node in ours):
            return ""
        problem = next((f"{node.name}: {node.problem}" for node in ours if node.problem), "")
        return problem or self.trouble or "The node of this machine has just been started and has not reported yet."

    def trash_of(self, name: str) -> list[tuple[LiveNode, int]]:
        """Who could put a deleted model back, with the bytes that takes."""
        return [(node, node.trash[name]) for node in self.nodes.values() if name in node.trash]

    def placements_of(self, name: str) -> list[tuple[LiveNode, Placement]]:
        """Who holds this model, whole."""
        return [(node, node.placements[name]) for node in self.nodes.values() if name in node.placements]

    def holds(self, name: str, *, online: bool = False) -> bool:
        """True while any node holds or fetches this model.

        Args:
            online: Only nodes that we hear count.
        """
        return any(
            name in node.placements or name in node.transfers
            for node in self.nodes.values()
            if not online or node.status is not NodeStatus.OFFLINE
        )

    def confirmed(self, order: str) -> bool:
        """True once every node that takes orders has said that it has carried out this one."""
        return all(node.removed is None or order in node.removed for node in self.nodes.values())

    def by_token(self, token: str) -> LiveNode | None:
        """The node that a token was issued to."""
        hashed = hash_token(token)
        return next(
            (node for node in self.nodes.values() if secrets.compare_digest(node.record.token_hash, hashed)), None
        )

    @property
    def moving(self) -> bool:
        """True while any node that we hear has work in hand, or will go on with some by itself."""
        return any(
            transfer.phase in MOVING or transfer.error_code == "no_space" or transfer.retry_in_s is not None
            for node in self.nodes.values()
            if node.status is not NodeStatus.OFFLINE
            for transfer in node.transfers.values()
        )

    @property
    def supervised_heard_at(self) -> float | None:
        """When our own node last said something, on the monotonic clock; None if it never did."""
        return max((node.heard_at for node in self.nodes.values() if node.record.supervised), default=None)

    @property
    def all_told(self) -> bool:
        """True when every node has told what it holds, and none is away."""
        return all(node.told and node.status is not NodeStatus.OFFLINE for node in self.nodes.values())

    @property
    def outsiders_online(self) -> bool:
        """True while a node that we did not start ourselves is online."""
        return any(node.status is NodeStatus.ONLINE and not node.record.supervised for node in self.nodes.values())

    # -- what nodes say -------------------------------------------------------------------------------------------

    def register(self, body: NodeBody, *, trusted: bool, supervised: bool) -> tuple[LiveNode, str, bool]:
        """Take in a node, new or known by machine name and port.

        Args:
            trusted: It came with the service's own node key: no approval needed.

        Returns:
            The node, its new token (the old one dies), and True if it is new.
        """
        token = f"nt_{uuid.uuid4()}"
        now = self._clock()
        known = next(
            (
                each
                for each in self.nodes.values()
                if (each.name, each.record.runtime_port) == (body.machine_name, body.runtime_port)
            ),
            None,
        )
        record = NodeRecord(
            id=known.id if known else str(uuid.uuid4()),
            machine_name=body.machine_name,
            runtime_port=body.runtime_port,
            token_hash=hash_token(token),
            approved=trusted,
            supervised=supervised,
            registered_at=known.record.registered_at if known else now,
            body=body.model_dump(mode="json"),
            last_seen=now,
            placements=known.record.placements if known else (),
        )
        node = LiveNode(record, body, NodeStatus.PENDING)
        if known:
            # What it held and fetched stays until its first heartbeat says otherwise: no flicker on a restart.
            node.transfers, node.placements, node.online_since = known.transfers, known.placements, known.online_since
            # Not that it has told all: a node that has lost its record does not know that of its trash any more.
            node.found, node.trash = known.found, known.trash
            node.looked, node.problem, node.stuck = known.looked, known.problem, known.stuck
            node.totals, node.reports = known.totals, known.reports
        node.heard_at = self._monotonic()
        self._settle(node, online=trusted)
        self.nodes[node.id] = node
        self._changes.touch()
        return node, token, known is None

    def approve(self, node_id: str) -> LiveNode | None:
        """Let a pending node in; None if there is no such node."""
        node = self.nodes.get(node_id)
        if node is not None:
            node.record = replace(node.record, approved=True)
            self._settle(node, online=True)
            self._changes.touch()
        return node

    def remove(self, node_id: str) -> bool:
        """Forget a node and what it held; False if there is no such node."""
        if self.nodes.pop(node_id, None) is None:
            return False
        self._changes.touch()
        return True

    def heartbeat(self, node: LiveNode, beat: Heartbeat, names: Container[str]) -> bool:
        """Take in one heartbeat.

        Args:
            names: Registered names, to recognise what an upstream node reports as paths.

        Returns:
            True if what should be stored has changed (its placements).
        """
        before, held = node.visible(), node.placements
        node.heard_at, node.quiet, node.given_up = self._monotonic(), False, False
        node.record = replace(node.record, last_seen=self._clock())
        node.reports += 1
        node.totals = beat.totals or node.totals
        told = {key: getattr(beat, key) for key in _TOLD}
        node.body = node.body.model_copy(update={key: value for key, value in told.items() if value is not None})
        node.initializing = beat.initializing
        if beat.ready_models is not None:
            node.ready_models = (beat.ready_models[0], beat.ready_models[1])
        if beat.loaded_models:
            node.loaded_models = tuple(dict.fromkeys(beat.loaded_models))
        if beat.sync_state is not None or beat.sync_progress is not None:
            at = beat.sync_progress
            node.sync_state = beat.sync_state
            node.sync_progress = (at.model_id, at.file, at.downloaded_bytes, at.total_bytes) if at else None
            node.sync_updated_at = self._clock()
        if beat.transfers is not None:
            node.transfers = {each.name: _transfer(node.name, each) for each in beat.transfers}
            for name, transfer in node.transfers.items():
                if transfer.phase is not Phase.FAILED:
                    self._retried.pop(name, None)
        else:
            node.transfers = _upstream_transfers(node)
        if beat.placements is not None:
            node.placements = {
                each.name: Placement(
                    node.name,
                    each.path,
                    tuple(each.paths),
                    each.disk_bytes,
                    verified=each.verified,
                    unverified=tuple(each.unverified),
                    shared_bytes=each.shared_bytes,
                )
                for each in beat.placements
            }
            node.stuck = {each.name: each.error for each in (*beat.placements, *(beat.transfers or ())) if each.error}
        elif node.loaded_models:
            node.placements = _upstream_placements(node, names)
        found = tuple(each for each in beat.found or () if each.deleted_as is None)
        if beat.found is not None and found != node.found:
            node.found = found  # else the same object stays, by which others see that nothing changed
        node.looked |= beat.found is not None
        node.problem = beat.problem or ""
        node.removed = None if beat.transfers is None else frozenset(beat.removed or ())
        if beat.trash is not None:
            node.trash = {each.name: each.bytes for each in beat.trash}
        # A node of ours leaves its trash out until it has seen the list; an upstream node has none and says nothing.
        node.told |= beat.trash is not None or beat.placements is None
        self._settle(node, online=node.record.approved)
        if node.visible() != before:
            self._changes.touch()
        return node.placements != held

    def retried(self, name: str) -> None:
        """A person asked for another try: failures reported before the nodes hear of it are old news."""
        self._retried[name] = self._monotonic() + RETRY_GRACE_S
        self._changes.touch()

    # -- time -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Notice who has fallen silent, and forgive retries that led nowhere. Called about once a second."""
        now = self._monotonic()
        for node in self.nodes.values():
            works = any(each.phase in RUNNING for each in node.transfers.values())
            still_s = QUIET_S if works else node.silence_s
            if node.transfers and not node.quiet and now - node.heard_at > still_s:
                node.quiet = True
                self._changes.touch()
            if node.status is not NodeStatus.OFFLINE and now - node.heard_at > node.silence_s:
                self._lose(node)
            if node.status is NodeStatus.OFFLINE and not node.given_up and now - node.heard_at > ORPHAN_S:
                node.given_up = True
                self._changes.touch()
        for name in [name for name, until in self._retried.items() if until < now]:
            del self._retried[name]
            self._changes.touch()

    def hindered(self) -> tuple[tuple[str, str, Transfer], ...]:
        """What stands for the transfers of models that wait for our own node while it does not start."""
        if not self.trouble or any(node.status is NodeStatus.ONLINE for node in self.nodes.values()):
            return ()
        ours = next((node for node in self.nodes.values() if node.record.supervised), None)
        name = ours.name if ours else "this machine"
        return ((ours.id if ours else "", name, Transfer(name, Phase.WAITING, error=self.trouble)),)

    def lose_supervised(self, why: str = "") -> None:
        """Our own node's process has ended: do not wait for its silence.

        Args:
            why: The last it said, if it ended soon after its start.
        """
        trouble = f"The node of this machine does not start: {clean(why, 300)}" if why else ""
        if trouble != self.trouble:
            self.trouble = trouble
            self._changes.touch()
        for node in self.nodes.values():
            if node.record.supervised and node.status is not NodeStatus.OFFLINE:
                self._lose(node)

    def _lose(self, node: LiveNode) -> None:
        log.info("node %s is offline", node.name)
        node.status, node.online_since = NodeStatus.OFFLINE, None
        self._changes.touch()

    def _settle(self, node: LiveNode, *, online: bool) -> None:
        if not online:
            node.status = NodeStatus.PENDING
            return
        ready, total = node.ready_models or (0, 0)
        node.status = NodeStatus.REGISTERING if node.initializing or ready < total else NodeStatus.ONLINE
        if node.status is NodeStatus.ONLINE and node.online_since is None:
            node.online_since = self._clock()

    def _after_retry(self, name: str, transfer: Transfer) -> Transfer:
        if transfer.phase is Phase.FAILED and name in self._retried:
            return replace(transfer, phase=Phase.WAITING, error=None, error_code=None)
        return transfer


def hash_token(token: str) -> str:
    """What is kept of a node token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _transfer(node: str, said: TransferBody) -> Transfer:
    return Transfer(
        node=node,
        phase=said.phase,
        bytes_done=said.bytes_done,
        bytes_total=said.bytes_total,
        bytes_per_s=said.bytes_per_s,
        eta_s=said.eta_s,
        file=said.file,
        file_index=said.file_index,
        file_count=said.file_count,
        attempt=said.attempt,
        max_attempts=said.max_attempts,
        retry_in_s=said.retry_in_s,
        error=said.error or None,
        error_code=said.error_code or None,
        stalled_s=said.stalled_s,
        refetched_bytes=said.refetched_bytes,
        history=tuple(Event(each.at, each.what) for each in said.history[-10:]),
    )


def _upstream_transfers(node: LiveNode) -> dict[str, Transfer]:
    """What an upstream node's one `sync_progress` says. Source: router-api, G2: live only while `running`."""
    if node.sync_state != "running" or node.sync_progress is None:
        return {}
    name, file, done, total = node.sync_progress
    return {name: Transfer(node.name, Phase.FETCHING, done, total or None, file=file)}


def _upstream_placements(node: LiveNode, names: Container[str]) -> dict[str, Placement]:
    """What an upstream node's `loaded_models` says: names, or paths that hold the name as folders."""
    held: dict[str, Placement] = {}
    for said in node.loaded_models:
        if said in names:
            held[said] = Placement(node.name)
            continue
        folders = said.split("/")[1:-1]
        for name in map("/".join, pairwise(folders)):
            if name in names:
                held[name] = Placement(node.name, said, (said,))
    return held
