"""The service in numbers, as Prometheus reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelhub_tui.errors import BadSettings
from modelhub_tui.service.daemon import metrics_for
from modelhub_tui.service.node.faults import stalled
from modelhub_tui.service.node.progress import Progress
from modelhub_tui.service.node.totals import MAX_REASONS, Totals
from tests.service.conftest import FakeNode, Service, open_service
from tests.service.test_nodes_api import registration

ALERTS = Path(__file__).parents[2] / "docs" / "alerts.yaml"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


async def join(service: Service, **body: Any) -> FakeNode:
    node = FakeNode(service.node, **body)
    assert (await node.register()).status_code < 300
    return node


async def scraped(service: Service) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name, and by the values of their labels, a node's id left out."""
    answer = await service.admin.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation and family.documentation.endswith(".") and family.type != "unknown"
        for sample in family.samples:
            labels = tuple(value for name, value in sample.labels.items() if name != "node_id")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_models_nodes_and_what_nodes_count(service: Service) -> None:
    await service.router.registry.add(registration("acme/a", "acme/a", "m.gguf"))
    await service.router.registry.add(registration("acme/b", "acme/b", "m.gguf"))
    node = await join(service)
    await node.beat(
        transfers=[{"name": "acme/a", "phase": "fetching", "bytes_done": 5, "bytes_total": 9, "bytes_per_s": 2.5}],
        placements=[{"name": "acme/b", "path": "/m/b", "paths": ["/m/b"], "disk_bytes": 7}],
        disk_free_bytes=100,
        totals={
            "fetched_bytes": 11,
            "refetched_bytes": 3,
            "verified_bytes": 7,
            "retries": [{"reason": "stalled", "count": 4}],
            "longest_pause_s": 0.25,
        },
    )
    told = await scraped(service)
    name = "box"
    assert told["modelhub_models"][("available",)] == 2, "the catalog's"
    assert told["modelhub_models"][("downloading",)] == 1
    assert told["modelhub_models"][("ready",)] == 1
    assert told["modelhub_queue_models"][()] == 1
    assert told["modelhub_node_up"][(name,)] == 1
    assert told["modelhub_node_transfers"][(name, "fetching")] == 1
    assert told["modelhub_node_transfer_bytes_per_second"][(name,)] == 2.5
    assert told["modelhub_node_disk_free_bytes"][(name,)] == 100
    assert told["modelhub_node_fetched_bytes_total"][(name,)] == 11
    assert told["modelhub_node_refetched_bytes_total"][(name,)] == 3
    assert told["modelhub_node_verified_bytes_total"][(name,)] == 7
    assert told["modelhub_node_retries_total"][(name, "stalled")] == 4
    assert told["modelhub_node_event_loop_longest_pause_seconds"][(name,)] == 0.25
    assert told["modelhub_node_reports_total"][(name,)] == 1
    assert "modelhub_node_trash_bytes" not in told, "it has not said so"
    before = await scraped(service)
    await node.beat()
    assert (await scraped(service))["modelhub_node_reports_total"][(name,)] == 2
    assert before["modelhub_node_fetched_bytes_total"] == told["modelhub_node_fetched_bytes_total"]


async def test_a_hostile_name_stays_in_its_label(service: Service) -> None:
    await join(service, machine_name='a"} 1\nmodelhub_models{state="ready"} 99 \\')
    told = await scraped(service)
    assert told["modelhub_models"][("ready",)] == 0
    assert [*told["modelhub_node_up"].values()] == [1]


async def test_numbers_are_behind_the_key_unless_they_are_opened(service: Service, tmp_path: Path) -> None:
    assert (await service.bare.get("/metrics")).status_code == 401
    assert (await service.node.get("/metrics")).status_code == 403
    (tmp_path / "other").mkdir()
    async with open_service(tmp_path / "other", open_metrics=True) as other:
        assert (await other.bare.get("/metrics")).status_code == 200
        assert (await other.bare.post("/metrics")).status_code == 401
        assert (await other.bare.get("/v0/models")).status_code == 401


def test_the_setting_takes_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metrics_for() == "key"
    monkeypatch.setenv("MODELHUB_METRICS", "open")
    assert metrics_for() == "open"
    monkeypatch.setenv("MODELHUB_METRICS", "yes")
    with pytest.raises(BadSettings, match=r"'yes'; it can be key, .* or open"):
        metrics_for()


def test_a_transfer_counts_for_its_node() -> None:
    from modelhub_tui.domain import Phase

    totals = Totals()
    progress = Progress("m", totals=totals)
    progress.plan([("a", 10, 0)])
    progress.begin_file(0, 10, 0)
    progress.advanced(0, 8)
    progress.dropped_file(0)
    progress.advanced(0, 10)
    progress.phase(Phase.RETRYING, stalled("hub", 15.0))
    progress.phase(Phase.RETRYING, stalled("hub", 15.0))
    progress.verified(0)
    assert totals.as_wire() == {
        "fetched_bytes": 18,
        "refetched_bytes": 8,
        "verified_bytes": 10,
        "retries": [{"reason": "checksum", "count": 1}, {"reason": "stalled", "count": 2}],
        "longest_pause_s": 0.0,
    }
    for number in range(2 * MAX_REASONS):
        totals.retried(f"code {number}")
    assert len(totals.as_wire()["retries"]) == MAX_REASONS


async def test_alerts_and_docs_name_only_what_there_is(service: Service) -> None:
    import re

    import yaml

    node = await join(service)
    await node.beat(totals={"retries": [{"reason": "stalled", "count": 1}]}, trash=[], **dict.fromkeys(NUMBERS, 1))
    known = {*await scraped(service)}
    alerts = yaml.safe_load(ALERTS.read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert rules and all(rule["annotations"]["summary"] for rule in rules)
    used = {name for rule in rules for name in re.findall(r"modelhub_[a-z_]+", rule["expr"])}
    assert used and used <= known
    documented = {*re.findall(r"`(modelhub_[a-z_]+)", OPERATIONS.read_text())}
    assert documented == known


NUMBERS = (
    "ram_bytes",
    "disk_free_bytes",
    "disk_total_bytes",
    "disk_floor_bytes",
    "models_bytes",
    "unfinished_bytes",
    "trash_bytes",
)
