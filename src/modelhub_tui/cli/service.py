"""`modelhub serve`, `node` and `stop`: the service's processes, by hand."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from modelhub_tui.cli import OK
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.untrusted import clean_url

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect


def serve(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Run the local service in this process until it is stopped."""
    from modelhub_tui.service.lifecycle import serve as run

    key = settings.api_key
    if key and settings.key_of:
        # Who has that router's key, and its administrators, would be administrators here.
        console.say(
            f"The API key is for {clean_url(settings.key_of)}, set beside it, and not this service's.", "yellow"
        )
        key = None
    _free_logging(arguments)
    return run(settings, host=arguments.host, port=arguments.port, foreground=True, api_key=key)


def node(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Run a node in this process until it is stopped."""
    if settings.router is None:
        raise BadUsage("A node needs a router: give its URL with --router or MODELHUB_ROUTER.")
    if not settings.api_key:
        raise BadUsage("A node needs the router's key: give it with --api-key-file or MODELHUB_API_KEY.")
    from modelhub_tui.own_folder import prepare_dir
    from modelhub_tui.service.node import run_node

    prepare_dir(settings.state_dir)
    _free_logging(arguments)
    return run_node(settings, router_url=settings.router, key=settings.api_key, name=arguments.name)


def stop(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Stop the service of this machine."""
    from modelhub_tui.service.lifecycle import stop_service

    patience = Patience(arguments, console)
    patience.why = "Waiting for the service to finish what it is at and to end."
    stopped = patience.call(lambda: stop_service(settings))
    console.say("Stopped." if stopped else "No service was running.")
    return OK


def _free_logging(arguments: Namespace) -> None:
    """The service and the node set up logs of their own, in this process and in those that it starts."""
    import logging
    import os

    if arguments.log_format:
        os.environ["MODELHUB_LOG_FORMAT"] = arguments.log_format

    logging.getLogger().handlers.clear()
