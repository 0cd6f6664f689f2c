"""Every wait of every command has an end, and a reason that is told."""

from __future__ import annotations

import argparse
import ast
import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import modelhub_tui.cli
from modelhub_tui.cli.arguments import build_parser
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.domain import Limits, Node, NodeStatus, Phase, Placement, RouterReport, Transfer
from modelhub_tui.errors import TookTooLong
from tests.cli.conftest import CommandLine, ScriptedClient
from tests.client.fakes import NODE, told

PLACED = told(placements=(Placement("gpu-01", "/m/tiny-Q4.gguf", ("/m/tiny-Q4.gguf",), 1000),))
LEAVING = replace(PLACED, registered=False, deleting=True)
FOUND = replace(PLACED, registered=False, found=True)
UNHEARD = "The node of this machine has just been started and has not reported yet."


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.waiting.TELL_S", 0.02)


def patience(limit_s: float) -> Patience:
    return Patience(argparse.Namespace(timeout=limit_s), Console())


# -- nobody waits in any other way ------------------------------------------------------------------------------------

WAITING = {"run", "Runner", "run_until_complete", "sleep", "join", "wait", "wait_for"}
MAY = {
    # The one way.
    "waiting.py": {"Runner", "run", "join", "wait"},
    # Checks side by side, each left behind at the limit that `--timeout` sets.
    "checks.py": {"join"},
    # A pause between two questions, inside a coroutine that has an end.
    "trash.py": {"sleep"},
    # The dashboard waits for a person.
    "tui.py": {"run"},
}


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Calls that wait, by name: of asyncio, time and threads. What is told `patience` is in order."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITING):
            continue
        of = node.func.value
        text = isinstance(of, ast.Constant | ast.JoinedStr)  # ", ".join()
        if not text and not (isinstance(of, ast.Name) and of.id == "patience"):
            yield node.func.attr, node.lineno


def test_nothing_waits_but_by_patience() -> None:
    found = []
    for path in sorted(Path(modelhub_tui.cli.__path__[0]).glob("*.py")):
        tree = ast.parse(path.read_text())
        found += [f"{path.name}:{line} {name}" for name, line in calls(tree) if name not in MAY.get(path.name, set())]
    assert not found


def test_the_check_sees_what_it_is_for() -> None:
    code = "asyncio.run(x())\ntime.sleep(1)\nthread.join()\nawait event.wait()\n', '.join(x)\npatience.run(x())"
    assert [line for _, line in calls(ast.parse(code))] == [1, 2, 3, 4]


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield f"{name} {word}".strip(), below
                yield from parsers(below, f"{name} {word}".strip())


def test_every_command_that_waits_has_a_limit() -> None:
    limits = {
        name: next((each.default for each in parser._actions if each.dest == "timeout"), None)
        for name, parser in parsers(build_parser())
    }
    without = {name for name, limit in limits.items() if limit is None}
    assert {name.split()[0] for name in without} == {"serve", "node", "service", "catalog"}
    assert {name for name, limit in limits.items() if limit == 0} == {"pull"}
    assert all(0 < limit <= 120 for name, limit in limits.items() if limit)


@pytest.mark.parametrize("text", ["-1", "1e9", "nan", "soon", "²", "99999999"])
def test_a_limit_that_is_none_is_wrong_usage(modelhub: CommandLine, text: str) -> None:
    assert modelhub("list", "--timeout", text).code == 2


# -- patience ---------------------------------------------------------------------------------------------------------


def blocking(mine: Patience) -> None:
    mine.call(lambda: threading.Event().wait(20))


def awaiting(mine: Patience) -> None:
    mine.run(asyncio.sleep(20))


def in_a_thread(mine: Patience) -> None:
    mine.run(asyncio.to_thread(threading.Event().wait, 20))


