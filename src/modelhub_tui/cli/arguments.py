"""What can be typed after `modelhub`, and the help for it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from modelhub_tui import __version__
from modelhub_tui.cli.output import columns
from modelhub_tui.config import SETTINGS
from modelhub_tui.domain import ModelState, Place
from modelhub_tui.identifiers import whole_number
from modelhub_tui.untrusted import clean

GLOBAL_FLAGS = tuple(each.name for each in SETTINGS if each.flag)
_METAVARS = {"router": "URL", "api_key": "KEY", "theme": "NAME"}
_EXAMPLES = "examples:"
_NAMES = "NAME is a catalog id, a registered name, or words of one that only one model has."
_FULL_NAMES = "NAME is a full catalog id, registered name or title, as `modelhub list` shows it."


class _Parser(argparse.ArgumentParser):
    """Does not repeat to the terminal what somebody else may have put into an argument."""

    def error(self, message: str) -> NoReturn:
        super().error(clean(message, 500))


class _WithExamples(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of examples, and wraps other texts: only when there is help to print, which few commands do."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_EXAMPLES):
            return super()._fill_text(text, width, indent)
        import textwrap

        return textwrap.fill(text, 78)


class _NotTyped:
    """Takes what is said about a command that was not typed."""

    def add_argument(self, *_: Any, **__: Any) -> None:
        pass

    def add_subparsers(self, **_: Any) -> _NotTyped:
        return self


def build_parser(typed: str | None = None) -> argparse.ArgumentParser:
    """The parser; `command` is None if no subcommand was given. Global flags may stand before or after it.

    Args:
        typed: The subcommand, if it comes first: only its parser is made then, as all together take as long as the rest
            of a short command. Anything else makes all.
    """
    width = columns() - 2  # as argparse has it, which would find it out anew for each argument
    formatter = partial(argparse.HelpFormatter, width=width)
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False, formatter_class=formatter)
    group = common.add_argument_group("global flags")
    for each in SETTINGS:
        if each.flag:
            metavar = _METAVARS.get(each.name, "FILE")
            text = f"{each.help} (or {each.env})".replace("%", "%%")
            group.add_argument(each.flag, dest=each.name, metavar=metavar, help=text)
    group.add_argument("--version", "-V", action="version", version=f"modelhub {__version__}")
    parser = _Parser(
        prog="modelhub",
        parents=[common],
        formatter_class=formatter,
        allow_abbrev=False,
        description="Browse, pull, watch and delete the models of an LLM fleet. Without a command, open the dashboard.",
        epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 router unreachable, 4 not authorised, 5 not found, "
        "130 interrupted.",
    )
    # With `prog` it need not be found out, which takes a formatter of help.
    commands = parser.add_subparsers(prog="modelhub", dest="command", metavar="COMMAND", title="commands")

    def add(
        name: str,
        text: str,
        *examples: str,
        json: bool = True,
        timeout_s: int | None = 60,
        more: str = "",
        below: Any = commands,
    ) -> Any:
        if isinstance(below, _NotTyped) or (below is commands and typed not in (None, name)):
            return _NotTyped()
        shown = "\n".join(f"  modelhub {each}" for each in examples)
        added: argparse.ArgumentParser = below.add_parser(
            name,
            parents=[common],
            allow_abbrev=False,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. {more}".strip(),
            epilog=f"{_EXAMPLES}\n{shown}",
            formatter_class=partial(_WithExamples, width=width),
        )
        if timeout_s is not None:
            said = f"{timeout_s}; 0 is no limit" if timeout_s else "none"
            more_time = f"longest to wait, in seconds (default: {said})"
            added.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=timeout_s, help=more_time)
        if json:
            added.add_argument("--json", action="store_true", help="print JSON instead of text")
        return added

    listing = add("list", "list the supported and the registered models", "list", "list --search qwen --fits")
    listing.add_argument("--search", metavar="TEXT", default="", help="only models with all these words")
    states = [str(each) for each in ModelState]
    listing.add_argument("--status", metavar="STATE", choices=states, help=f"only in this state: {', '.join(states)}")
    listing.add_argument("--fits", action="store_true", help="only models known to fit a node's memory")

    add("local", "list the models that are on disk, and where", "local", "local --json | jq -r '.[].path'")

    pull = add(
        "pull",
        "download models, and wait until they are there",
        "pull qwen2.5-7b",
        "pull bartowski/Phi-3-mini-4k-instruct-GGUF:Phi-3-mini-4k-instruct-Q4_K_M.gguf",
        "pull phi-4-mini gemma-2-9b --no-wait",
        timeout_s=0,
        more=f"{_NAMES} Anything else with a slash is registered as a HuggingFace repo or URL. "
        "Prints the path of each. Ctrl+C stops the waiting, not the download, and so does a full disk.",
    )
    pull.add_argument("names", nargs="+", metavar="NAME")
    pull.add_argument("--node", metavar="NAME", help="the endpoint to download to, on routers that have endpoints")
    pull.add_argument("--quantization", metavar="Q", help="such as Q4_K_M, on endpoints that let us choose")
    pull.add_argument("--no-wait", action="store_true", help="return as soon as the download is queued")

    _add_queue(add)

    rm = add(
        "rm",
        "delete models, or cancel their download",
        "rm phi-3-mini-4k-instruct",
        "rm phi-3-mini-4k-instruct gemma-2-9b-it --yes",
        "rm qwen2.5-7b-instruct --cancel --yes",
        more=f"{_FULL_NAMES} A deleted model can be had back for a while with `modelhub undo`.",
    )
    rm.add_argument("names", nargs="+", metavar="NAME")
    rm.add_argument("--yes", "-y", action="store_true", help="do not ask")
    rm.add_argument("--cancel", action="store_true", help="also what is being downloaded just now: stop that first")
    rm.add_argument("--now", action="store_true", help="free the space at once; it cannot be undone then")

    _add_trash(add)

    register = add(
        "register",
        "register a HuggingFace repo, so that nodes fetch it",
        "register TheBloke/Llama-2-7B-GGUF --file llama-2-7b.Q4_K_M.gguf",
        "register https://huggingface.co/owner/name/blob/main/model.gguf",
        timeout_s=120,
    )
    register.add_argument("repo", metavar="REPO_OR_URL")
    register.add_argument("--file", metavar="FILE", help="the file of the repo to use")

    status = add("status", "say which router answers, and what its nodes do", "status", "status --show-key --json")
    status.add_argument("--show-key", action="store_true", help="also print the local service's key, for curl")

    serve = add(
        "serve",
        "run the local service in the foreground",
        "serve",
        "serve --host 0.0.0.0 --port 8080 --api-key-file FILE",
        json=False,
        timeout_s=None,
        more="Beyond this machine it needs an API key: in a file or in MODELHUB_API_KEY, as `ps` shows --api-key.",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=0, help="port to listen at (default: a free one)")

    node = add(
        "node",
        "run a node that keeps models for a router",
        "node --router http://router:8080 --api-key-file FILE",
        json=False,
        timeout_s=None,
    )
    node.add_argument("--name", metavar="NAME", help="what the router shows (default: this host's name)")

    for each in (serve, node):
        each.add_argument("--log-format", choices=("text", "json"), help="how the log is written (default: text)")

    login = add(
        "login",
        "log in to a router with a user name and a password",
        "login --router http://router:32768 --username admin",
        "login --username admin --password-stdin < password.txt",
        json=False,
        more="The session is kept for this router, in the system keyring where there is one.",
    )
    login.add_argument("--username", metavar="USER", help="who logs in (default: asked for)")
    login.add_argument("--password-stdin", action="store_true", help="read the password from stdin")

    add("logout", "forget the session kept for a router", "logout --router http://router:32768", json=False)

    add("stop", "stop the local service; its downloads resume when it starts again", "stop", json=False)

    served = ("service install", "service status", "service print > modelhub.service")
    service = add("service", "let systemd look after the local service", *served, json=False, timeout_s=None)
    actions = service.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    once: dict[str, Any] = {"below": actions, "timeout_s": None}  # each step has a limit of its own
    install = add("install", "write a systemd user unit, and start it", "service install", json=False, **once)
    install.add_argument("--force", action="store_true", help="replace a unit that modelhub did not write")
    uninstall = add("uninstall", "stop the unit and remove it", "service uninstall", json=False, **once)
    uninstall.add_argument("--force", action="store_true", help="remove a unit that modelhub did not write")
    add("status", "say whether the unit is installed, and runs", "service status --json", **once)
    add("print", "print the unit", "service print", json=False, **once)

    doctor = add(
        "doctor",
        "check everything that downloads depend on, and gather what a bug report needs",
        "doctor",
        "doctor --json -o report.json",
        timeout_s=8,
        more="Exits with 1 if there is a problem. Secrets are left out.",
    )
    doctor.add_argument("-o", "--output", metavar="FILE", help="write the report to a file, too")

    examples = ("catalog check", "catalog check my-catalog.yaml")
    catalog = add("catalog", "look after catalog files", *examples, json=False, timeout_s=None)
    actions = catalog.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    check = add("check", "list every problem of a catalog file", *examples, below=actions, timeout_s=None)
    check.add_argument("file", nargs="?", metavar="FILE", help="default: the catalog in use")
    # Nobody's name: say which there are.
    return parser if typed is None or typed in commands.choices else build_parser()


def _add_queue(add: Callable[..., Any]) -> None:
    """What changes the queue of downloads, and what they may take."""
    examples = ("pause qwen2.5-7b", "pause phi-3-mini gemma-2-9b")
    pause = add("pause", "hold downloads; what they have fetched stays", *examples, more=_NAMES)
    pause.add_argument("names", nargs="+", metavar="NAME")
    resume = add("resume", "let held downloads go on", "resume qwen2.5-7b", more=_NAMES)
    resume.add_argument("names", nargs="+", metavar="NAME")
    move = add(
        "move", "change a download's place in the queue", "move phi-3-mini first", "move gemma-2-9b later", more=_NAMES
    )
    move.add_argument("name", metavar="NAME")
    places = [str(each) for each in Place]
    move.add_argument("to", metavar="|".join(places), choices=places, help="where to")

    limits = add(
        "limits",
        "print what downloads and the trash may take, or change it",
        "limits",
        "limits --parallel 4 --bandwidth 50M",
        "limits --disk-floor 20G --trash-seconds 1h",
        more="Changes hold at once, also for downloads that run, and are kept over restarts. "
        "Sizes are written as 500M, 20G or 64GiB, times as 90s, 30m, 1h or 2d.",
    )
    limits.add_argument("--parallel", dest="parallel_transfers", metavar="N", help="models at the same time, 1 to 16")
    limits.add_argument("--bandwidth", metavar="SIZE", help="bytes per second of all together; 0 is no limit")
    limits.add_argument("--disk-floor", metavar="SIZE", help="free space to leave alone; auto is 2%% of the disk")
    limits.add_argument("--trash-seconds", metavar="TIME", help="how long a deletion can be undone; 0 is never")
    limits.add_argument("--trash-size", metavar="SIZE", help="most that the trash may hold")


def _add_trash(add: Callable[..., Any]) -> None:
    """What brings models back, or takes up those that nobody registered."""
    undo = add(
        "undo",
        "take deletions back, without a download",
        "undo",
        "undo phi-3-mini",
        more="Without a NAME it is the last one. Prints the path of each.",
    )
    undo.add_argument("names", nargs="*", metavar="NAME")

    examples = ("trash", "trash --empty phi-3-mini-4k-instruct", "trash --empty --yes")
    trash = add("trash", "list the deleted models that can be had back, or free them", *examples)
    trash.add_argument("names", nargs="*", metavar="NAME", help="only these; in full with --empty")
    trash.add_argument("--empty", action="store_true", help="free the space for good")
    trash.add_argument("--yes", "-y", action="store_true", help="do not ask")

    adopt = add(
        "adopt",
        "register models that are in a node's cache already",
        "adopt acme/tiny-gguf",
        "adopt --all",
        more="Such as those that `hf download` fetched; `modelhub local` shows them. Nothing is downloaded.",
    )
    adopt.add_argument("names", nargs="*", metavar="NAME")
    adopt.add_argument("--all", action="store_true", help="all that were found")


def _seconds(text: str) -> Any:
    number = whole_number(text.removesuffix("s").strip(), 9_999_999)
    if number is not None:
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; give a whole one, or 0 for no limit")


def _port(text: str) -> Any:
    port = whole_number(text, 65535)
    if port is None:
        raise argparse.ArgumentTypeError(f"{clean(text, 40)!r} is no port; give a number from 0 to 65535")
    return port
