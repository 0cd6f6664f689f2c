"""`modelhub service`: let systemd look after the local service, so that it is there after a restart of the machine."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING

from modelhub_tui.cli import FAILED, NOT_FOUND, OK
from modelhub_tui.cli.output import Console
from modelhub_tui.config import Settings
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.service import unit

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect

_WITHOUT = (
    "modelhub starts it when needed; or run `modelhub serve` from what starts programs here (launchd, runit, cron)."
)
_TOKEN = "HF_TOKEN is not written into the unit; `hf auth login` keeps it where the service finds it."  # noqa: S105
_KEY = "MODELHUB_API_KEY is not written into the unit; name a file that holds it with MODELHUB_API_KEY_FILE."


def service(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Install, remove, show or print the unit."""
    match arguments.action:
        case "print":
            console.print(unit.unit_text(settings).rstrip("\n"))
            return OK
        case "install":
            return _install(arguments, settings, console)
        case "uninstall":
            return _uninstall(arguments, console)
        case _:
            return _status(settings, console)


def _install(arguments: Namespace, settings: Settings, console: Console) -> int:
    if not unit.has_systemd():
        raise ServiceFailed("There is no systemd on this machine.", _WITHOUT)
    path = unit.unit_path()
    changed = unit.write_unit(path, unit.unit_text(settings), force=arguments.force)
    console.print(f"{'Wrote' if changed else 'Unchanged:'} {path}")
    _mention_secrets(settings, console)
    if not unit.has_manager():
        console.say(
            "No systemd user manager runs here (in a container, or without a login session), so it was not started.",
            "yellow",
        )
        console.say(f"Where one runs: systemctl --user daemon-reload && systemctl --user enable --now {unit.NAME}")
        return OK
    _must("daemon-reload")
    active = unit.systemctl("is-active", unit.NAME)[0] == 0
    if not active and _give_way(settings):
        console.say("The service that ran until now was stopped; its downloads resume.")
    _must("enable", "--now", unit.NAME)
    if active and changed:
        _must("restart", unit.NAME)
    console.print("The service runs, and starts again with your next login.")
    if not unit.lingers():
        console.say("To start it with the machine, and keep it when you log out: loginctl enable-linger")
    return OK


def _give_way(settings: Settings) -> bool:
    """Stop a service that somebody started by hand: systemd's could not start beside it."""
    from modelhub_tui.service.lifecycle import stop_service

    return stop_service(settings)


def _mention_secrets(settings: Settings, console: Console) -> None:
    if os.environ.get("HF_TOKEN"):
        console.say(_TOKEN, "yellow")
    if os.environ.get("MODELHUB_API_KEY") and settings.api_key and not settings.key_of:
        console.say(_KEY, "yellow")


def _must(*arguments: str) -> None:
    """Ask systemd for something.

    Raises:
        ServiceFailed: With its own words.
    """
    code, said = unit.systemctl(*arguments)
    if code != 0:
        from modelhub_tui.untrusted import clean

        why = clean(said, 300).rstrip(".") or f"exit code {code}"
        todo = f"`systemctl --user status {unit.NAME}` and `modelhub doctor` say more."
        raise ServiceFailed(f"systemctl {arguments[0]} failed: {why}.", todo)


def _uninstall(arguments: Namespace, console: Console) -> int:
    path = unit.unit_path()
    there = unit.read_unit(path)
    if there is None:
        console.print("Nothing is installed.")
        return OK
    manager = unit.has_manager() and (unit.ours(there) or arguments.force)
    if manager:
        code, said = unit.systemctl("disable", "--now", unit.NAME)
        if code != 0:
            console.say(f"systemctl disable: {said}", "yellow")
    unit.remove_unit(path, force=arguments.force)
    if manager:
        unit.systemctl("daemon-reload")
    console.print(f"Removed {path}; models, queue and settings stay.")
    return OK


def _status(settings: Settings, console: Console) -> int:
    from modelhub_tui.service.lifecycle import find_service

    path = unit.unit_path()
    there = unit.read_unit(path)
    running = find_service(settings)
    manager = unit.has_manager()
    told = {
        "unit": str(path),
        "installed": there is not None,
        "ours": there is not None and unit.ours(there),
        "up_to_date": there == unit.unit_text(settings),
        "manager": manager,
        "enabled": manager and unit.systemctl("is-enabled", unit.NAME)[0] == 0,
        "active": manager and unit.systemctl("is-active", unit.NAME)[0] == 0,
        "lingers": unit.lingers(),
        "pid": running.pid if running else None,
    }
    if console.as_json:
        console.json(told)
    else:
        _print_status(told, console)
    if there is None:
        return NOT_FOUND
    return OK if told["ours"] else FAILED


def _print_status(told: dict[str, object], console: Console) -> None:
    if not told["installed"]:
        console.print("Not installed; `modelhub service install` does that.")
    elif not told["ours"]:
        console.print(f"{told['unit']} was not written by modelhub.")
    else:
        age = "" if told["up_to_date"] else ", for other settings or another version than these"
        console.print(f"Installed as {told['unit']}{age}.")
        if told["manager"]:
            enabled = "enabled" if told["enabled"] else "not enabled"
            console.print(f"systemd: {enabled}, {'active' if told['active'] else 'not active'}.")
            console.print(
                "It starts with the machine."
                if told["lingers"]
                else "It runs while you are logged in; `loginctl enable-linger` lets it start with the machine."
            )
        else:
            console.print("No systemd user manager runs here.")
    console.print(f"The service runs (process {told['pid']})." if told["pid"] else "The service does not run.")
