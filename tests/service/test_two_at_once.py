"""Two clients at once, heartbeats and tidying between, and a slow disk: all is as if one had come after the other."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelhub_tui.service.router.registry import Taken
from modelhub_tui.service.router.rows import Write
from tests.service.conftest import FakeNode, Service, open_service
from tests.service.test_nodes_api import registration
from tests.service.test_trash_api import NAME as WHOLE
from tests.service.test_trash_api import RECORD

ONE, TWO = "acme/one", "acme/two"
"""Two that are not whole anywhere; `WHOLE` is."""
State = tuple[str, bool, dict[str, tuple[bool, int]], tuple[str, ...]]
"""(the whole model: registered or deleting; is it in the trash; (paused, attempt) of the others; their order)"""

FIRST: State = ("registered", False, {ONE: (False, 1), TWO: (False, 1)}, (ONE, TWO))


def expected(state: State, op: str) -> tuple[State, bool]:
    """The model: what one order makes of a state, and whether it succeeds."""
    whole, trash, others, order = state
    deed, _, name = op.partition(" ")
    match deed:
        case "delete" if name == WHOLE:
            return (("deleting", True, others, order), True) if whole == "registered" else (state, False)
        case "restore":
            return (("registered", False, others, order), True) if trash else (state, False)
        case "empty":
            return (whole, False, others, order), True
        case "free":
            return (whole, False, others, order), trash
        case "tidy" | "beat":
            return state, True
        case "register":
            if name in others:
                return state, False
            return (whole, trash, {**others, name: (False, 1)}, (*order, name)), True
    if name not in others:
        return state, False
    paused, attempt = others[name]
    rest = tuple(each for each in order if each != name)
    match deed:
        case "delete":
            return (whole, trash, {each: told for each, told in others.items() if each != name}, rest), True
        case "pause":
            return (whole, trash, {**others, name: (True, attempt)}, order), True
        case "resume":
            return (whole, trash, {**others, name: (False, attempt)}, order), True
        case "retry":
            return (whole, trash, {**others, name: (paused, attempt + 1)}, order), True
        case "first":
            return (whole, trash, others, (name, *rest)), True
        case "last":
            return (whole, trash, others, (*rest, name)), True
    raise AssertionError(op)


async def carried_out(service: Service, node: FakeNode, op: str) -> bool:
    """Whether the service does it."""
    deed, _, name = op.partition(" ")
    admin = service.admin
    match deed:
        case "delete":
            answer = await admin.delete(f"/v0/models/{name}?cancel=true")
        case "restore":
            answer = await admin.post(f"/v0/models/{WHOLE}/restore")
        case "empty":
            answer = await admin.delete("/v0/trash")
        case "free":
            answer = await admin.delete(f"/v0/trash/{WHOLE}")
        case "first" | "last":
            answer = await admin.post(f"/v0/transfers/{name}/move", json={"to": deed})
        case "beat":
            answer = await beat(node)
        case "tidy":
            await service.router.trash.tidy()
            return True
        case "register":
            try:
                await service.router.registry.add(registration(name, name))
            except Taken:
                return False
            return True
        case _:
            answer = await admin.post(f"/v0/transfers/{name}/{deed}")
    assert answer.status_code < 500, answer.text
    return bool(answer.status_code < 400)


async def beat(node: FakeNode) -> Any:
    return await node.beat(transfers=[], placements=[{"name": WHOLE}], trash=[], found=[], removed=[])


def seen(service: Service) -> State:
    registry = service.router.registry
    whole = registry.records[WHOLE]
    others = {name: (each.paused, each.attempt) for name, each in registry.records.items() if name != WHOLE}
    order = tuple(each.name for each in registry.in_queue() if each.name != WHOLE)
    return "deleting" if whole.deleting else "registered", WHOLE in registry.binned, others, order


def merged(one: Sequence[int], other: Sequence[int]) -> Iterator[list[int]]:
    """All orders in which two clients' orders can come."""
    if not one or not other:
        yield [*one, *other]
        return
    for rest in merged(one[1:], other):
        yield [one[0], *rest]
    for rest in merged(one, other[1:]):
        yield [other[0], *rest]


