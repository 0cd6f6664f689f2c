"""States, fits and joins: pure functions, so every combination that matters is tried."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui import domain
from modelhub_tui.domain import (
    IN_FLIGHT,
    CatalogEntry,
    CatalogFile,
    Fleet,
    Gpu,
    HubStats,
    Model,
    ModelState,
    Node,
    NodeStatus,
    Phase,
    Placement,
    RouterModel,
    RouterReport,
    Transfer,
)
from modelhub_tui.states import Fit, FitKind, derive_state, fit, join_models, model_key

ACTIVE = {Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING}
ONLINE = Node("1", "node-a", NodeStatus.ONLINE)
OFFLINE = Node("2", "node-b", NodeStatus.OFFLINE)
PHASE_SETS = [set(each) for n in range(len(Phase) + 1) for each in itertools.combinations(Phase, n)]


def expected_state(
    registered: bool,
    deleting: bool,
    placed: bool,
    phases: set[Phase],
    *,
    paused: bool = False,
    orphaned: bool = False,
) -> ModelState:
    """The design's table of states, read from top to bottom. `phases` are those of transfers that have a worker."""
    table = [
        (deleting, ModelState.DELETING),
        (placed, ModelState.DOWNLOADED),
        (bool(phases & ACTIVE), ModelState.DOWNLOADING),
        (not registered, ModelState.AVAILABLE),
        (paused, ModelState.PAUSED),
        (Phase.PAUSED in phases, ModelState.PAUSED),
        (Phase.WAITING in phases, ModelState.QUEUED),
        (Phase.FAILED in phases, ModelState.FAILED),
        (orphaned, ModelState.FAILED),
        (True, ModelState.QUEUED),
    ]
    return next(state for applies, state in table if applies)


