"""`GET /metrics`: the service in numbers, in Prometheus' text format. Names and units follow that ecosystem's rules.

Everything is read from what the router knows at that moment, so that only a scrape costs anything. What a node counts
starts anew with its process, as counters may; a node that does not say a number has no line of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelhub_tui import __version__
from modelhub_tui.domain import NodeStatus, Phase
from modelhub_tui.values import dataclass

if TYPE_CHECKING:
    from modelhub_tui.service.router.core import Router
    from modelhub_tui.service.router.fleet import LiveNode

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Source: Prometheus, "Exposition formats"."""
STATES = ("available", "registered", "downloading", "error", "ready", "deleting", "found")
"""As `status` in `GET /v0/models`; `found` is whole on a disk and registered nowhere."""


@dataclass(frozen=True, slots=True)
class _Number:
    """One number that each node has, or does not say."""

    name: str
    help: str
    value: Callable[[LiveNode], float | None]


def _total(name: str) -> Callable[[LiveNode], float | None]:
    return lambda node: getattr(node.totals, name) if node.totals else None


_GAUGES = (
    _Number("disk_free_bytes", "Free space where the models are.", lambda n: n.body.disk_free_bytes),
    _Number("disk_size_bytes", "Size of the file system where the models are.", lambda n: n.body.disk_total_bytes),
    _Number("disk_floor_bytes", "Free space that downloads leave alone.", lambda n: n.body.disk_floor_bytes),
    _Number("models_bytes", "Disk use of whole models.", lambda n: n.body.models_bytes),
    _Number("unfinished_bytes", "Disk use of unfinished downloads.", lambda n: n.body.unfinished_bytes),
    _Number("trash_bytes", "Disk use of deletions that can be undone.", lambda n: n.body.trash_bytes),
    _Number("trash_models", "Deletions that can be undone.", lambda n: len(n.trash)),
    _Number("memory_bytes", "System memory.", lambda n: n.body.ram_bytes),
    _Number("last_report_timestamp_seconds", "When the node was last heard.", lambda n: n.record.last_seen or None),
    _Number(
        "event_loop_longest_pause_seconds",
        "Longest time that the node's event loop came back late, since its process began.",
        _total("longest_pause_s"),
    ),
)
_COUNTERS = (
    _Number("fetched_bytes", "Bytes from a hub written to disk.", _total("fetched_bytes")),
    _Number(
        "refetched_bytes",
        "Bytes written that had been on disk before.",
        _total("refetched_bytes"),
    ),
    _Number(
        "verified_bytes",
        "Bytes of files whose checksum is right.",
        _total("verified_bytes"),
    ),
    _Number("reports", "Reports heard from the node since the router's start.", lambda n: n.reports),
)


def exposition(router: Router) -> bytes:
    """The answer's body. On the event loop, where nothing it reads can change; `prepare()` comes first."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import Collector

    class Now(Collector):
        def collect(self) -> Iterator[Any]:
            return _families(router)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Now())
    return generate_latest(registry)


def prepare() -> None:
    """Import the library, which takes 30 ms: in a thread, before the first answer."""
    import prometheus_client.core
    import prometheus_client.exposition  # noqa: F401


def _families(router: Router) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    def gauge(name: str, text: str, rows: Mapping[Any, float], *labels: str) -> Any:
        family = GaugeMetricFamily(f"modelhub_{name}", text, labels=labels)
        for values, number in rows.items():
            family.add_metric(values, number)
        return family

    yield gauge("build_info", "The service's version.", {(__version__,): 1}, "version")
    states = Counter("found" if row.found else row.status for row in router.listing.rows())
    yield gauge(
        "models", "Models by state, those of the catalog included.", {(each,): states[each] for each in STATES}, "state"
    )
    waiting = sum(not record.paused for record in router.listing.unfinished())
    yield gauge(
        "queue_models", "Models that are to be fetched and are not whole yet, paused ones apart.", {(): waiting}
    )
    text = "Longest time that the router's event loop came back late, since its start."
    yield gauge("event_loop_longest_pause_seconds", text, {(): router.longest_pause_s})

    nodes = sorted(router.fleet.nodes.values(), key=lambda node: (node.name, node.id))
    yield gauge(
        "node_up", "1 while the node is online.", {_of(n): n.status is NodeStatus.ONLINE for n in nodes}, *_NODE
    )
    phases = {n.id: Counter(transfer.phase for transfer in n.transfers.values()) for n in nodes}
    rows = {(*_of(n), str(phase)): phases[n.id][phase] for n in nodes for phase in Phase}
    yield gauge("node_transfers", "Transfers by phase.", rows, *_NODE, "phase")
    speeds = {_of(n): sum(each.bytes_per_s or 0.0 for each in n.transfers.values()) for n in nodes if not n.quiet}
    yield gauge("node_transfer_bytes_per_second", "Speed of all transfers together.", speeds, *_NODE)
    for each in _GAUGES:
        known = {_of(n): number for n in nodes if (number := each.value(n)) is not None}
        yield gauge(f"node_{each.name}", each.help, known, *_NODE)
    for each in _COUNTERS:
        family = CounterMetricFamily(f"modelhub_node_{each.name}", each.help, labels=_NODE)
        for n in nodes:
            if (number := each.value(n)) is not None:
                family.add_metric(_of(n), number)
        yield family
    retries = CounterMetricFamily(
        "modelhub_node_retries", "Faults that were waited out, by reason.", labels=(*_NODE, "reason")
    )
    for n in nodes:
        for retried in n.totals.retries if n.totals else ():
            retries.add_metric((*_of(n), retried.reason), retried.count)
    yield retries


_NODE = ("node", "node_id")
"""Two nodes may have one name; what has a name is easier to read."""


def _of(node: LiveNode) -> tuple[str, str]:
    return node.name, node.id
