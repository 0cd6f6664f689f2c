"""Faults of the line and of the hub: all of them at once, against one service, while a witness looks on.

Each case has a repo of its own and a rule of the hub that is for it alone. What the hub served is counted: beyond the
file itself it may be no more than the case's allowance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.machine import Machine
from tests.faults.residue import left_behind
from tests.faults.witness import Witness
from tests.hub import MIB, RATE_LIMITED, Fault, Generated, HubRepo, LoopbackHub

pytestmark = [pytest.mark.xdist_group("faults-wire"), pytest.mark.timeout(300)]

ONE, SEVERAL = 3 * MIB + 17, 24 * MIB + 5
"""Sizes below and above what is fetched over several connections, with this tuning."""
TUNING = {"parallel_bytes": 8 * MIB, "fast_bps": 10**12, "max_attempts": 8}
IN_FLIGHT = 2 * MIB
"""What may be under way, over all connections of a file, when answers are thrown away."""
WRONG_ETAG = {"X-Linked-Etag": f'"{"0" * 64}"'}


@dataclass(frozen=True)
class Case:
    """One fault and what it may cost."""

    name: str
    rules: tuple[dict[str, Any], ...]
    again: int = 0
    """Bytes that may be served beyond the size of the file ..."""
    files: int = 0
    """... and how often the whole file on top of that."""
    hub_rule: bool = False
    """The rule is for questions about the file, not for its bytes."""


def cdn(**rule: Any) -> tuple[dict[str, Any], ...]:
    return ({"server": "cdn", **rule},)


CASES = (
    Case("reset", cdn(reset_after=MIB // 2, times=3)),
    Case("reset-at-once", cdn(reset_at_once=True, times=2)),
    Case("early-close", cdn(close_after=MIB // 2, times=3)),
    Case("stall", cdn(stall_after=MIB // 2)),
    Case("slow-loris", cdn(drip_bytes=100, drip_s=0.2), again=IN_FLIGHT),
    Case("429", cdn(status=429, headers=RATE_LIMITED)),
    Case("500", cdn(status=500, times=2)),
    Case("502", cdn(status=502, times=2)),
    Case("503", cdn(status=503, headers={"Retry-After": "1"}, times=2)),
    Case("504", cdn(status=504, times=2)),
    Case("expired", cdn(expired=True, times=2)),
    Case("length-too-small", cdn(headers={"Content-Length": str(MIB // 2)}), again=IN_FLIGHT, files=1),
    Case("length-too-large", cdn(headers={"Content-Length": str(20 * MIB)}), again=IN_FLIGHT, files=1),
    Case("range-ignored", (*cdn(reset_after=MIB), *cdn(ignore_range=True)), again=IN_FLIGHT, files=1),
    Case("wrong-hash", cdn(flip_at=MIB), files=1),
    Case("hub-503", ({"server": "hub", "method": "HEAD", "status": 503, "times": 3},), hub_rule=True),
    Case("hub-408", ({"server": "hub", "method": "HEAD", "status": 408, "times": 4},), hub_rule=True),
    Case("hub-425", ({"server": "hub", "method": "HEAD", "status": 425, "times": 4},), hub_rule=True),
    Case("hub-499", ({"server": "hub", "method": "HEAD", "status": 499, "times": 4},), hub_rule=True),
    Case("hub-404", ({"server": "hub", "method": "HEAD", "status": 404, "times": 2},), hub_rule=True),
    Case("hub-418", ({"server": "hub", "method": "HEAD", "status": 418, "times": 2},), hub_rule=True),
    Case("hub-no-head", ({"server": "hub", "method": "HEAD", "status": 405, "times": None},), hub_rule=True),
    Case(
        "hub-wrong-length", ({"server": "hub", "method": "HEAD", "headers": {"X-Linked-Size": "5"}},), 5, hub_rule=True
    ),
    Case("hub-wrong-etag", ({"server": "hub", "method": "HEAD", "headers": WRONG_ETAG},), hub_rule=True),
    Case("418", cdn(status=418, times=2)),
    Case("hub-429", ({"server": "hub", "method": "HEAD", "status": 429, "headers": RATE_LIMITED},), hub_rule=True),
)
SIZES = {"one": ONE, "several": SEVERAL}


@dataclass
class World:
    """The service with all transfers under way."""

    hub: LoopbackHub
    machine: Machine
    repos: dict[str, HubRepo]
    faults: dict[str, list[Fault]]
    names: dict[str, str]


def each_case() -> list[tuple[Case, str]]:
    # How the hub is asked about a file does not depend on how many connections its bytes take.
    return [(case, lines) for case in CASES for lines in SIZES if lines == "one" or not case.hub_rule]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    repos, faults = {}, {}
    with LoopbackHub() as hub:
        for number, (case, lines) in enumerate(each_case()):
            key = f"{case.name}-{lines}"
            repos[key] = hub.add(HubRepo(f"acme/{key}", {"m.gguf": Generated(SIZES[lines], seed=number)}))
            faults[key] = [hub.fault(path=f"acme/{key}/*", **rule) for rule in case.rules]
        with Machine(tmp_path_factory.mktemp("wire"), hub, tuning=TUNING) as machine, Witness(machine):
            machine.limits(parallel_transfers=16)
            yield World(hub, machine, repos, faults, {key: machine.register(repo.id) for key, repo in repos.items()})


@pytest.mark.parametrize(
    ("case", "lines"), [pytest.param(*each, id=f"{each[0].name}-{each[1]}") for each in each_case()]
)
def test_it_arrives_whole_and_nothing_is_fetched_twice(world: World, case: Case, lines: str) -> None:
    key = f"{case.name}-{lines}"
    blob = world.repos[key]["m.gguf"]
    world.machine.wait_whole(world.names[key])
    assert all(fault.hits for fault in world.faults[key]), "the fault never happened"
    path = Path(world.machine.models()[world.names[key]]["placements"][0]["path"])
    assert path.read_bytes() == blob.read()
    served = sum(each.file_bytes for each in world.hub.requests(f"acme/{key}/*"))
    assert served - blob.size <= case.again + case.files * blob.size, f"{served - blob.size} bytes too many"
    assert left_behind(world.machine.cache / f"models--acme--{key}") == []


def test_what_is_renamed_upstream_in_the_middle_still_arrives(world: World) -> None:
    """A commit stays what it is, and the hub redirects from a repo's old name."""
    stall = world.hub.fault(path="acme/old-name/*", server="cdn", stall_after=MIB)
    repo = world.hub.add(HubRepo("acme/old-name", {"m.gguf": Generated(ONE, seed=77)}))
    blob, name = repo["m.gguf"], world.machine.register("acme/old-name")
    world.machine.until(stall.stalled.is_set, "a part of it is there")
    repo.move("m.gguf", "n.gguf")
    world.hub.rename("acme/old-name", "acme/new-name")
    world.hub.expire_signatures()
    world.machine.wait_whole(name)
    path = Path(world.machine.models()[name]["placements"][0]["path"])
    assert path.read_bytes() == blob.read()
    assert world.hub.served_bytes(blob.sha256) == ONE


def test_large_files_did_come_over_several_connections(world: World) -> None:
    repo = world.hub.add(HubRepo("acme/plain", {"m.gguf": Generated(SEVERAL, seed=78)}))
    world.hub.connection_bps = lambda label: 24e6 if label.startswith("acme/plain/") else None
    name = world.machine.register(repo.id)
    world.machine.wait_whole(name)
    answers = [each for each in world.hub.requests("acme/plain/*", server="cdn") if each.file_bytes]
    starts = sorted(int((each.range or "bytes=0-").removeprefix("bytes=").split("-")[0]) for each in answers)
    assert len({*starts}) >= 2
    assert sum(each.file_bytes for each in answers) - SEVERAL <= IN_FLIGHT