class TestDeriveState:
    @pytest.mark.parametrize("registered", [True, False])
    @pytest.mark.parametrize("deleting", [True, False])
    @pytest.mark.parametrize("placed", [True, False])
    @pytest.mark.parametrize("paused", [True, False])
    @pytest.mark.parametrize("nodes", [(), (OFFLINE,), (ONLINE,)], ids=["no node", "offline", "online"])
    def test_every_combination(
        self, registered: bool, deleting: bool, placed: bool, paused: bool, nodes: tuple[Node, ...]
    ) -> None:
        for phases, orphans in itertools.product(PHASE_SETS, [(), *((phase,) for phase in Phase)]):
            working = [Transfer("node-a", phase) for phase in phases]
            left = [Transfer("node-b", phase, orphaned=True) for phase in orphans]
            state, reason = derive_state(
                registered=registered,
                deleting=deleting,
                paused=paused,
                placements=[Placement("node-a")] if placed else [],
                transfers=[*left, *working],
                nodes=nodes,
            )
            expected = expected_state(registered, deleting, placed, phases, paused=paused, orphaned=bool(orphans))
            assert state is expected, (phases, orphans)
            # Who waits or has failed is told why; nobody else is.
            assert bool(reason) == (state in (ModelState.QUEUED, ModelState.FAILED)), (state, reason)

    @given(
        registered=st.booleans(),
        deleting=st.booleans(),
        placements=st.lists(st.builds(Placement, st.sampled_from(["a", "b"])), max_size=3),
        transfers=st.lists(
            st.builds(
                Transfer,
                node=st.sampled_from(["a", "b"]),
                phase=st.sampled_from(Phase),
                bytes_done=st.integers(0, 10),
                error=st.one_of(st.none(), st.just("disk full")),
            ),
            max_size=6,
        ),
        nodes=st.lists(st.builds(Node, st.text(max_size=2), st.just("n"), st.sampled_from(NodeStatus)), max_size=3),
        random=st.randoms(use_true_random=False),
    )
    def test_invariants(self, registered, deleting, placements, transfers, nodes, random) -> None:
        def state(**changes: object) -> ModelState:
            given = {"registered": registered, "deleting": deleting, "placements": placements}
            return derive_state(**{**given, "transfers": transfers, "nodes": nodes, **changes})[0]

        now = state()
        assert now is expected_state(registered, deleting, bool(placements), {each.phase for each in transfers})
        # The order in which nodes report must not make a card flicker.
        shuffled = random.sample(transfers, len(transfers))
        assert state(transfers=shuffled, nodes=nodes[::-1], placements=placements[::-1]) is now
        # One more whole copy never makes a model less there.
        if not deleting:
            assert state(placements=[*placements, Placement("c")]) is ModelState.DOWNLOADED
        # A second node's trouble does not hide the first one's progress.
        if now is ModelState.DOWNLOADING:
            assert state(transfers=[*transfers, Transfer("c", Phase.FAILED)]) is ModelState.DOWNLOADING
        # Only what is registered can wait, pause or fail.
        if now in IN_FLIGHT - {ModelState.DOWNLOADING}:
            assert registered
        # A node that says nothing about this model changes no state.
        assert state(nodes=[*nodes, ONLINE]) is now

    def test_iterators_are_as_good_as_lists(self) -> None:
        transfers = (each for each in [Transfer("a", Phase.FAILED), Transfer("b", Phase.FETCHING)])
        assert (
            derive_state(registered=True, transfers=transfers, placements=iter(()), nodes=iter(()))[0] == "downloading"
        )

    @pytest.mark.parametrize(
        ("transfers", "nodes", "reason"),
        [
            ((), (), "no node online"),
            ((), (OFFLINE,), "no node online"),
            ((), (OFFLINE, ONLINE), "waiting for node-a"),
            ((Transfer("gpu", Phase.WAITING),), (ONLINE,), "queued on gpu"),
            ((Transfer("gpu", Phase.WAITING, error="No space left."),), (), "No space left."),
            ((Transfer("gpu", Phase.FAILED),), (), "failed on gpu"),
            ((Transfer("gpu", Phase.FAILED, error="Wrong checksum."),), (), "Wrong checksum."),
            ((Transfer("gpu", Phase.PAUSED),), (), ""),
            ((Transfer("gpu", Phase.PAUSED, error="The hub is away."),), (), "The hub is away."),
            ((Transfer("gpu", Phase.RETRYING, error="Connection reset."),), (), "Connection reset."),
            ((Transfer("a", Phase.FAILED, error="Old."), Transfer("b", Phase.FETCHING)), (), ""),
            (
                (Transfer("gpu-01", Phase.FETCHING, orphaned=True),),
                (OFFLINE,),
                "gpu-01 is offline; nobody works on this download.",
            ),
            # Somebody else works on it, or will: then the one that is gone explains nothing.
            ((Transfer("gpu-01", Phase.FETCHING, orphaned=True), Transfer("b", Phase.FETCHING)), (), ""),
            ((Transfer("gpu-01", Phase.FAILED, orphaned=True), Transfer("b", Phase.WAITING)), (), "queued on b"),
        ],
    )
    def test_reasons(self, transfers: tuple[Transfer, ...], nodes: tuple[Node, ...], reason: str) -> None:
        assert derive_state(registered=True, transfers=transfers, nodes=nodes)[1] == reason


