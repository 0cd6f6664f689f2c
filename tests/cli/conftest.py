"""The command line run in this process, against a router of which the test decides every answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelhub_tui.cli import main
from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.domain import Limits, Place, RouterReport, Trashed
from modelhub_tui.errors import ModelHubError
from tests.client.fakes import ENTRY, NODE, OTHER, FakeClient


class ScriptedClient(FakeClient):
    """After an action, each request for news is answered with the next report of a script; the last one stays."""

    def __init__(self, report: RouterReport | None = None) -> None:
        super().__init__(report)
        self.script: list[RouterReport] = []
        self.refusal: ModelHubError | None = None
        self.in_force = Limits()
        self.kept: tuple[Trashed, ...] = ()
        self._acted = False

    def then(self, *steps: tuple[Any, ...]) -> None:
        """What the router lists, step by step, once it was asked to do something."""
        self.script = [RouterReport(models, (NODE,)) for models in steps]

    async def report(self, *, wait_s: float = 0.0) -> RouterReport:
        if self._acted and self.script:
            self.current = self.script.pop(0)
        return await super().report(wait_s=wait_s)

    async def register(self, request: RegisterRequest) -> Registered:
        told = await super().register(request)
        self._act()
        return told

    async def delete(self, name: str, *, cancel: bool = False, keep: bool = True) -> None:
        self._act()
        self.calls.append(("delete", name))
        self.said.append({"cancel": cancel, "keep": keep})

    async def retry(self, name: str) -> None:
        self._act()
        await super().retry(name)

    async def pause(self, name: str) -> None:
        self._act()
        await super().pause(name)

    async def resume(self, name: str) -> None:
        self._act()
        await super().resume(name)

    async def move(self, name: str, to: Place) -> None:
        self._act()
        await super().move(name, to)

    async def limits(self) -> Limits:
        self.calls.append(("limits",))
        return self.in_force

    async def set_limits(self, limits: Limits) -> Limits:
        self._act()
        self.calls.append(("set_limits", limits))
        self.in_force = limits
        return limits

    async def trash(self) -> tuple[Trashed, ...]:
        self.calls.append(("trash",))
        return self.kept

    async def empty_trash(self, name: str | None = None) -> None:
        self._act()
        self.calls.append(("empty_trash", name))

    async def restore(self, name: str) -> Registered:
        self._act()
        return await super().restore(name)

    async def adopt(self, name: str) -> Registered:
        self._act()
        return await super().adopt(name)

    def _act(self) -> None:
        self._acted = True
        if self.refusal is not None:
            raise self.refusal

    def asked(self, *kinds: str) -> list[tuple[object, ...]]:
        """The requests of these kinds."""
        return [call for call in self.calls if call[0] in kinds]


@dataclass
class Result:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Connect:
    """Makes clients for a `CommandLine`."""

    def __init__(self, line: CommandLine) -> None:
        self._line = line

    async def __call__(self) -> ScriptedClient:
        if self._line.problem is not None:
            raise self._line.problem
        return self._line.client


@dataclass
class CommandLine:
    """Runs `modelhub` in this process."""

    capsys: pytest.CaptureFixture[str]
    client: ScriptedClient = field(default_factory=ScriptedClient)
    problem: Exception | None = None
    """What connecting fails with."""
    settings: Any = None

    def __call__(self, *argv: str) -> Result:
        def connector(settings: object) -> Connect:
            self.settings = settings
            return Connect(self)

        code = main([*argv], connector=connector)  # type: ignore[arg-type]
        said = self.capsys.readouterr()
        return Result(code, said.out, said.err)


@pytest.fixture
def modelhub(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """`modelhub` with two supported models, and a router to script."""
    for module in ("listing", "pull", "remove", "status", "queue", "limits", "trash", "adopt"):
        monkeypatch.setattr(f"modelhub_tui.cli.{module}.load_catalog", lambda *_: (ENTRY, OTHER))
    return CommandLine(capsys)
