"""What a hub, a node, or a database edited by hand says wrongly costs itself alone: the service answers, then and after
a restart, and what cannot be used is shown, named and removable."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub_tui.config import Settings
from modelhub_tui.service.router import rows
from modelhub_tui.service.router.hub import MAX_LISTED
from modelhub_tui.service.router.records import BadRecord, NodeRecord, Registration
from modelhub_tui.service.router.store import Store
from modelhub_tui.untrusted import clean, clean_block
from tests.faults.machine import Machine
from tests.hub import Generated, HubRepo, LoopbackHub
from tests.service.conftest import FakeNode, Service, open_service
from tests.service.test_nodes_api import registration
from tests.service.test_store import NODE

WORDS = (
    "evil\x07/x",
    "\x1b]0;owned\x07",
    "a\x00b",
    "\u202eevil",
    "x" * 300,
    "a\ud800",
    "main",
    "../../etc",
    "<script>",
    "",
)
VALUES: tuple[Any, ...] = (*WORDS, True, 1.5, -1, 2**70, "12", None, [], {}, [["x"]], {"a": "\ud800"})


async def _serves(service: Service) -> dict[str, dict[str, Any]]:
    """The list of models by name; every list must answer, and hold no word that could do anything to a reader."""
    for client in (service.admin, service.node):
        for path in ("/v0/models", "/v0/models/hub", "/v1/models", "/v0/nodes", "/v0/trash"):
            answer = await client.get(path)
            assert answer.status_code in (200, 403), (path, answer.text)
    models = await service.models()
    for each in models.values():
        assert each["filename"] is None or clean(each["filename"]) == each["filename"]
        for key in ("name", "title", "repo", "license", "reason", "quantization", "parameter_count"):
            assert clean(each[key]) == each[key], (key, each[key])
        assert clean_block(each["description"]) == each["description"]
        assert all(clean(word) == word for word in (*each["tags"], *each["capabilities"]))
        assert each["context_length"] is None or 0 < each["context_length"] < 2**53
    return models


def _hostile(field: str, value: Any) -> dict[str, Any]:
    """A hub's answer with one field of it replaced; fields of the one file are named with a dot before them."""
    file = {"rfilename": "m.gguf", "size": 10, "blobId": "a" * 40, "lfs": {"sha256": "b" * 64, "size": 10}}
    file["lfs"]["pointerSize"] = 100  # type: ignore[index]
    if field.startswith(".lfs."):
        file["lfs"][field[5:]] = value  # type: ignore[index]
    elif field.startswith("."):
        file[field[1:]] = value
    extra: dict[str, Any] = {"siblings": [file]}
    if field.startswith("gguf."):
        extra["gguf"] = {field[5:]: value}
    elif not field.startswith("."):
        extra[field] = value
    return extra


FIELDS = (
    *(
        "id",
        "sha",
        "siblings",
        "tags",
        "pipeline_tag",
        "gated",
        "disabled",
        "config",
        "gguf",
        "safetensors",
        "cardData",
    ),
    *(".rfilename", ".size", ".blobId", ".lfs", ".lfs.sha256", ".lfs.size"),
    *("gguf.context_length", "gguf.total", "gguf.chat_template"),
)


@pytest.mark.parametrize("field", FIELDS)
async def test_no_word_of_a_hub_harms_the_lists(field: str, tmp_path: Path, hub: LoopbackHub) -> None:
    async with open_service(tmp_path, hub.url) as service:
        for number, value in enumerate(VALUES):
            told = [value] if field == "tags" and isinstance(value, str) else value
            repo = hub.add(HubRepo(f"acme/h{number}", {"m.gguf": b"x"}, extra=_hostile(field, told)))
            answer = await service.register(repo.id)
            assert answer.status_code < 500 or answer.json()["code"] == "hub_failed", answer.text
            said = answer.json().get("error", "")
            assert clean(said, 1000) == said
        now = await _serves(service)
        manifests = {
            name: await service.node.get(f"/v0/models/registry/{quote(name, safe='')}/manifest.json")
            for name, each in now.items()
            if each["registered"]
        }
    assert all(each.status_code == 200 for each in manifests.values())
    async with open_service(tmp_path, hub.url) as service:
        assert await _serves(service) == now
        assert (await service.register("acme/Tiny-GGUF")).status_code == 201