class TestFit:
    CPU = Node("1", "cpu", NodeStatus.ONLINE, ram_bytes=32)
    GPU = Node("2", "gpu", NodeStatus.ONLINE, gpus=(Gpu("big", 12, 2), Gpu("small", 8)), ram_bytes=64)

    @pytest.mark.parametrize(
        ("required", "nodes", "answer"),
        [
            (10, (), Fit(FitKind.UNKNOWN)),
            (None, (GPU,), Fit(FitKind.UNKNOWN)),
            (0, (GPU,), Fit(FitKind.UNKNOWN)),
            (10, (Node("3", "says nothing", NodeStatus.ONLINE),), Fit(FitKind.UNKNOWN)),
            (32, (CPU,), Fit(FitKind.RAM)),
            (33, (CPU,), Fit(FitKind.TOO_BIG, 1)),
            (32, (GPU,), Fit(FitKind.GPU)),
            (33, (GPU,), Fit(FitKind.TOO_BIG, 1)),
            # Where there is a card anywhere, main memory no longer counts.
            (40, (CPU, GPU), Fit(FitKind.TOO_BIG, 8)),
        ],
    )
    def test_answers(self, required: int | None, nodes: tuple[Node, ...], answer: Fit) -> None:
        assert fit(required, nodes) == answer
        assert fit(required, iter(nodes[::-1])) == answer

    @given(
        st.one_of(st.none(), st.integers(0, 100)),
        st.lists(
            st.builds(
                Node,
                st.just("1"),
                st.just("n"),
                st.sampled_from(NodeStatus),
                gpus=st.lists(st.builds(Gpu, st.just("g"), st.integers(0, 50), st.integers(0, 4)), max_size=2).map(
                    tuple
                ),
                ram_bytes=st.one_of(st.none(), st.integers(0, 100)),
            ),
            max_size=4,
        ),
    )
    def test_it_fits_or_says_by_how_much_it_does_not(self, required: int | None, nodes: list[Node]) -> None:
        answer = fit(required, nodes)
        assert (answer.short_by_bytes > 0) == (answer.kind is FitKind.TOO_BIG)
        if answer.kind is FitKind.TOO_BIG:
            assert required is not None
            assert fit(required - answer.short_by_bytes, nodes).kind in (FitKind.GPU, FitKind.RAM)
            assert fit(required - answer.short_by_bytes + 1, nodes).kind is FitKind.TOO_BIG


class TestModelKey:
    def test_owner_and_name_are_the_hubs_and_so_is_their_case(self) -> None:
        assert model_key("Owner/Name", "A.gguf") == model_key("owner/NAME", "A.gguf") == "owner/name::A.gguf"

    def test_files_differ_by_case(self) -> None:
        assert model_key("o/n", "A.gguf") != model_key("o/n", "a.gguf")

    def test_no_file(self) -> None:
        assert model_key("o/n", None) == "o/n::"


def entry(identifier: str, repo: str, *files: str, **more: object) -> CatalogEntry:
    return CatalogEntry(identifier, identifier.title(), "", repo, tuple(CatalogFile(each) for each in files), **more)


def told(repo: str, file: str | None, *, registered: bool = True, **more: object) -> RouterModel:
    return RouterModel(more.pop("name", f"{repo.lower()}"), repo, file, registered, **more)


