"""The whole service, a hub that lies and a cache full of planted links: nothing outside the cache ever changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.machine import Machine, Refused
from tests.hub import HubRepo, LoopbackHub
from tests.node.outside import Outside

pytestmark = pytest.mark.timeout(300)

OUT = "../" * 12
TUNING = {"max_attempts": 2, "backoff_base_s": 0.01, "restart_base_s": 600}
"""What does not work at once will not."""

PLACES = (
    "refs",
    "trees",
    ".no_exist",
    "snapshots",
    "snapshots/{commit}",
    "snapshots/{commit}/sub",
    "../.locks/{home}",
    "refs/main",
    "refs/heads",
    "trees/{commit}.json",
    ".no_exist/{commit}",
)
"""Where a link may be planted, from a repo's folder."""


FILE = "sub/a.gguf"


def model(hub: LoopbackHub, number: int | str) -> HubRepo:
    """A repo with one model, in a folder of its own."""
    return hub.add(HubRepo(f"acme/m{number}", {FILE: f"GGUF {number}".encode() * 9000}))


def home_of(machine: Machine, repo: HubRepo) -> Path:
    return machine.cache / f"models--{repo.id.replace('/', '--')}"


def plant(home: Path, place: str, commit: str, outside: Path) -> None:
    """Put a link to somebody's files in the place of a folder, whatever is there."""
    link = home / place.format(commit=commit, home=home.name)
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(outside / "main" if place == "refs/main" else outside)


def settled(machine: Machine, names: list[str]) -> dict[str, dict[str, Any]]:
    """Wait until every model has either arrived, or failed at least for now; its transfer, or nothing, by its name."""

    def given_up(transfer: dict[str, Any]) -> bool:
        return transfer.get("phase") in ("failed", "waiting") and bool(transfer.get("error"))

    def done() -> dict[str, dict[str, Any]] | None:
        now = machine.models()
        states = {name: (now[name]["transfers"] or [{}])[0] for name in names}
        ok = all(now[name]["status"] == "ready" or given_up(states[name]) for name in names)
        return states if ok else None

    return machine.until(done, "all of them arrive or fail") if names else {}


@pytest.mark.parametrize("keep", ["false", "true"])
def test_no_link_in_the_cache_leads_a_pull_or_a_deletion_out_of_it(tmp_path: Path, keep: str) -> None:
    with LoopbackHub() as hub, Machine(tmp_path / "machine", hub, tuning=TUNING) as machine:
        before = {place: model(hub, f"before{n}") for n, place in enumerate(PLACES)}
        after = {place: model(hub, f"after{n}") for n, place in enumerate(PLACES)}
        repos = [*before.values(), *after.values()]
        words = [FILE, "a.gguf"]
        for repo in repos:
            etag = repo[FILE].etag
            words += [etag, f"{etag}.lock", f"{repo.sha}.json", f"{repo.sha}/{FILE}", f"{repo.sha}/config.json"]
        outside = Outside(tmp_path / "home", "a" * 40, tuple(words))
        for place, repo in before.items():
            plant(home_of(machine, repo), place, repo.sha, outside.root)
        names = {repo.id: machine.register(repo.id, FILE) for repo in repos}
        failed = settled(machine, [*names.values()])
        outside.assert_untouched()
        for place, repo in after.items():
            assert not failed[names[repo.id]], failed[names[repo.id]]
            plant(home_of(machine, repo), place, repo.sha, outside.root)
        for place, repo in before.items():
            state = failed[names[repo.id]]
            assert bool(state) == place.startswith("snapshots"), (place, state)
            if state:
                assert "is a link" in state["error"] and str(home_of(machine, repo)) in state["error"], state
        for name in names.values():
            machine.delete(name, f"cancel=true&keep={keep}")
        for name in names.values():
            machine.wait_gone(name)
        outside.assert_untouched()
        assert machine.processes()


def test_dot_locks_as_a_link_costs_no_more_than_the_lock(tmp_path: Path) -> None:
    with LoopbackHub() as hub, Machine(tmp_path / "machine", hub, tuning=TUNING) as machine:
        repo = model(hub, 1)
        locks = tuple(f"models--acme--m1/{repo[path].etag}.lock" for path in repo.main.files)
        outside = Outside(tmp_path / "home", "a" * 40, locks)
        machine.cache.mkdir(parents=True)
        (machine.cache / ".locks").symlink_to(outside.root)
        name = machine.register(repo.id, FILE)
        machine.wait_whole(name)
        machine.delete(name)
        machine.wait_gone(name)
        outside.assert_untouched()


