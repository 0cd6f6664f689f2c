"""The same handles on each generation's fake and on our own service, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelhub_tui.domain import Ability, CatalogEntry, CatalogFile
from tests.hub import Generated, HubRepo, LoopbackHub
from tests.routers import FakeG1, FakeG2, FakeG3, FakeG4
from tests.routers.own import OwnService, PlainNode

REPO, FILE = "bartowski/Phi-3-mini-4k-instruct-GGUF", "Phi-3-mini-4k-instruct-Q4_K_M.gguf"
NAME = REPO.lower()
OTHER_REPO, OTHER_FILE = "acme/two-files-GGUF", "two-Q8_0.gguf"
OTHER = OTHER_REPO.lower()
SIZE = 1000
CATALOG = (
    CatalogEntry(
        id="phi-3-mini",
        name="Phi-3 Mini",
        description="Compact.",
        repo=REPO,
        files=(CatalogFile(FILE, SIZE),),
        quantization="Q4_K_M",
        tags=("chat",),
        capabilities=("text_generation",),
    ),
)
GENERATIONS = ("G1", "G2", "G3", "G4", "local")


class World:
    """One router with one node or endpoint, whatever the generation calls it."""

    def __init__(self, generation: str, router: Any) -> None:
        self.generation, self.router = generation, router
        self.url, self.key = router.url, router.admin_key
        self.node: Any = None

    @property
    def has_nodes(self) -> bool:
        """Whether nodes report to it, or it asks endpoints."""
        return self.generation in ("G1", "G2", "local")

    @property
    def abilities(self) -> frozenset[Ability]:
        """What this generation can do."""
        both = {Ability.REGISTER, Ability.DELETE}
        return frozenset(
            {
                "G1": both | {Ability.PULL, Ability.CANCEL, Ability.APPROVE},
                "G2": both | {Ability.PULL, Ability.CANCEL, Ability.APPROVE},
                "G3": both,
                "G4": both | {Ability.PULL_ON_NODE, Ability.QUANTIZATION, Ability.DELETE_ON_NODE},
                "local": both | {Ability.PULL, Ability.CANCEL, Ability.RETRY},
            }[self.generation]
        )

    def add_node(self) -> None:
        """A node that is online, or an endpoint with software that takes downloads."""
        if self.generation == "local":
            self.node = PlainNode(self.url, self.router.node_key)
            assert self.node.register().is_success
            assert self.node.beat().is_success
        elif self.generation == "G4":
            self.node = self.router.add_node("gpu-01", "ollama")
        else:
            self.node = self.router.add_node("gpu-01")

    def fetching(self, name: str, done: int) -> bool:
        """Let the node report on a download; False where the generation shows none."""
        if self.generation == "local":
            self.node.progress(name, done, SIZE)
        elif self.generation == "G2":
            self.router.progress(self.node, name, done, SIZE)
        else:
            return False
        return True

    def holds(self, name: str, *, path: bool = False) -> None:
        """Let the node say that it has a model, by its name or as a stock node does by an absolute path."""
        said = f"/home/u/.llm-router/models/{name}/model.gguf" if path else name
        if self.generation == "local":
            self.node.beat(loaded_models=[said], sync_state="success")
        elif self.has_nodes:
            more = {"sync_state": "success"} if self.generation == "G2" else {}
            self.router.heartbeat(self.node, loaded_models=[said], **more)
        else:
            self.router.backend(self.node).models.append(name)
            self.router.sync(self.node)

    def sent(self, below: str) -> list[Any]:
        """Bodies of the registrations that arrived; only the fakes keep them."""
        return [each.json for each in self.router.asked("POST", f"{self.router.prefix}{below}")]

    def forget_node(self) -> None:
        """Let our own service's node say that the files are gone."""
        if self.generation == "local":
            told: dict[str, list[Any]] = {"transfers": [], "placements": []}
            assert self.node.beat(**told).is_success


@contextmanager
def open_world(generation: str, folder: Path) -> Iterator[World]:
    """Start a router of this generation."""
    made: dict[str, Callable[[], Any]] = {"G1": FakeG1, "G2": FakeG2, "G3": FakeG3, "G4": FakeG4}
    if generation in made:
        with made[generation]() as router:
            yield World(generation, router)
        return
    repos = (
        HubRepo(REPO, {FILE: Generated(SIZE, seed=1)}),
        HubRepo(OTHER_REPO, {"two-Q4_K_M.gguf": Generated(SIZE, seed=2), OTHER_FILE: Generated(SIZE, seed=3)}),
    )
    with LoopbackHub(repos) as hub, OwnService(folder, hub.url, CATALOG) as service:
        yield World(generation, service)
