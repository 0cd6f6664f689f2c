"""Fleets of other routers: many nodes, endpoints, a node that waits to be let in."""

from __future__ import annotations

from dataclasses import replace

from modelhub_tui.domain import (
    Ability,
    Connection,
    Fleet,
    Gpu,
    Link,
    Model,
    ModelState,
    Node,
    NodeStatus,
    Phase,
    Placement,
    RouterInfo,
    Transfer,
)
from tests.tui import fleets

G1 = RouterInfo(
    "llm-router (nodes)",
    "http://10.0.0.7:8080",
    "",
    "G1",
    abilities=frozenset({Ability.REGISTER, Ability.PULL, Ability.CANCEL, Ability.DELETE, Ability.APPROVE}),
)
G3 = RouterInfo(
    "llmlb (endpoints)",
    "http://10.0.0.7:32768",
    "",
    "G3",
    abilities=frozenset({Ability.REGISTER, Ability.DELETE}),
)
G4 = RouterInfo(
    "llmlb 5.7.1",
    "http://10.0.0.7:32768",
    "5.7.1",
    "G4",
    abilities=frozenset(
        {Ability.REGISTER, Ability.DELETE, Ability.PULL_ON_NODE, Ability.QUANTIZATION, Ability.DELETE_ON_NODE}
    ),
)


def nodes(count: int) -> tuple[Node, ...]:
    """`count` nodes, most of them online."""
    out = []
    for at in range(count):
        node = replace(
            fleets.GPU_NODE,
            id=f"id-{at}",
            name=f"gpu-{at + 1:03}",
            gpus=(Gpu("NVIDIA H100", 80_000_000_000, 8),) if at % 3 else (Gpu("NVIDIA RTX 4090", 24_000_000_000),),
            cpu_percent=12.0 + at % 60,
            gpu_percent=97.0,
        )
        if at == 3:
            node = replace(node, status=NodeStatus.PENDING, version="")
        elif at % 7 == 4:
            node = replace(node, status=NodeStatus.OFFLINE, last_seen=fleets.NOW - 200_000, problem="No heartbeat.")
        out.append(node)
    return tuple(out)


def spread(count: int, models: int = 24, router: RouterInfo = G1) -> Fleet:
    """Models spread over `count` nodes in every state."""
    fleet, base = nodes(count), fleets.catalog()
    out: list[Model] = []
    for at in range(models):
        model = base[at % len(base)]
        if at >= len(base):
            model = replace(model, key=f"{model.key}#{at}", title=f"{model.title} v{at}")
        size = model.size_bytes or 1_000_000_000
        places = tuple(
            Placement(node.name, f"/srv/models/{at}.gguf", (), size, node.id)
            for number, node in enumerate(fleet)
            if (at * 5 + number * 3) % 4 == 0 and node.status is not NodeStatus.PENDING
        )
        moving = []
        for number, node in enumerate(fleet):
            if (at + number * 2) % 9 == 1:
                part = (at * 13 + number * 7) % 100 / 100
                rate = None if number % 5 == 4 else 112e6
                phase = Phase.VERIFYING if number % 5 == 4 else Phase.FETCHING
                moving.append(
                    Transfer(node.name, phase, int(size * part), size, rate, 32.0, model.file, node_id=node.id)
                )
            elif (at + number) % 23 == 5:
                moving.append(Transfer(node.name, Phase.FAILED, 0, size, error=fleets.NO_SPACE, node_id=node.id))
        state = ModelState.DOWNLOADED if places else ModelState.DOWNLOADING if moving else ModelState.QUEUED
        out.append(replace(model, state=state, registered=True, placements=places, transfers=tuple(moving)))
    return Fleet((*out, *base[models:]), fleet, router, Connection(Link.LIVE, heard_at=fleets.NOW))


ENDPOINTS = tuple(
    Node(
        f"e-{name}",
        name,
        status,
        fleets.NOW,
        kind="endpoint",
        software=software,
        takes_downloads=takes,
        deletes=software == "ollama",
        latency_ms=latency,
        problem=problem,
    )
    for name, software, status, takes, latency, problem in (
        ("ollama-1", "ollama", NodeStatus.ONLINE, True, 12.0, ""),
        ("studio", "lm_studio", NodeStatus.ONLINE, True, 41.0, ""),
        ("vllm-a100", "vllm", NodeStatus.ONLINE, False, 3.0, ""),
        ("ollama-2", "ollama", NodeStatus.OFFLINE, True, None, "Connection refused"),
    )
)


def endpoints(router: RouterInfo = G4, held: tuple[Node, ...] = ENDPOINTS) -> Fleet:
    """Endpoints of today's router, with models on several of them."""
    base = list(fleets.catalog())
    for at in range(6):
        places = tuple(
            Placement(each.name, node_id=each.id) for number, each in enumerate(held) if (at + number) % 3 == 0
        )
        if places:
            base[at] = replace(base[at], state=ModelState.DOWNLOADED, registered=at % 2 == 0, placements=places)
    base[2] = replace(base[2], state=ModelState.QUEUED, registered=True, placements=(), reason="no endpoint has it")
    return Fleet(tuple(base), held, router, Connection(Link.LIVE, heard_at=fleets.NOW))


def local() -> Fleet:
    """This machine alone."""
    busy = fleets.busy()
    return replace(busy, nodes=(fleets.GPU_NODE,))
