"""`modelhub doctor`: checks everything that a download depends on, and gathers what a bug report needs."""

from __future__ import annotations

import contextlib
import json
import os
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhub_tui import __version__
from modelhub_tui.cli import FAILED, OK
from modelhub_tui.cli import checks as near
from modelhub_tui.cli import checks_far as far
from modelhub_tui.cli.arguments import GLOBAL_FLAGS
from modelhub_tui.cli.checks import PROBLEM, WARNING, Check, Look
from modelhub_tui.cli.output import Console
from modelhub_tui.config import SETTINGS, Settings, load_settings
from modelhub_tui.errors import BadSettings, ServiceFailed
from modelhub_tui.service.redact import known_secrets, redact
from modelhub_tui.untrusted import clean

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect

_NO_LIMIT_S = 86_400.0
_COLOURS = {near.OK: "green", WARNING: "yellow", PROBLEM: "red"}


def doctor(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Run all checks and print the report; 1 if there is a problem."""
    return _examine(arguments, settings, console)


def without_settings(arguments: Namespace, console: Console, error: BadSettings) -> int:
    """Do what can be done when the settings cannot be read: look with those that can, and the defaults."""
    # No config file: it may be what is wrong.
    env = {"HOME": os.environ.get("HOME") or "/", "XDG_CONFIG_HOME": "/nonexistent"}
    for name in (*(each.env for each in SETTINGS if each.name != "config"), "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        more = {**env, name: os.environ.get(name, "")}
        with contextlib.suppress(BadSettings):
            load_settings(env=more)
            env = more
    settings = load_settings(env=env)
    todo = "The other checks go by the settings that can be read, and the defaults."
    return _examine(arguments, settings, console, Check("settings", PROBLEM, error.reason, todo))


def _examine(arguments: Namespace, settings: Settings, console: Console, bad_settings: Check | None = None) -> int:
    flags = {name: getattr(arguments, name, None) for name in GLOBAL_FLAGS}
    secrets = _secrets(settings)
    in_force = partial(near.settings_in_force, settings, flags)
    looks: list[tuple[str, Look]] = [
        ("versions", near.versions),
        ("terminal", near.terminal),
        ("settings", in_force if bad_settings is None else lambda: bad_settings),
        ("folders", partial(near.folders, settings)),
        ("service", partial(far.service, settings)),
        ("database", partial(near.database, settings)),
        ("hub", partial(far.hub, settings)),
        ("token", partial(far.token, settings)),
        ("cache", partial(far.cache, settings)),
        ("gpu", near.gpu),
        ("logs", partial(near.logs, settings, secrets)),
    ]
    found = near.run_all(looks, arguments.timeout or _NO_LIMIT_S)
    report: dict[str, Any] = {
        "modelhub": __version__,
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "problems": sum(each.status == PROBLEM for each in found),
        "warnings": sum(each.status == WARNING for each in found),
        "checks": [_tidy(each.as_json(), secrets) for each in found],
    }
    if arguments.output:
        _write(Path(arguments.output), _as_text(report) if not console.as_json else _as_json(report))
        console.say(f"The report is in {clean(arguments.output, 300)}; look through it before you send it to anybody.")
    if console.as_json:
        if not arguments.output:
            console.json(report)
    else:
        for check in report["checks"]:
            _print(check, console)
        if not arguments.output:
            console.print()
            console.print("\n".join(_detail_lines(report)))
    return FAILED if report["problems"] else OK


def _secrets(settings: Settings) -> list[str]:
    """Everything secret that we know, so that it can be left out wherever it stands."""
    from modelhub_tui.service.statefile import read_state

    found = [*known_secrets(), settings.api_key or "", far._token()[0]]
    try:
        state = read_state(settings.state_dir)
    except (ServiceFailed, OSError):
        state = None
    if state is not None:
        found += [state.key, state.node_key]
    return [each for each in found if each]


def _tidy(value: Any, secrets: list[str]) -> Any:
    """The value with every text in it safe to show, and without secrets."""
    if isinstance(value, str):
        return clean(redact(value, secrets), 2000)
    if isinstance(value, Mapping):
        return {clean(name, 200): _tidy(each, secrets) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tidy(each, secrets) for each in value]
    return value


def _print(check: Mapping[str, Any], console: Console) -> None:
    console.print(f"{check['status']:<8} {check['name']:<9} {check['what']}", _COLOURS[check["status"]])
    if check["todo"]:
        console.print(f"{'':<18} {check['todo']}")


def _detail_lines(report: Mapping[str, Any]) -> list[str]:
    """Everything behind the checks, a line for each fact."""
    lines = []
    for check in report["checks"]:
        for name, value in check["details"].items():
            if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
                lines.append(f"{check['name']}.{name}:")
                lines += [f"  {each}" for each in value]
            elif isinstance(value, dict):
                lines += [f"{check['name']}.{name}.{inner}: {_plain(each)}" for inner, each in value.items()]
            else:
                lines.append(f"{check['name']}.{name}: {_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_text(report: Mapping[str, Any]) -> str:
    head = [f"modelhub doctor {report['modelhub']}, {report['made_at']}", ""]
    for check in report["checks"]:
        head.append(f"{check['status']:<8} {check['name']:<9} {check['what']}")
        if check["todo"]:
            head.append(f"{'':<18} {check['todo']}")
    return "\n".join([*head, "", *_detail_lines(report)]) + "\n"


def _as_json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    """Write the report, readable by us alone: it tells a lot about a machine.

    Raises:
        OSError: It cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