@pytest.mark.parametrize("said", ["other/x", "acme/other", "acme", "acme/a/b", "acme/..", "acme/fine\x07"])
async def test_a_repo_is_the_one_that_was_asked_for(said: str, tmp_path: Path, hub: LoopbackHub) -> None:
    hub.add(HubRepo("acme/fine", {"m.gguf": b"x"}, extra={"id": said}))
    async with open_service(tmp_path, hub.url) as service:
        answer = await service.register("acme/fine")
        assert answer.status_code >= 400 and clean(answer.json()["error"], 1000) == answer.json()["error"]
        assert not service.router.registry.records


async def test_a_renamed_repo_has_the_files_that_it_has_under_its_new_name(tmp_path: Path, hub: LoopbackHub) -> None:
    other = hub.add(HubRepo("other/x", {"m.gguf": b"theirs"}))
    hub.add(HubRepo("acme/fine", {"m.gguf": b"mine"}, extra={"id": "other/x", "sha": other.sha}))
    async with open_service(tmp_path, hub.url) as service:
        await service.register("acme/fine")
        (record,) = service.router.registry.records.values()
        assert (record.repo, record.files[0].sha256) == ("other/x", other["m.gguf"].sha256)


async def test_a_commit_is_the_one_that_was_asked_for(tmp_path: Path, hub: LoopbackHub) -> None:
    repo = hub.add(HubRepo("acme/fine", {"m.gguf": b"x"}))
    repo.extra = {"sha": "e" * 40}
    async with open_service(tmp_path, hub.url) as service:
        answer = await service.register("acme/fine", revision=repo.sha)
        assert (answer.status_code, answer.json()["code"]) == (400, "changed_upstream")