class TestJoinModels:
    def test_before_a_router_has_answered_everything_is_available(self) -> None:
        (model,) = join_models([entry("a", "O/A", "a.gguf", tags=("chat",), license="mit")], None)
        assert (model.key, model.name, model.title) == ("o/a::a.gguf", "o/a", "A")
        assert (model.catalog_id, model.tags, model.license) == ("a", ("chat",), "mit")
        assert model.state is ModelState.AVAILABLE
        assert not model.registered

    def test_catalog_order_first_then_the_others_by_name(self) -> None:
        catalog = [entry("b", "o/b", "b.gguf"), entry("a", "o/a", "a.gguf")]
        report = RouterReport((told("x/z", "z"), told("o/a", "a.gguf"), told("x/y", "y")))
        assert [each.name for each in join_models(catalog, report)] == ["o/b", "o/a", "x/y", "x/z"]

    def test_the_routers_view_decides_the_state_and_the_catalog_describes(self) -> None:
        one = entry("a", "O/A", "a.gguf", quantization="Q4_K_M")
        seen = told("o/a", "a.gguf", name="o/a:q4", title="Theirs", quantization="other", placements=(Placement("n"),))
        (model,) = join_models([one], RouterReport((seen,)))
        assert (model.name, model.title, model.repo, model.quantization) == ("o/a:q4", "A", "O/A", "Q4_K_M")
        assert (model.state, model.placements) == (ModelState.DOWNLOADED, seen.placements)

    def test_another_file_of_the_repo_is_another_model(self) -> None:
        models = join_models([entry("a", "o/a", "a.Q4.gguf")], RouterReport((told("o/a", "a.Q8.gguf"),)))
        assert [each.state for each in models] == [ModelState.AVAILABLE, ModelState.QUEUED]
        assert [each.catalog_id for each in models] == ["a", None]

    @pytest.mark.parametrize("file", [None, "m-2.gguf"], ids=["no file", "another shard"])
    def test_a_router_that_names_the_file_otherwise_means_the_same_model(self, file: str | None) -> None:
        sharded = entry("a", "o/a", "m-1.gguf", "m-2.gguf")
        (model,) = join_models([sharded], RouterReport((told("o/a", file),)))
        assert (model.key, model.file, model.registered) == ("o/a::m-1.gguf", "m-1.gguf", True)

    def test_an_exact_match_is_not_given_to_a_neighbour(self) -> None:
        catalog = [entry("a", "o/r", "a.bin"), entry("b", "o/r", "b.bin")]
        first, second = join_models(catalog, RouterReport((told("o/r", "b.bin"),)))
        assert (first.registered, second.registered) == (False, True)

    def test_an_exact_match_is_not_given_to_an_entry_that_lists_the_file_further_down(self) -> None:
        catalog = [entry("a", "o/r", "a.bin", "b.bin"), entry("b", "o/r", "b.bin")]
        first, second = join_models(catalog, RouterReport((told("o/r", "b.bin"),)))
        assert (first.registered, second.registered) == (False, True)

    def test_what_is_registered_wins_over_what_is_merely_listed(self) -> None:
        listed, registered = told("o/a", "a", registered=False), told("o/a", "a", name="real")
        for models in ((listed, registered), (registered, listed)):
            (model,) = join_models([], RouterReport(models))
            assert (model.name, model.registered) == ("real", True)

    def test_a_model_only_the_router_knows(self) -> None:
        seen = told("Some/Thing-GGUF", "t.gguf", size_bytes=0, required_memory_bytes=0)
        (model,) = join_models([], RouterReport((seen,)))
        assert (model.title, model.files, model.catalog_id) == ("Thing-GGUF", ("t.gguf",), None)
        assert (model.size_bytes, model.required_memory_bytes) == (None, None), "0 is how routers write unknown"
        (model,) = join_models([], RouterReport((told("o/n", None, title="Named", size_bytes=7),)))
        assert (model.title, model.files, model.size_bytes) == ("Named", (), 7)

    def test_stats_come_from_the_router_or_from_us(self) -> None:
        ours, theirs = HubStats(1, 2), HubStats(3, 4)
        catalog = [entry("a", "O/A", "a"), entry("b", "O/B", "b"), entry("c", "O/C", "c")]
        report = RouterReport((told("o/a", "a", stats=theirs), told("o/b", "b")))
        models = join_models(catalog, report, {"o/a": ours, "o/b": ours, "o/c": ours})
        assert [each.stats for each in models] == [theirs, ours, ours]
        assert join_models(catalog, report)[1].stats is None

    def test_nodes_explain_why_a_model_waits(self) -> None:
        report = RouterReport((told("o/a", "a"),), (ONLINE,))
        assert join_models([], report)[0].reason == "waiting for node-a"

    @given(
        st.lists(
            st.tuples(st.sampled_from("AaBb"), st.lists(st.sampled_from("xyz"), min_size=1, max_size=3)), max_size=6
        ),
        st.lists(st.tuples(st.sampled_from("AaBb"), st.sampled_from(["x", "y", "z", None]), st.booleans()), max_size=8),
    )
    def test_nothing_is_lost_doubled_or_mixed_up(self, entries, reported) -> None:
        catalog = {}
        for repo, files in entries:
            catalog.setdefault(
                model_key(f"o/{repo}", files[0]),
                entry(f"{repo}{files[0]}", f"o/{repo}", *dict.fromkeys(files)),
            )
        models = tuple(
            told(f"o/{repo}", file, registered=registered, name=f"n{n}")
            for n, (repo, file, registered) in enumerate(reported)
        )
        joined = join_models(catalog.values(), RouterReport(models))
        keys = [each.key for each in joined]
        assert len(set(keys)) == len(keys), "two rows with one identity"
        assert keys[: len(catalog)] == list(catalog)
        # Every registered (repo, file) is in exactly one row, with the repo it belongs to.
        told_keys = {model_key(each.repo, each.file) for each in models}
        names = [each.name for each in joined if each.name.startswith("n")]
        assert len(names) == len(set(names)) == len(told_keys)
        repos = {each.name: each.repo.lower() for each in models}
        assert all(each.repo.lower() == repos[each.name] for each in joined if each.name in repos)
        registered = {model_key(each.repo, each.file) for each in models if each.registered}
        assert sum(each.registered for each in joined) == len(registered)


