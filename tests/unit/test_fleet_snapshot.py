"""The fleet kept between two starts: whole, quick, and never believed when it is not ours."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub_tui.domain import (
    CatalogEntry,
    CatalogFile,
    Connection,
    Event,
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
from modelhub_tui.snapshot import MOST_MODELS, NOT_KEPT, SHAPES, fleet_path, load_fleet, rejoin, save_fleet
from modelhub_tui.states import join_models


def entry(number: int = 1) -> CatalogEntry:
    return CatalogEntry(
        id=f"m{number}",
        name=f"Modèle {number}",
        description="A description\nof two lines.",
        repo=f"Owner/Repo-{number}",
        files=(CatalogFile("a.gguf", 10, "ab" * 32),),
        tags=("chat", "模型"),
    )


def a_fleet() -> Fleet:
    transfer = Transfer("n", Phase.FETCHING, 3, 9, 100.0, 2.5, "a.gguf", 1, 1, 1, 6, None, "slow", "stalled", 9.0, 7)
    transfer = replace(transfer, history=(Event(5.0, "stalled at 3 B, retried"), Event(6.5, "went on")))
    gone = Transfer("m", Phase.VERIFYING, orphaned=True)
    stats = HubStats(1, None, True)
    placement = Placement("n", "/x/a.gguf", ("/x/a.gguf",), 10, "1", verified=False, unverified=("/x/a.gguf",))
    first, second = join_models((entry(1), entry(2)), None)
    return Fleet(
        models=(
            replace(
                first,
                state=ModelState.DOWNLOADING,
                registered=True,
                paused=True,
                queue_position=2,
                transfers=(transfer,),
                stats=stats,
            ),
            replace(second, state=ModelState.DOWNLOADED, registered=True, placements=(placement,), transfers=(gone,)),
        ),
        nodes=(Node("1", "n", NodeStatus.ONLINE, 5.5, (Gpu("A", 8, 2),), 1, 2, 3, "/m", 4, 5, 6, 7, 8, "1.0"),),
        router=RouterInfo("this machine", "http://127.0.0.1:1", "0.1", "local", True),
        connection=Connection(Link.LIVE, heard_at=123.0),
    )


def test_comes_back_as_it_was_but_without_what_time_makes_wrong(tmp_path: Path) -> None:
    path = tmp_path / "new" / "fleet.json"
    fleet = a_fleet()
    save_fleet(path, fleet, "stamp")
    kept = load_fleet(path)
    assert kept is not None
    assert kept.catalog == "stamp"
    loaded = kept.fleet
    still = replace(fleet.models[0].transfers[0], bytes_per_s=None, eta_s=None, stalled_s=None)
    assert loaded.models == (replace(fleet.models[0], transfers=(still,)), fleet.models[1])
    assert (loaded.nodes, loaded.router) == (fleet.nodes, fleet.router)
    assert loaded.connection == Connection(Link.CONNECTING, heard_at=123.0)


def test_of_a_huge_fleet_it_keeps_the_beginning_and_all_that_is_on_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    models = join_models(tuple(entry(number) for number in range(MOST_MODELS + 100)), None)
    held = replace(models[-1], state=ModelState.DOWNLOADED, placements=(Placement("n", "/x/a.gguf"),))
    save_fleet(path, replace(a_fleet(), models=(*models[:-1], held)))
    kept = load_fleet(path)
    assert kept is not None
    assert kept.fleet.models == (*models[: MOST_MODELS - 1], held)
    assert kept.fleet.unlisted == 100
    # A session in which the router never answered forgets nothing.
    save_fleet(path, kept.fleet)
    again = load_fleet(path)
    assert again is not None and again.fleet.unlisted == 100


def test_keeps_every_member_of_what_it_keeps() -> None:
    for kind, shape in SHAPES.items():
        assert {each.name for each in fields(kind)} - NOT_KEPT == set(shape) - NOT_KEPT, kind


def test_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    old = os.umask(0)
    try:
        save_fleet(path, a_fleet())
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["fleet.json"]


def test_keeps_the_old_file_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    save_fleet(path, a_fleet())
    before = path.read_bytes()
    bad = replace(a_fleet(), router=RouterInfo(label=object()))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        save_fleet(path, bad)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["fleet.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(version=2),
        lambda raw: raw.update(shape="Model:key"),
        lambda raw: raw.update(models=None),
        lambda raw: raw.update(models=[[]]),
        lambda raw: raw["models"][0].__setitem__(2, "\x1b[2J"),
        lambda raw: raw["models"][0].__setitem__(2, "\u202eevil"),
        lambda raw: raw["models"][0].__setitem__(2, 7),
        lambda raw: raw["models"][0].__setitem__(6, "nonsense"),
        lambda raw: raw["models"][0].__setitem__(10, ["a", None]),
        lambda raw: raw["models"][0].__setitem__(11, -1),
        lambda raw: raw["models"][0].__setitem__(11, True),
        lambda raw: raw["models"][0].__setitem__(11, 1.5),
        lambda raw: raw["models"].append(raw["models"][0]),
        lambda raw: raw.update(heard_at=float("nan")),
        lambda raw: raw.update(router=None),
        lambda raw: raw["nodes"][0].__setitem__(4, {}),
    ],
)
def test_believes_nothing_else(tmp_path: Path, change: object) -> None:
    path = tmp_path / "fleet.json"
    save_fleet(path, a_fleet())
    raw = json.loads(path.read_text())
    change(raw)  # type: ignore[operator]
    path.write_text(json.dumps(raw))
    assert load_fleet(path) is None


def test_believes_no_file_that_others_may_write(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    save_fleet(path, a_fleet())
    path.chmod(0o620)
    assert load_fleet(path) is None


def test_follows_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    save_fleet(path, a_fleet())
    (tmp_path / "link.json").symlink_to(path)
    os.mkfifo(tmp_path / "pipe.json", 0o600)
    assert load_fleet(tmp_path / "link.json") is None
    assert load_fleet(tmp_path / "pipe.json") is None
    assert load_fleet(tmp_path / "none.json") is None
    assert load_fleet(tmp_path) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 5000))
def test_survives_any_damage(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("f") / "fleet.json"
    save_fleet(path, a_fleet())
    data = bytearray(path.read_bytes())
    data[at % len(data) : at % len(data) + len(noise)] = noise
    path.write_bytes(data)
    loaded = load_fleet(path)
    assert loaded is None or all(type(each) is Model for each in loaded.fleet.models)


def test_todays_catalog_wins_over_yesterdays_words() -> None:
    kept = a_fleet()
    today = (replace(entry(1), name="New name"), entry(3))
    joined = rejoin(today, kept)
    assert [(each.title, each.state) for each in joined.models] == [
        ("New name", ModelState.DOWNLOADING),
        ("Modèle 3", ModelState.AVAILABLE),
        ("Modèle 2", ModelState.DOWNLOADED),  # registered, and no longer in the catalog
    ]
    assert joined.nodes == kept.nodes


def test_an_entry_taken_out_of_the_catalog_is_gone_unless_registered() -> None:
    kept = Fleet(models=join_models((entry(1), entry(2)), None))
    assert [each.key for each in rejoin((entry(1),), kept).models] == [kept.models[0].key]


def test_without_a_kept_fleet_there_is_the_catalog() -> None:
    assert [each.state for each in rejoin((entry(1),), None).models] == [ModelState.AVAILABLE]


def test_two_routers_do_not_share_a_file(tmp_path: Path) -> None:
    paths = {
        fleet_path(tmp_path, router, catalog) for router in (None, "http://a", "http://b") for catalog in ("x", "y")
    }
    assert len(paths) == 6