async def at_once(folder: Path, clients: Sequence[Sequence[str]], delays: Iterator[float]) -> None:
    async with open_service(folder) as service:
        for name in (ONE, TWO):
            await service.router.registry.add(registration(name, name))
        await service.router.registry.add(RECORD)
        node = FakeNode(service.node)
        await node.register()
        await beat(node)
        store = service.router.store
        real = store.apply

        async def slow(writes: Iterable[Write]) -> None:
            await asyncio.sleep(next(delays))
            await real(writes)
            await asyncio.sleep(next(delays))

        store.apply = slow  # type: ignore[method-assign]
        ops = [op for client in clients for op in client]
        done: dict[int, bool] = {}

        async def work(numbers: Iterable[int]) -> None:
            for number in numbers:
                await asyncio.sleep(next(delays))
                done[number] = await carried_out(service, node, ops[number])

        split = len(clients[0])
        numbers = range(split), range(split, len(ops))
        await asyncio.gather(*map(work, numbers))
        possible = []
        for order in merged(*map(list, numbers)):
            state, outcome = FIRST, {}
            for number in order:
                state, outcome[number] = expected(state, ops[number])
            possible.append((state, outcome))
        now = seen(service)
        assert (now, done) in possible, f"{clients}: {now} {done}"
        store.apply = real  # type: ignore[method-assign]
    async with open_service(folder) as service:  # and the database says the same
        assert seen(service) == now


def names(deeds: Iterable[str]) -> list[str]:
    return [f"{deed} {name}" for deed in deeds for name in (ONE, TWO)]


OPS = [f"delete {WHOLE}", "restore", "empty", "free", "tidy", "beat"]
OPS += names(["delete", "register", "pause", "resume", "retry", "first", "last"])
_ops = st.lists(st.sampled_from(OPS), min_size=1, max_size=3)
_delays = st.lists(st.sampled_from([0.0, 0.0, 0.002, 0.005]), min_size=6, max_size=6)


def endless(delays: Sequence[float]) -> Iterator[float]:
    while True:
        yield from delays


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(one=_ops, other=_ops, delays=_delays)
def test_two_clients_at_once_are_one_after_the_other(one: list[str], other: list[str], delays: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(at_once(Path(folder), [one, other], endless(delays)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([f"delete {ONE}"], [f"pause {ONE}"]),
        ([f"pause {ONE}"], [f"last {ONE}"]),
        ([f"pause {ONE}"], [f"retry {ONE}"]),
        ([f"last {ONE}"], [f"delete {TWO}"]),
        ([f"delete {TWO}"], [f"first {TWO}"]),
        ([f"delete {WHOLE}"], ["tidy", "beat", "tidy"]),
        ([f"delete {WHOLE}", "empty"], ["free"]),
        ([f"delete {WHOLE}"], ["restore", f"delete {WHOLE}"]),
    ],
)
async def test_what_once_undid_each_other(tmp_path: Path, one: list[str], other: list[str]) -> None:
    await at_once(tmp_path, [one, other], endless([0.0, 0.02, 0.01]))
    (tmp_path / "again").mkdir(mode=0o700)
    await at_once(tmp_path / "again", [other, one], endless([0.0, 0.03]))


async def test_a_caller_that_hangs_up_leaves_memory_and_disk_the_same(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await service.router.registry.add(RECORD)
        store = service.router.store
        real: Callable[[Iterable[Write]], Any] = store.apply
        written = asyncio.Event()

        async def slow(writes: Iterable[Write]) -> None:
            await real(writes)
            written.set()
            await asyncio.sleep(0.01)

        store.apply = slow  # type: ignore[method-assign]
        task = asyncio.create_task(service.router.pause(WHOLE, True))
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await service.router.registry.settle()
        assert service.router.registry.records[WHOLE].paused
        assert [each.paused for each in store.load().models] == [True]


async def test_two_who_empty_the_trash_both_succeed(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await service.router.registry.change(lambda draft: service.router.trash.put(draft, replace(RECORD, id="r1")))
        answers = await asyncio.gather(*(service.admin.delete("/v0/trash") for _ in range(2)))
        assert [each.status_code for each in answers] == [204, 204]