WORDS = (
    OUT + "{outside}/site-packages",
    "../../../../" + "site-packages",
    "{outside}/site-packages",
    "..",
    "main",
    "deadbeef",
    "a" * 40 + "/../../../x",
    "A" * 40,
    "%2e%2e%2f%2e%2e%2fx",
    "con",
)


@pytest.mark.parametrize("sha", ["main", None])
@pytest.mark.parametrize("header", ["X-Repo-Commit", "X-Linked-Etag", "ETag"])
def test_no_word_of_the_hub_becomes_a_path(tmp_path: Path, header: str, sha: str | None) -> None:
    """The API names a branch where a commit belongs, or the truth; what the HEAD says then decides about no path."""
    with LoopbackHub(resolve_cache=False) as hub, Machine(tmp_path / "machine", hub, tuning=TUNING) as machine:
        outside = Outside(tmp_path / "home", "a" * 40)
        names = []
        for number, word in enumerate(WORDS):
            repo = model(hub, number)
            said = word.format(outside=str(outside.root).lstrip("/") if word.startswith(OUT) else outside.root)
            for path in repo.main.files:
                value = said if header == "X-Repo-Commit" else f'"{said}"'
                hub.fault(path=f"{repo.id}/{path}", method="HEAD", headers={header: value}, times=None)
            if sha is not None:
                hub.fault(path=f"/api/models/{repo.id}*", json={"sha": sha}, times=None)
            try:
                names.append(machine.register(repo.id, FILE))
            except Refused as refused:
                assert sha is not None and refused.code == "hub_failed", refused
        settled(machine, names)
        outside.assert_untouched()
        for name, model_ in machine.models().items():
            for where in model_["placements"]:
                assert all(Path(each).resolve().is_relative_to(machine.cache.resolve()) for each in where["paths"]), (
                    name
                )
        allowed = {"blobs", "snapshots", "refs", "trees", ".no_exist"}
        for home in machine.cache.glob("models--*"):
            assert {each.name for each in home.iterdir()} <= allowed
            assert all(len(each.name) in (40, 64) for each in home.glob("snapshots/*"))
        for name in names:
            machine.delete(name)
            machine.wait_gone(name)
        outside.assert_untouched()


NAMES = (
    "../x.gguf",
    OUT + "tmp/x.gguf",
    "/etc/x.gguf",
    "a/../../x.gguf",
    "con.gguf",
    "a\\..\\x.gguf",
    "C:x.gguf",
    "~/x.gguf",
    "./x.gguf",
)


def test_no_file_name_of_the_hub_leads_out_of_its_snapshot(tmp_path: Path) -> None:
    with LoopbackHub() as hub, Machine(tmp_path / "machine", hub, tuning=TUNING) as machine:
        outside = Outside(tmp_path / "home", "a" * 40)
        names = []
        for number, name in enumerate(NAMES):
            repo = hub.add(HubRepo(f"acme/n{number}", {name: b"GGUF hostile", "fine.gguf": b"GGUF fine"}))
            for wanted in (name, "fine.gguf"):
                try:
                    names.append(machine.register(repo.id, wanted))
                except Refused as refused:
                    assert refused.status < 500, refused
        settled(machine, names)
        inside = {each.name for each in machine.cache.glob("models--*/snapshots/*/*")}
        assert inside <= {"fine.gguf"}
        outside.assert_untouched()


def test_a_commit_that_was_registered_is_never_another(tmp_path: Path) -> None:
    with LoopbackHub() as hub, Machine(tmp_path / "machine", hub, tuning=TUNING) as machine:
        repo = model(hub, 1)
        hub.fault(path=f"{repo.id}/*", method="HEAD", headers={"X-Repo-Commit": "b" * 40}, times=None)
        name = machine.register(repo.id, FILE)
        [state] = settled(machine, [name]).values()
        assert not state or state["error_code"] == "changed_upstream", state
        assert {each.name for each in machine.cache.glob("models--*/snapshots/*")} <= {repo.sha}