class TestValues:
    def test_sizes_of_an_entry(self) -> None:
        whole = CatalogEntry("a", "A", "", "o/a", (CatalogFile("x", 3), CatalogFile("y", 4)), (CatalogFile("z", 5),))
        assert (whole.size_bytes, whole.file) == (12, "x")
        partly = dataclasses.replace(whole, files=(CatalogFile("x", 3), CatalogFile("y")))
        assert partly.size_bytes is None
        assert dataclasses.replace(partly, total_bytes=20).size_bytes == 25
        assert dataclasses.replace(whole, total_bytes=20).size_bytes == 12, "exact sizes win"
        assert dataclasses.replace(whole, companions=(CatalogFile("z"),)).size_bytes is None
        assert dataclasses.replace(partly, total_bytes=20, companions=(CatalogFile("z"),)).size_bytes is None

    @pytest.mark.parametrize(
        ("done", "total", "fraction"), [(0, None, None), (5, 0, None), (0, 10, 0.0), (5, 10, 0.5), (11, 10, 1.0)]
    )
    def test_fraction(self, done: int, total: int | None, fraction: float | None) -> None:
        assert Transfer("n", Phase.FETCHING, done, total).fraction == fraction

    def test_the_transfer_to_show_is_the_one_furthest_along(self) -> None:
        failed = Transfer("a", Phase.FAILED, 900)
        slow, fast = Transfer("b", Phase.FETCHING, 10), Transfer("c", Phase.FETCHING, 20)
        base = Model("k", "n", "t", "", "o/n", None, ModelState.DOWNLOADING)
        assert base.transfer is None
        assert dataclasses.replace(base, transfers=(failed, slow, fast)).transfer is fast
        assert dataclasses.replace(base, transfers=(failed,)).transfer is failed

    def test_disk_bytes_are_of_one_copy(self) -> None:
        base = Model("k", "n", "t", "", "o/n", None, ModelState.DOWNLOADED)
        assert base.disk_bytes is None
        placements = (Placement("a"), Placement("b", disk_bytes=7), Placement("c", disk_bytes=7))
        assert dataclasses.replace(base, placements=placements).disk_bytes == 7

    def test_gpu_memory_counts_every_card(self) -> None:
        assert TestFit.GPU.gpu_memory_bytes == 32
        assert TestFit.CPU.gpu_memory_bytes == 0

    def test_a_fleet_sorts_its_models_into_moving_and_local(self) -> None:
        models = tuple(
            Model(
                state, state, state, "", "o/n", None, state, transfers=(Transfer("n", Phase.FETCHING, bytes_per_s=2.0),)
            )
            for state in ModelState
        )
        fleet = Fleet(models)
        assert {each.state for each in fleet.transferring} == {"queued", "downloading", "paused", "failed"}
        assert {each.state for each in fleet.local} == {"downloaded", "deleting"}
        assert fleet.bytes_per_s == 2.0 * len(ModelState)
        assert Fleet().bytes_per_s == 0

    def test_values_are_frozen_slotted_hashable_and_cross_processes(self) -> None:
        kinds = [each for each in vars(domain).values() if dataclasses.is_dataclass(each)]
        assert len(kinds) > 10
        for kind in kinds:
            with pytest.raises(dataclasses.FrozenInstanceError):
                kind.__setattr__(object.__new__(kind), dataclasses.fields(kind)[0].name, 1)
            assert "__dict__" not in dir(kind), kind
        fleet = Fleet(join_models([entry("a", "o/a", "a")], RouterReport((told("o/b", "b"),), (ONLINE,))), (ONLINE,))
        assert hash(fleet) == hash(pickle.loads(pickle.dumps(fleet)))
        assert pickle.loads(pickle.dumps(fleet)) == fleet


def test_the_domain_loads_nothing_heavy() -> None:
    code = "import sys, modelhub_tui.domain; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    loaded = set(done.stdout.split())
    assert not {"pydantic", "httpx", "yaml", "textual", "asyncio", "json", "huggingface_hub", "diskcache"} & loaded