async def test_a_checksum_in_capitals_is_the_same_checksum(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.add(HubRepo("acme/caps", {"m.gguf": b"x"}, extra=_hostile(".lfs.sha256", "AB" * 32)))
    async with open_service(tmp_path, hub.url) as service:
        await service.register("acme/caps")
        assert service.router.registry.records["acme/caps"].files[0].sha256 == "ab" * 32


async def test_a_repo_of_too_many_files_is_called_that(tmp_path: Path, hub: LoopbackHub) -> None:
    files = [{"rfilename": f"{number}.txt", "size": 1, "blobId": "a" * 40} for number in range(MAX_LISTED + 1)]
    hub.add(HubRepo("acme/huge", {"m.gguf": b"x"}, extra={"siblings": files}))
    async with open_service(tmp_path, hub.url) as service:
        answer = await service.register("acme/huge")
    assert answer.json()["code"] == "unsupported" and "100001 files" in answer.json()["error"]


# -- the database


def _plant(path: Path, table: str, key: str | bytes, body: Any) -> None:
    """Put a row there by hand; `body` may be text that is no JSON."""
    text = body if isinstance(body, (str, bytes)) else json.dumps(body)
    with sqlite3.connect(path) as db:
        more = {"models": ("name", ""), "trash": ("name, deleted_at", "1000.0,"), "nodes": ("id", "")}[table]
        db.execute(
            f"INSERT OR REPLACE INTO {table} ({more[0]}, body) VALUES (CAST(? AS TEXT), {more[1]} CAST(? AS TEXT))",
            (key, text),
        )
    db.close()


GOOD = registration("acme/bad", "acme/bad", "m.gguf").to_json()
BAD_ROWS: list[tuple[str | bytes, Any]] = [
    ("acme/bad", {**GOOD, "revision": "main"}),
    ("acme/bad", {**GOOD, "name": "acme/other"}),
    ("acme/bad", {**GOOD, "deleting": "no"}),
    ("acme/bad", {**GOOD, "queue": float("nan")}),
    ("acme/bad", {**GOOD, "files": []}),
    ("acme/bad", {**GOOD, "files": [{**GOOD["files"][0], "path": "../../.ssh/id"}]}),
    ("acme/bad", {**GOOD, "files": [{**GOOD["files"][0], "size": 2**70}]}),
    ("acme/bad", {**GOOD, "files": [{**GOOD["files"][0], "sha256": "\ud800"}]}),
    ("acme/bad", "{"),
    ("acme/bad", "[" * 100_000),
    ("acme/bad", b"\xff\xfe{"),
    ("acme/evil\x07", {**GOOD, "name": "acme/evil\x07"}),
    ("\x1b]0;owned\x07", {}),
    (b"\xff\xfe/x", {}),
    ("", GOOD),
    ("acme/" + "x" * 400, {**GOOD, "name": "acme/" + "x" * 400}),
]


@pytest.mark.parametrize(("key", "body"), BAD_ROWS, ids=[f"row{at}" for at in range(len(BAD_ROWS))])
async def test_a_bad_row_costs_itself_is_shown_and_can_be_removed(key: str | bytes, body: Any, tmp_path: Path) -> None:
    path = tmp_path / "modelhub.db"
    store = Store(path)
    for name in ("acme/a", "acme/z"):
        await store.apply([rows.put_model(registration(name, name))])
    identity = store.id
    store.close()
    _plant(path, "models", key, body)
    async with open_service(tmp_path) as service:
        models = await _serves(service)
        assert service.router.store.id == identity and service.router.store.notice == ""
        [bad] = [each for each in models.values() if each["unusable"]]
        assert {"acme/a", "acme/z"} <= models.keys() and bad["registered"] and bad["status"] == "error"
        assert "cannot be read" in bad["reason"]
        told = {each["name"]: each for each in (await service.node.get("/v0/models")).json()}
        assert told.keys() == {"acme/a", "acme/z"} | ({"acme/bad"} if key == "acme/bad" else set())
        assert all(clean(name, 300) == name for name in told)
        answer = await service.admin.delete(f"/v0/models/{quote(bad['name'], safe='')}")
        assert answer.status_code == 204
        assert (await service.models()).keys() == models.keys() - {bad["name"]}
    async with open_service(tmp_path) as service:
        assert not any(each["unusable"] for each in (await _serves(service)).values())


async def test_registering_it_again_mends_a_bad_row(tmp_path: Path, hub: LoopbackHub) -> None:
    path = tmp_path / "modelhub.db"
    Store(path).close()
    _plant(path, "models", "acme/tiny-gguf", "{")
    async with open_service(tmp_path, hub.url) as service:
        models = await _serves(service)
        assert models["acme/tiny-gguf"]["unusable"] and models["acme/tiny-gguf"]["id"] == "tiny"
        assert len([each for each in models.values() if each["repo"] == "acme/Tiny-GGUF"]) == 1
        assert (await service.register("acme/Tiny-GGUF")).json()["name"] == "acme/tiny-gguf"
        assert (await service.models())["acme/tiny-gguf"]["unusable"] is False


async def test_bytes_of_an_unreadable_deletion_are_kept_until_their_time(tmp_path: Path) -> None:
    path = tmp_path / "modelhub.db"
    Store(path).close()
    _plant(path, "trash", "acme/gone", "{")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE trash SET deleted_at = 1799999999.0")
    db.close()
    async with open_service(tmp_path) as service:
        await _serves(service)
        node = FakeNode(service.node)
        await node.register()
        held = {"transfers": [], "placements": [], "trash": [{"name": "acme/gone", "bytes": 5}]}
        assert (await node.beat(**held)).json()["kept"] == ["acme/gone"]
        service.clock.now += 3601
        await service.router.trash.tidy()
        assert (await node.beat(**held)).json()["kept"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"body": {"machine_name": "\x07"}},
        {"token_hash": 5},
        {"approved": "yes"},
        {"id": "\x1b"},
        {"placements": [["acme/a", {"node": 5}], "x", ["acme/b", {"node": "box", "disk_bytes": 2**70}]]},
        {"last_seen": 1e30},
    ],
)
async def test_a_bad_row_of_a_node_costs_no_start(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "modelhub.db"
    Store(path).close()
    _plant(path, "nodes", "n1", {**NODE.to_json(), **change})
    async with open_service(tmp_path) as service:
        await _serves(service)
        node = FakeNode(service.node)
        assert (await node.register()).status_code in (200, 201)


@pytest.mark.parametrize(
    ("key", "value"),
    [("limits", '{"parallel_transfers": null, "trash_seconds": -5, "trash_bytes": 1e999}'), ("store_id", "a\r\nb: c")],
)
async def test_a_bad_setting_costs_itself(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "modelhub.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    db.close()
    async with open_service(tmp_path) as service:
        await _serves(service)
        assert (await service.admin.get("/v0/service/limits")).json()["parallel_transfers"] == 2
        assert (await service.admin.get("/v0/models")).headers["x-modelhub-store"].replace("-", "").isalnum()


# -- nodes


@pytest.mark.parametrize(
    "said",
    [
        {"transfers": [{"name": "acme/a", "phase": "fetching", "history": [{"at": 1e17, "what": "x"}]}]},
        {"loaded_models": ["\x1b[2J", "/x/acme/a/m.gguf"]},
        {"placements": [{"name": "acme/a", "path": "\x07" * 100, "paths": ["\u202e"]}]},
        {"trash": [{"name": "\x00", "bytes": 2**63 - 1}]},
        {"models_dir": "\x1b]0;x\x07", "gpu_model_name": "\u202e"},
    ],
)
async def test_no_word_of_a_node_harms_the_lists(said: dict[str, Any], tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await service.router.registry.add(registration("acme/a", "acme/a", "m.gguf"))
        node = FakeNode(service.node)
        await node.register()
        await node.beat(**said)
        await _serves(service)
        for each in (await service.admin.get("/v0/nodes")).json():
            assert clean(json.dumps(each, ensure_ascii=False), 100_000) == json.dumps(each, ensure_ascii=False)
    async with open_service(tmp_path) as service:
        await _serves(service)


@pytest.mark.parametrize(
    "change", [{"machine_name": "\x07\x07"}, {"machine_name": "\ud800"}, {"ip_address": "fe80::1%\x1b"}]
)
async def test_a_nodes_own_description_is_clean_or_refused(change: dict[str, Any], service: Service) -> None:
    body = {**FakeNode(service.node).body, **change}
    answer = await service.node.post(
        "/v0/nodes", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (201, 400, 422)
    for each in (await service.admin.get("/v0/nodes")).json():
        assert each["machine_name"] and clean(each["ip_address"]) == each["ip_address"]


# -- any value at all

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_record_is_read_or_refused_and_what_is_read_can_be_told(data: st.DataObject) -> None:
    for good, kind in ((registration().to_json(), Registration), (NODE.to_json(), NodeRecord)):
        changed = data.draw(st.dictionaries(st.sampled_from(sorted(good)), _ANY, max_size=3))
        try:
            record = kind.from_json({**good, **changed})  # type: ignore[attr-defined]
        except BadRecord as error:
            assert clean(str(error), 1000) == str(error)
        else:
            told = json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False).encode()
            assert kind.from_json(json.loads(told)) == record  # type: ignore[attr-defined]


# -- real processes


def test_a_real_service_lives_with_bad_rows_and_lets_go_of_nothing(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        for seed, name in enumerate(("one", "two", "three")):
            hub.add(HubRepo(f"acme/{name}", {"m.gguf": Generated(300_000, seed=seed)}))
        machine = Machine(tmp_path, hub)
        with machine:
            names = [machine.register(f"acme/{name}") for name in ("one", "two")]
            machine.wait_whole(*names)
        database = machine.settings.state_dir / "modelhub.db"
        files = sorted(each for each in machine.cache.rglob("*") if each.is_file())
        bad = {**registration("acme/one", "acme/one", "m.gguf").to_json(), "revision": "main"}
        _plant(database, "models", "acme/one", bad)
        _plant(database, "models", "evil\x07/x", "{")
        with machine:
            machine.wait_whole(machine.register("acme/three"))  # the node has taken in the whole list by then
            assert {*files} <= {*machine.cache.rglob("*")}
            broken = {name for name, each in machine.models().items() if each["unusable"]}
            assert len(broken) == 2 and "acme/one" in broken and machine.usable() == ["acme/two", "acme/three"]
            doctor = machine.cli("doctor", "--json")
            report = json.loads(doctor.communicate(timeout=60)[0])
            [found] = [each for each in report["checks"] if each["name"] == "database"]
            assert found["status"] == "problem" and "acme/one" in json.dumps(found)
            listed = machine.cli("list", "--json")
            shown = {each["name"]: each for each in json.loads(listed.communicate(timeout=60)[0])}
            assert all("cannot be read" in shown[name]["reason"] for name in broken)
            for name in sorted(broken):
                process = machine.cli("rm", "--yes", name)
                out, err = process.communicate(timeout=60)
                assert process.returncode == 0, out + err
                assert "Files of it on a disk stay." in out, out
            assert not [name for name, each in machine.models().items() if each["unusable"]]
            # Nobody knows any more for which registration a node holds the files: they are not deleted.
            assert {*files} <= {*machine.cache.rglob("*")}


def test_doctor_reads_a_database_of_any_age(tmp_path: Path) -> None:
    from modelhub_tui.cli.checks import database

    path = tmp_path / "modelhub.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE trash")
        db.execute("PRAGMA user_version = 1")
    db.close()
    said = database(Settings(tmp_path, tmp_path, tmp_path, "http://127.0.0.1:9"))
    assert said.status == "ok"
