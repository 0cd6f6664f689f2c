"""The database: what was acknowledged survives, and what is damaged is kept aside."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelhub_tui.domain import Placement
from modelhub_tui.service.router import rows
from modelhub_tui.service.router.bodies import NodeBody
from modelhub_tui.service.router.records import NodeRecord
from modelhub_tui.service.router.rows import Rows
from modelhub_tui.service.router.store import Store, StoreFailed, StoreTooNew
from tests.hub import LoopbackHub
from tests.service.conftest import open_service
from tests.service.test_nodes_api import registration

NODE = NodeRecord(
    id="n1",
    machine_name="box",
    runtime_port=1,
    token_hash="a" * 64,
    approved=True,
    registered_at=1.5,
    body=NodeBody(
        machine_name="box", ip_address="127.0.0.1", runtime_version="1", runtime_port=1, gpu_available=False
    ).model_dump(mode="json"),
    placements=(("a/b", Placement("box", "/p", ("/p", "/q"), 3)),),
)


async def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    models = [replace(registration(f"a/m{n}", f"a/M{n}"), id=f"r{n}") for n in (3, 1, 2)]
    for each in models:
        await store.apply([rows.put_model(each)])
    await store.apply([rows.put_node(NODE)])
    await store.apply([rows.put_model(models[0])])
    identity = store.id
    store.close()
    again = Store(tmp_path / "db")
    assert again.load() == Rows(models, [NODE], [], [], [])
    assert (again.id, again.notice) == (identity, "")
    await again.apply([rows.drop_model("a/m1")])
    await again.apply([rows.drop_node("n1")])
    assert again.load() == Rows([models[0], models[2]], [], [], [], [])
    again.close()


def test_it_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    os.umask(0o022)
    store = Store(tmp_path / "db")
    store.apply_now([rows.put_meta("a", "b")])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {*modes} >= {"db", "db-wal"} and {*modes.values()} == {0o600}
    store.close()


def test_every_commit_is_synced(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from tests.service.conftest import open_service
    from tests.service.test_nodes_api import registration

    async def main():
        async with open_service(Path(sys.argv[1])) as service:
            for number in range(100_000):
                record = await service.router.registry.add(registration("", repo=f"acme/m{number}"))
                print(record.name, flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 7, 40])
async def test_kill_9_loses_nothing_acknowledged(tmp_path: Path, after: int) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        acknowledged = [process.stdout.readline().strip() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    async with open_service(tmp_path) as service:
        names = [*service.router.registry.records]
        # The one being written when the end came may be there or not; nothing else may differ.
        assert all(acknowledged) and names[: len(acknowledged)] == acknowledged and len(names) <= len(acknowledged) + 1
        assert service.router.store.notice == ""


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    for at in range(100, len(raw), 7):
        raw[at] ^= 0xFF
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database at all, not even nearly" * 50),
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    ],
    ids=["nonsense", "flipped", "truncated"],
)
async def test_a_damaged_database_is_kept_aside_and_a_new_one_started(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "db"
    store = Store(path)
    for number in range(50):
        await store.apply([rows.put_model(registration(f"a/m{number}", f"a/M{number}"))])
    identity = store.id
    store.close()
    damage(path)  # type: ignore[operator]
    damaged = path.read_bytes()
    fresh = Store(path)
    assert fresh.load() == Rows([], [], [], [], [])
    assert fresh.id not in ("", identity), "nodes must see that this is not the store they knew"
    [aside] = [
        each for each in tmp_path.iterdir() if ".damaged-" in each.name and not each.name.endswith(("-wal", "-shm"))
    ]
    assert aside.read_bytes() == damaged
    assert aside.name in fresh.notice
    await fresh.apply([rows.put_model(registration())])
    fresh.close()
    assert Store(path).notice == ""


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path / "db").close()
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(StoreTooNew):
        Store(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == before


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    (tmp_path / "db").symlink_to(tmp_path / "mine")
    with pytest.raises(StoreFailed):
        Store(tmp_path / "db")
    assert (tmp_path / "mine").read_bytes() == b"precious"


async def test_a_full_disk_is_507_and_memory_stays_true(tmp_path: Path, hub: LoopbackHub) -> None:
    async with open_service(tmp_path, hub.url) as service:
        # The smallest real limit: the database may not grow by a page.
        pages = service.router.store._db.execute("PRAGMA page_count").fetchone()[0]
        service.router.store._db.execute(f"PRAGMA max_page_count = {pages}")
        for length in (20_000, 2_000, 0):
            with pytest.raises(StoreFailed, match="full"):
                for number in range(1000):
                    record = registration("", repo=f"acme/m{length}-{number}")
                    await service.router.registry.add(replace(record, description="x" * length))
        known = [*service.router.registry.records]
        answer = await service.register("acme/One-GGUF")
        assert (answer.status_code, answer.json()["code"]) == (507, "no_space")
        assert [*service.router.registry.records] == known
    async with open_service(tmp_path) as service:
        assert [*service.router.registry.records] == known


async def test_a_locked_database_is_503_and_passes(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await service.router.registry.add(registration())
        service.router.store._db.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(tmp_path / "modelhub.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answer = await service.admin.delete("/v0/models/acme/tiny-gguf")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_error")
        assert "Another program has held the service's database" in answer.json()["error"]
        assert (await service.models())["acme/tiny-gguf"]["registered"] is True
        other.execute("ROLLBACK")
        other.close()
        assert (await service.admin.delete("/v0/models/acme/tiny-gguf")).status_code == 204


def _remove(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def _replace(path: Path) -> None:
    _remove(path)
    Store(path).close()


def _overwrite(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        with each.open("r+b") as file:
            file.write(b"nonsense" * (each.stat().st_size // 8))


@pytest.mark.parametrize("damage", [_remove, _replace, _overwrite])
async def test_a_database_that_is_damaged_while_it_runs_is_written_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "modelhub.db"
    async with open_service(tmp_path) as service:
        store = service.router.store
        noticed: list[str] = []
        store.on_notice = lambda: noticed.append(store.notice)
        for number in range(30):
            await service.router.registry.add(registration("", repo=f"acme/m{number}"))
        await store.apply([rows.drop_model("acme/m7")])
        identity = store.id
        damage(path)
        for number in range(30, 40):
            await service.router.registry.add(registration("", repo=f"acme/m{number}"))
        await store.apply([rows.put_meta("after", "wards")])
        [said] = noticed
        assert "written anew; nothing was lost" in said
        assert (await service.admin.get("/v0/models")).headers["x-modelhub-notice"] == said
        told = [*service.router.registry.records]
    again = Store(path)
    assert [each.name for each in again.load().models] == [name for name in told if name != "acme/m7"]
    assert (again.id, again.notice, again.get_meta("after")) == (identity, "", "wards")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again.close()


async def test_a_folder_that_is_gone_is_a_refusal_and_passes(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    async with open_service(tmp_path / "state") as service:
        await service.router.registry.add(registration("", repo="acme/m0"))
        (tmp_path / "state").rename(tmp_path / "away")
        answer = await service.admin.delete("/v0/models/acme/m0")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_error")
        (tmp_path / "state").mkdir()
        await service.router.registry.add(registration("", repo="acme/m1"))
    again = Store(tmp_path / "state" / "modelhub.db")
    assert [each.name for each in again.load().models] == ["acme/m0", "acme/m1"]
    again.close()


async def test_two_registrations_of_one_model_at_once_give_one(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        add = service.router.registry.add
        results = await asyncio.gather(*(add(registration()) for _ in range(10)), return_exceptions=True)
        assert len([each for each in results if not isinstance(each, Exception)]) == 1
        assert len(service.router.registry.records) == 1


FULL = """
    import asyncio, resource, signal, sys
    from dataclasses import replace
    from pathlib import Path
    from tests.service.conftest import FakeNode, open_service
    from tests.service.test_nodes_api import registration

    async def main():
        async with open_service(Path(sys.argv[1])) as service:
            for number in range(20):
                await service.router.registry.add(registration("", repo=f"acme/m{number}"))
            sizes = [each.stat().st_size for each in Path(sys.argv[1]).iterdir()]
            # No file may grow any more: what a full disk does.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes), max(sizes)))
            node = FakeNode(service.node)
            await node.register()
            held = [{"name": f"acme/m{number}"} for number in range(10)]
            assert (await node.beat(transfers=[], placements=held)).status_code == 200
            for number in range(20):
                answer = await service.admin.delete(f"/v0/models/acme/m{number}")
                assert answer.status_code == 204, answer.text
            assert (await node.beat(transfers=[], placements=[])).status_code == 200
            big = registration("", repo="acme/big")
            answer = None
            try:
                for number in range(1000):
                    await service.router.registry.add(replace(big, repo=f"acme/big{number}", description="x" * 20_000))
            except Exception as error:
                answer = str(error)
            assert answer is not None and ("full" in answer or "failed" in answer), answer
            assert (await node.beat(transfers=[], placements=[])).status_code == 200
            print("done")

    asyncio.run(main())
"""


def test_models_can_be_deleted_and_nodes_heard_while_the_disk_is_full(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100)
    assert done.stdout == "done\n", done.stderr[-3000:]
