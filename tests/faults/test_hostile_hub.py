"""The whole service and a hub of which no word is true: nothing outside changes, nothing raw is shown, it answers.

`HOSTILE_EXAMPLES=200` tries that many hubs instead of two, other ones each time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from modelhub_tui.hub_stats import HubStatsCache
from tests.faults.machine import Machine, Refused
from tests.hub import HubRepo, LoopbackHub
from tests.hub.alphabet import FORGED, HEADERS, MEMBERS, header, words
from tests.node.outside import Outside, fingerprint
from tests.tty.terminal import Terminal

pytestmark = pytest.mark.timeout(0 if "HOSTILE_EXAMPLES" in os.environ else 300)

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "2"))
TUNING = {"max_attempts": 2, "backoff_base_s": 0.01, "restart_base_s": 600, "metadata_s": 2.0}
"""What does not work at once will not."""
STATUSES = (403, 404, 418, 429, 500)
"""Errors, each with a hostile message."""
MARKS = "\x1b\x07\x9b\u202e\u200b\u2028\x85\x00"
AT_REST = ("failed", "retrying", "paused")
FILE = "sub/tiny.gguf"


@given(st.data())
@settings(
    max_examples=EXAMPLES,
    derandomize="HOSTILE_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)
def test_no_word_of_a_hub_does_harm(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    world = tmp_path_factory.mktemp("world")
    home = world / "machine"
    home.mkdir()
    outside = Outside(world / "outside", "a" * 40)
    mine = Outside(home / "mine", "a" * 40)
    targets = [outside.root, outside.root / "site-packages", mine.root / "thesis.txt", world / "new"]
    with LoopbackHub() as hub, Machine(home, hub, tuning=TUNING) as machine:
        before = surroundings(world, home)
        for number, place in enumerate([*MEMBERS, *HEADERS, *STATUSES]):
            word = data.draw(words(targets, start=5 * number))
            repo = lie(hub, number, place, word)
            note(f"{repo.id}: {place} = {word!r:.200}")
            note(pull(machine, repo.id, FILE if number % 2 else None))
        names = [*machine.models()]
        note(f"registered: {names!r:.2000}")
        machine.until(lambda: all_at_rest(machine), "every transfer arrives or gives up")
        look(machine)
        for name in names[::2]:
            machine.delete(name, f"cancel=true&keep={'true' if len(name) % 2 else 'false'}")
        machine.stop()
        machine.start()
        look(machine)
        for name in machine.models():
            machine.delete(name)
        machine.until(lambda: not machine.models(), "what was deleted goes")
        hub.faults.clear()
        honest = hub.add(HubRepo("acme/honest", {FILE: b"GGUF honest" * 3000}))
        machine.wait_whole(machine.register(honest.id, FILE))
        assert surroundings(world, home) == before
        outside.assert_untouched()
        mine.assert_untouched()
        for link in (each for each in machine.cache.rglob("*") if each.is_symlink()):
            assert link.resolve().is_relative_to(machine.cache.resolve()), link
    for log in [home / "output.log", *(home / "state").rglob("*.log")]:
        assert_clean(log.read_bytes())


def lie(hub: LoopbackHub, number: int, place: str | int, word: Any) -> HubRepo:
    """A repo of which the hub tells the truth but for one place."""
    extra = {
        "gguf": {"total": 1000, "architecture": "llama", "context_length": 2048, "chat_template": "x"},
        "config": {"max_position_embeddings": 2048, "tokenizer_config": {"chat_template": "x"}},
        "cardData": {"license": "mit"},
        "safetensors": {"parameters": {"F16": 1000}, "total": 1000},
    }
    files = {FILE: f"GGUF {number}".encode() * 3000, "README.md": "# Tiny"}
    repo = hub.add(HubRepo(f"acme/m{number:03}", files, extra=extra, tags=("license:mit", "chat")))
    if isinstance(place, int):
        said = f'{{"error": "{MARKS}{FORGED}"}}'.encode()
        for path in (f"/api/models/{repo.id}*", f"{repo.id}/*"):
            hub.fault(
                path=path,
                times=None,
                status=place,
                body=said,
                headers={"X-Error-Message": header(word), "Retry-After": None},
            )
    elif place in MEMBERS:
        hub.fault(server="hub", path=f"/api/models/{repo.id}*", times=None, json={place: word})
    else:
        for path in (f"/api/models/{repo.id}*", f"{repo.id}/*"):
            hub.fault(server="hub", path=path, times=None, headers={place: header(word)})
    return repo


def pull(machine: Machine, repo: str, file: str | None) -> str:
    """What came of it."""
    try:
        return machine.register(repo, file)
    except Refused as refused:
        assert refused.status != 500, refused
        assert isinstance(refused.body, dict), refused
        assert_clean(refused.sentence.encode("utf-8", "surrogatepass"))
        return refused.sentence


def all_at_rest(machine: Machine) -> bool:
    """Every model has arrived, has failed, or waits for a while before the hub is asked again."""

    def rests(transfer: dict[str, Any]) -> bool:
        return transfer["phase"] in AT_REST or (transfer["phase"] == "waiting" and bool(transfer["retry_in_s"]))

    models = machine.models().values()
    return all(each["status"] == "ready" or any(map(rests, each["transfers"])) for each in models)


def look(machine: Machine) -> None:
    """Everything that a person sees, in a terminal; and the service answers."""
    assert machine.ask("GET", "/health")["status"] == "ok"
    machine.ask("GET", "/v0/models")
    machine.ask("GET", "/v1/models")
    for command in (["list"], ["local"], ["status"]):
        argv = [sys.executable, "-m", "modelhub_tui", *command]
        with Terminal(argv, env={**machine.env, "NO_COLOR": "1"}, cwd=machine.home, emulate=False) as terminal:
            assert terminal.wait(60) == 0, bytes(terminal.output)
            assert_clean(bytes(terminal.output).replace(b"\r\n", b"\n"))


def assert_clean(said: bytes) -> None:
    """It holds no character that a terminal obeys or that hides, and no line that somebody else made up."""
    text = said.decode("utf-8", "surrogatepass")
    raw = {each for each in text if each not in "\n\t" and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not raw, (raw, text[max(0, min(map(text.index, raw)) - 200) :][:400])
    assert not any(line.startswith(FORGED[:20]) for line in text.split("\n"))


def surroundings(world: Path, home: Path) -> dict[str, tuple[int, str]]:
    """Everything in the world but what the program keeps for itself."""
    own = tuple(str((home / name).relative_to(world)) for name in ("state", "cache", "hub", "hf", "output.log"))
    return {path: (mode, said) for path, (mode, _, said) in fingerprint(world).items() if not path.startswith(own)}


def test_a_service_with_a_planted_cache_of_statistics_harms_nothing_and_has_them_again(tmp_path: Path) -> None:
    home = tmp_path / "machine"
    mine = Outside(home / "mine", "a" * 40)
    with LoopbackHub([HubRepo("acme/tiny", {FILE: b"GGUF" * 3000}, downloads=7)]) as hub:
        machine = Machine(home, hub)
        planted = HubStatsCache(machine.settings.cache_dir / "hub-stats")
        planted.bind(hub.url, lambda: None)
        planted.put("acme/tiny", downloads=1, likes=1)
        planted.put("acme/other", downloads=1, likes=1)
        planted.close()
        with contextlib.closing(sqlite3.connect(machine.settings.cache_dir / "hub-stats" / "cache.db")) as db:
            db.execute(
                "UPDATE Cache SET mode = 2, filename = '../../mine/thesis.txt', expire_time = 1 + rowid % 2 * 9e9"
            )
            db.execute("CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END")
            db.commit()
        with machine:
            name = machine.register("acme/tiny", FILE)
            machine.until(lambda: (machine.models()[name]["hf_info"] or {}).get("downloads") == 7, "they come")
    mine.assert_untouched()