@pytest.mark.parametrize("wait", [blocking, awaiting, in_a_thread])
def test_a_wait_ends_at_its_limit_and_says_for_what_it_was(
    wait: Callable[[Patience], None], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = patience(0.1)
    mine.why = "Waiting for Godot."
    begun = time.monotonic()
    with pytest.raises(TookTooLong, match="Waiting for Godot"):
        wait(mine)
    assert time.monotonic() - begun < 10
    assert capsys.readouterr().err == "Waiting for Godot.\n"
    with pytest.raises(TookTooLong):  # the limit is that of all waits together
        wait(mine)


def test_a_reason_that_changes_is_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    mine, told_both = patience(0), asyncio.Event()

    async def work() -> int:
        for why in ("First.", "Second."):
            mine.why = why
            while why not in said:
                await asyncio.sleep(0)
                said.append(capsys.readouterr().err.strip())
        told_both.set()
        return 7

    said: list[str] = []
    assert mine.run(work()) == 7
    assert mine.call(lambda: 8) == 8
    with pytest.raises(ZeroDivisionError):
        mine.call(lambda: 1 / 0)


# -- commands right after a start -------------------------------------------------------------------------------------


class Starting(ScriptedClient):
    """A router whose node has not reported yet, for as many reports as `for_`."""

    def __init__(self, report: RouterReport, for_: int | None) -> None:
        super().__init__(report)
        self.left = for_

    async def report(self, *, wait_s: float = 0.0) -> RouterReport:
        await asyncio.sleep(0)
        if self.left is None or self.left > 0:
            self.left = None if self.left is None else self.left - 1
            return RouterReport((), (), unheard=UNHEARD)
        return await super().report()


FIRST = [
    ("local",),
    ("local", "--json"),
    ("list", "--fits"),
    ("list", "--status", "downloaded"),
    ("list", "--json"),
    ("adopt", "--all"),
    ("adopt", "tiny"),
    ("rm", "tiny", "--yes"),
]


@pytest.mark.parametrize("argv", FIRST, ids=" ".join)
def test_what_needs_the_nodes_report_fails_without_it(
    modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.setattr("modelhub_tui.cli.look.HEARD_S", 0.2)
    modelhub.client = Starting(RouterReport((), (NODE,)), None)
    result = modelhub(*argv)
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        f"{UNHEARD}\nmodelhub: What is on the disk is not known yet: {UNHEARD} "
        "Try again; `modelhub doctor` may say more.\n"
    )


@pytest.mark.parametrize("argv", FIRST, ids=" ".join)
def test_what_needs_the_nodes_report_waits_for_it(modelhub: CommandLine, argv: tuple[str, ...]) -> None:
    modelhub.client = Starting(RouterReport((FOUND if argv[0] == "adopt" else PLACED,), (NODE,)), 3)
    if argv[0] == "rm":
        modelhub.client.then(())
    result = modelhub(*argv)
    assert result.code == 0, result.err
    assert "tiny" in result.out or argv == ("list", "--fits")


def test_a_plain_list_is_better_than_none(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.look.HEARD_S", 0.2)
    modelhub.client = Starting(RouterReport((), (NODE,)), None)
    result = modelhub("list")
    assert result.code == 0 and "tiny" in result.out and UNHEARD in result.err


def test_status_says_that_the_node_has_not_reported(modelhub: CommandLine) -> None:
    modelhub.client = Starting(RouterReport((), (NODE,)), None)
    assert UNHEARD in modelhub("status", "--router", "http://r:1").err
    assert modelhub("status", "--router", "http://r:1", "--json").json["unheard"] == UNHEARD


# -- rm ---------------------------------------------------------------------------------------------------------------


def test_rm_ends_when_another_commit_of_the_file_is_found(modelhub: CommandLine) -> None:
    """The same name is listed again, as found: it is not what was deleted."""
    modelhub.client.say(PLACED)
    modelhub.client.then((LEAVING,), (FOUND,))
    result = modelhub("rm", "tiny", "--yes")
    assert result.code == 0 and result.out.startswith("Deleted tiny")


def test_rm_ends_when_somebody_registers_the_model_again(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    modelhub.client.then((LEAVING,), (PLACED,))
    result = modelhub("rm", "tiny", "--yes", "--json")
    assert result.code == 1
    assert [(each["deleted"], each["freed_bytes"]) for each in result.json] == [(False, 0)]
    assert "tiny: It was registered again meanwhile, by somebody else, so it stays." in result.err


@pytest.mark.parametrize(
    ("told_by_node", "said"),
    [
        (
            "/m/tiny cannot be removed: Read-only file system.",
            "Waiting for gpu-01 to remove the files of tiny. /m/tiny",
        ),
        ("", "Waiting for gpu-01 to remove the files of tiny."),
    ],
)
def test_rm_ends_at_its_limit_and_says_what_the_node_said(modelhub: CommandLine, told_by_node: str, said: str) -> None:
    modelhub.client.say(PLACED)
    modelhub.client.then((replace(LEAVING, stuck=told_by_node),))
    result = modelhub("rm", "tiny", "--yes", "--timeout", "1")
    assert (result.code, result.out) == (1, "")
    *_, told, failed = result.err.splitlines()
    assert told.startswith(said) and failed.startswith(f"modelhub: tiny: {said}")
    assert "goes on without us" in failed
    assert modelhub.client.closed


def test_a_node_that_was_away_for_a_moment_is_not_called_offline(
    modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience with an absent node begins when it is missed, not with the command."""
    monkeypatch.setattr("modelhub_tui.cli.remove.OFFLINE_PATIENCE_S", 3600.0)
    away = replace(NODE, status=NodeStatus.OFFLINE)
    modelhub.client.say(PLACED)
    modelhub.client.script = [
        RouterReport((LEAVING,), (NODE,)),
        RouterReport((LEAVING,), (away,)),
        RouterReport((LEAVING,), (NODE,)),
        RouterReport((), (NODE,)),
    ]
    result = modelhub("rm", "tiny", "--yes")
    assert (result.code, result.out) == (0, "Deleted tiny; 1 kB freed.\n")


# -- the others -------------------------------------------------------------------------------------------------------


class Deaf(ScriptedClient):
    """A router that never answers one kind of question."""

    def __init__(self, report: RouterReport, *deaf_to: str) -> None:
        super().__init__(report)
        self.deaf_to = deaf_to

    async def _or_not(self, kind: str) -> None:
        if kind in self.deaf_to:
            await asyncio.Event().wait()

    async def info(self):  # type: ignore[no-untyped-def]
        await self._or_not("info")
        return await super().info()

    async def register(self, request):  # type: ignore[no-untyped-def]
        await self._or_not("register")
        return await super().register(request)

    async def limits(self) -> Limits:
        await self._or_not("limits")
        return await super().limits()

    async def pause(self, name: str) -> None:
        await self._or_not("pause")

    async def adopt(self, name: str):  # type: ignore[no-untyped-def]
        await self._or_not("adopt")


@pytest.mark.parametrize(
    ("argv", "deaf_to", "why"),
    [
        (("list",), "info", "Waiting for the router to answer."),
        (("local",), "info", "Waiting for the router to answer."),
        (("status", "--router", "http://r:1"), "info", "Waiting for the router to answer."),
        (("trash",), "info", "Waiting for the router to answer."),
        (("pull", "other"), "info", "Waiting for the router to answer."),
        (("pull", "other"), "register", "Waiting for the router to register Acme/Other-GGUF."),
        (("register", "a/b"), "register", "Waiting for the router to ask the hub about a/b."),
        (("limits",), "limits", "Waiting for the router to do that."),
        (("pause", "tiny"), "pause", "Waiting for the router to do that."),
        (("adopt", "tiny"), "adopt", "Waiting for the router to do that."),
    ],
)
def test_a_router_that_does_not_answer_ends_a_command_with_a_reason(
    modelhub: CommandLine, argv: tuple[str, ...], deaf_to: str, why: str
) -> None:
    fetching = told(transfers=(Transfer("gpu-01", Phase.FETCHING, 400, 1000),))
    modelhub.client = Deaf(RouterReport((FOUND if argv[0] == "adopt" else fetching,), (NODE,)), deaf_to)
    result = modelhub(*argv, "--timeout", "1")
    assert result.code == 1
    assert result.err.startswith(why)
    assert "That took longer than 1 s." in result.err


def test_a_pull_that_takes_longer_than_allowed_goes_on_in_the_background(modelhub: CommandLine) -> None:
    modelhub.client.then((told(transfers=(Transfer("gpu-01", Phase.FETCHING, 400, 1000),)),))
    result = modelhub("pull", "tiny", "--timeout", "1")
    assert result.code == 1
    assert "tiny: the download goes on in the background." in result.err and "longer than 1 s" in result.err


def test_an_absent_node_is_waited_for_as_long_as_said(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.remove.OFFLINE_PATIENCE_S", 0.05)
    away = Node("n1", "gpu-01", NodeStatus.OFFLINE)
    modelhub.client.say(PLACED, nodes=(away,))
    modelhub.client.script = [RouterReport((LEAVING,), (away,))]
    result = modelhub("rm", "tiny", "--yes")
    assert (result.code, result.out) == (0, "Deleted tiny. gpu-01 is offline; 1 kB there are freed when it is back.\n")
