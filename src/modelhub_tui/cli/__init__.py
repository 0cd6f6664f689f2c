"""The command line: the same client layer as the dashboard, without Textual.

Everything is imported when its subcommand runs. stdout carries data, stderr everything else, and nothing ends in a
traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from modelhub_tui.cli.output import Console
    from modelhub_tui.client.base import RouterClient
    from modelhub_tui.config import Settings

    Connector = Callable[[Settings], Callable[[], Awaitable[RouterClient]]]

OK, FAILED, USAGE, UNREACHABLE, UNAUTHORISED, NOT_FOUND, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


def main(argv: list[str], *, connector: Connector | None = None) -> int:
    """Run a subcommand, or open the dashboard if there is none.

    Args:
        argv: Without the program's name.
        connector: Replaces how a router is reached, in tests.

    Returns:
        The exit code: 0 ok, 1 failed, 2 usage, 3 router unreachable, 4 not authorised, 5 not found, 130 interrupted.
    """
    try:
        try:
            code = _run(argv, connector)
        except SystemExit as leaving:  # argparse, after --help or with a usage error
            code = leaving.code if isinstance(leaving.code, int) else USAGE
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough.
        _flush_to_nowhere()
        return 128 + 13
    except OSError as error:
        from modelhub_tui.cli.output import Console, unwritable
        from modelhub_tui.errors import explain

        _flush_to_nowhere()
        Console().error(str(explain(unwritable(error))))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _flush_to_nowhere() -> None:
    """Let nothing be left for Python to flush at its exit: it would complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(argv: list[str], connector: Connector | None) -> int:
    if argv in (["--version"], ["-V"]):
        from modelhub_tui import __version__

        sys.stdout.write(f"modelhub {__version__}\n")
        return OK
    from modelhub_tui.cli.arguments import GLOBAL_FLAGS, build_parser
    from modelhub_tui.cli.output import OUTPUT, Console
    from modelhub_tui.cli.trouble import exit_code, log_to_file
    from modelhub_tui.config import load_settings
    from modelhub_tui.errors import BadSettings, explain

    arguments = build_parser(argv[0] if argv else None).parse_args(argv)
    console = Console(as_json=getattr(arguments, "json", False))
    try:
        try:
            settings = load_settings({name: getattr(arguments, name, None) for name in GLOBAL_FLAGS})
        except BadSettings as error:
            if arguments.command != "doctor":
                raise
            from modelhub_tui.cli.doctor import without_settings

            return without_settings(arguments, console, error)
        log_to_file(settings)
        if settings.notice and arguments.command not in (None, "doctor"):
            console.say(settings.notice, "yellow")
        if arguments.command is None:
            from modelhub_tui.cli.tui import run_tui

            code = run_tui(settings)
            _warn_of_key(arguments, console)  # now: before, it would have been painted over
            return code
        _warn_of_key(arguments, console)
        if connector is None:
            from modelhub_tui.cli.connect import connector as real_connector

            connector = real_connector
        return _command(arguments.command)(arguments, settings, console, connector(settings))
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            raise
        if isinstance(error, OSError) and error.filename == OUTPUT:
            _flush_to_nowhere()
        console.error(str(explain(error)))
        return exit_code(error)


def _warn_of_key(arguments: Namespace, console: Console) -> None:
    """A key that was typed is seen by everybody on this machine who lists processes, for as long as this one runs."""
    if getattr(arguments, "api_key", None):
        safer = "put it in a file (--api-key-file FILE) or in MODELHUB_API_KEY"
        console.say(f"--api-key shows the key to every user of this machine who lists processes; {safer}.", "yellow")


def _command(name: str) -> Callable[..., int]:
    """The function behind a subcommand; its module is imported now."""
    import importlib

    module, function = {
        "list": ("listing", "list_models"),
        "local": ("listing", "list_local"),
        "pull": ("pull", "pull"),
        "pause": ("queue", "pause"),
        "resume": ("queue", "resume"),
        "move": ("queue", "move"),
        "limits": ("limits", "limits"),
        "rm": ("remove", "remove"),
        "undo": ("trash", "undo"),
        "trash": ("trash", "trash"),
        "adopt": ("adopt", "adopt"),
        "register": ("register", "register"),
        "status": ("status", "status"),
        "serve": ("service", "serve"),
        "node": ("service", "node"),
        "stop": ("service", "stop"),
        "service": ("unit", "service"),
        "doctor": ("doctor", "doctor"),
        "catalog": ("catalog", "check"),
        "login": ("login", "login"),
        "logout": ("login", "logout"),
    }[name]
    found: Callable[..., int] = getattr(importlib.import_module(f"modelhub_tui.cli.{module}"), function)
    return found
