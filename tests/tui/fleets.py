"""Fleets for the tests: three dozen real models in every state, on made-up machines, at a fixed time."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from modelhub_tui.domain import (
    Connection,
    Fleet,
    Gpu,
    HubStats,
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
from modelhub_tui.states import model_key

NOW = 1_790_000_000.0
"""What the clock says in every test, in seconds since the epoch."""

GPU_NODE = Node(
    "n1",
    "gpu-01",
    NodeStatus.ONLINE,
    last_seen=NOW,
    gpus=(Gpu("NVIDIA RTX 4090", 24_000_000_000),),
    ram_bytes=128_000_000_000,
    disk_free_bytes=412_000_000_000,
    disk_total_bytes=2_000_000_000_000,
    models_dir="/srv/models",
    version="0.1.0",
)
SECOND_NODE = replace(GPU_NODE, id="n2", name="gpu-02")
CPU_NODE = replace(GPU_NODE, id="n3", name="laptop", gpus=(), ram_bytes=16_000_000_000, disk_free_bytes=38_000_000_000)

LOCAL_ROUTER = RouterInfo("this machine", "http://127.0.0.1:40000", "0.1.0", "local", supplies_stats=True)
LIVE = Connection(Link.LIVE, heard_at=NOW)


@cache
def catalog() -> tuple[Model, ...]:
    """Three dozen models, all available, with hub stats."""
    raw = json.loads((Path(__file__).parent / "models.json").read_text())
    return tuple(_model(each, at) for at, each in enumerate(raw))


def _model(raw: dict, at: int) -> Model:
    return Model(
        key=model_key(raw["repo"], raw["file"]),
        name=raw["repo"].lower(),
        title=raw["title"],
        description=raw["description"],
        repo=raw["repo"],
        file=raw["file"],
        state=ModelState.AVAILABLE,
        catalog_id=raw["id"],
        files=(raw["file"],),
        size_bytes=raw["size"],
        required_memory_bytes=raw["memory"],
        required_memory_rule="1.5 x size",
        quantization=raw["quantization"],
        parameters=raw["parameters"],
        context_length=raw["context"],
        license=raw["license"],
        gated=raw["gated"],
        tags=tuple(raw["tags"]),
        capabilities=tuple(raw["capabilities"]),
        format=raw["format"],
        stats=HubStats(2_400_000 // (at * at + 1) + 1_234, 4_100 // (at + 1) + 12),
    )


def downloaded(model: Model, *nodes: str) -> Model:
    """The model, whole on these nodes."""
    path = f"/srv/models/hub/models--{model.repo.replace('/', '--')}/snapshots/0b1c2d3e/{model.file}"
    places = tuple(Placement(node, path, (path,), model.size_bytes) for node in nodes or ("gpu-01",))
    return replace(model, state=ModelState.DOWNLOADED, registered=True, placements=places)


def downloading(model: Model, fraction: float, **transfer: object) -> Model:
    """The model on its way to gpu-01."""
    size = model.size_bytes or 0
    done = int(size * fraction)
    moving = Transfer(
        "gpu-01",
        Phase.FETCHING,
        done,
        size,
        112e6,
        (size - done) / 112e6,
        model.file,
        1,
        1,
        attempt=1,
        max_attempts=6,
    )
    return replace(model, state=ModelState.DOWNLOADING, registered=True, transfers=(replace(moving, **transfer),))


def queued(model: Model, reason: str = "queued on gpu-01") -> Model:
    """The model, registered and waiting."""
    return replace(model, state=ModelState.QUEUED, registered=True, reason=reason)


def failed(model: Model, reason: str) -> Model:
    """The model, whose transfer gave up half way."""
    lost = Transfer("gpu-01", Phase.FAILED, (model.size_bytes or 0) // 2, model.size_bytes, error=reason)
    return replace(model, state=ModelState.FAILED, registered=True, reason=reason, transfers=(lost,))


def paused(model: Model) -> Model:
    """The model, stopped half way."""
    halted = Transfer("gpu-01", Phase.PAUSED, (model.size_bytes or 0) // 2, model.size_bytes)
    return replace(model, state=ModelState.PAUSED, registered=True, transfers=(halted,))


def deleting(model: Model) -> Model:
    """The model, on its way out."""
    return replace(downloaded(model), state=ModelState.DELETING, registered=False)


NO_SPACE = "No space left on gpu-01: 13.8 GB needed, 2.1 GB free."


def fleet(**changes: object) -> Fleet:
    """A living fleet: nothing happens, one model is there."""
    models = catalog()
    given = {
        "models": (models[0], downloaded(models[1]), *models[2:]),
        "nodes": (GPU_NODE,),
        "router": LOCAL_ROUTER,
        "connection": LIVE,
    }
    return Fleet(**{**given, **changes})


def busy() -> Fleet:
    """Every state at once."""
    models = list(catalog())
    models[0] = downloading(models[0], 0.38)
    models[1] = downloaded(models[1], "gpu-01", "gpu-02")
    models[2] = queued(models[2])
    models[4] = failed(models[4], NO_SPACE)
    models[5] = downloading(
        models[5],
        0.71,
        phase=Phase.RETRYING,
        retry_in_s=4.0,
        attempt=2,
        bytes_per_s=None,
        eta_s=None,
        error="connection reset by the hub",
    )
    models[6] = paused(models[6])
    models[7] = deleting(models[7])
    models[8] = downloaded(models[8])
    models[9] = downloading(models[9], 1.0, phase=Phase.VERIFYING, bytes_per_s=None, eta_s=None)
    return fleet(models=tuple(models), nodes=(GPU_NODE, SECOND_NODE))


def first_start() -> Fleet:
    """The catalog, before any router has answered, ever."""
    return Fleet(catalog(), connection=Connection(Link.CONNECTING, problem="starting the service"))


def unreachable() -> Fleet:
    """The last list, from a router that is silent now."""
    lost = Connection(
        Link.LOST,
        "No router answers at http://10.0.0.7:8080.",
        "Check its address with --router, or leave it out to use this machine.",
        heard_at=NOW - 131,
        retry_at=NOW + 7,
    )
    router = RouterInfo("llmlb 5.7.1", "http://10.0.0.7:8080", "5.7.1", "G4")
    return replace(busy(), connection=lost, router=router)


def refused() -> Fleet:
    """A router that wants a key."""
    connection = Connection(
        Link.REFUSED, "The router wants a valid API key.", "Give one with --api-key or MODELHUB_API_KEY."
    )
    router = RouterInfo("llmlb 5.7.1", "http://10.0.0.7:8080", "5.7.1", "G4")
    return Fleet(catalog(), (), router, connection)


def no_node() -> Fleet:
    """A registered model waits, and nobody comes."""
    models = list(catalog())
    models[0] = queued(models[0], "no node online")
    return fleet(models=tuple(models), nodes=(replace(GPU_NODE, status=NodeStatus.OFFLINE),))


def many(count: int) -> Fleet:
    """`count` models with different names."""
    base = catalog()
    models = tuple(
        replace(
            base[at % len(base)],
            key=f"{base[at % len(base)].key}#{at}",
            name=f"{base[at % len(base)].name}-{at}",
            title=f"{base[at % len(base)].title} v{at}",
        )
        for at in range(count)
    )
    return fleet(models=models)
