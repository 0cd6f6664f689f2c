"""`modelhub register`: make any HuggingFace repo known to the router, so that its nodes fetch it."""

from __future__ import annotations

from argparse import Namespace

from modelhub_tui.cli import OK
from modelhub_tui.cli.fleet import Connect
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.config import Settings
from modelhub_tui.errors import AlreadyRegistered, BadReference
from modelhub_tui.hub_refs import parse_hub_ref
from modelhub_tui.identifiers import safe_repo_path


def register(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Register a repo, and print the router's name for it."""
    ref = parse_hub_ref(arguments.repo, settings.hf_endpoint)
    file = arguments.file or ref.file
    if arguments.file:
        try:
            safe_repo_path(arguments.file)
        except ValueError as error:
            raise BadReference(f"The file name cannot be used ({error}).") from error
    new = True
    try:
        patience = Patience(arguments, console)
        patience.why = f"Waiting for the router to ask the hub about {ref.repo}."
        told = patience.run(_register(connect, RegisterRequest(ref.repo, file, ref.revision)))
    except AlreadyRegistered as known:
        told, new = Registered(known.name, file), False
    for warning in told.warnings:
        console.say(f"{told.name}: {warning}", "yellow")
    if console.as_json:
        members = {"file": told.file, "size_bytes": told.size_bytes, "warnings": list(told.warnings)}
        console.json({"name": told.name, "new": new, **members})
        return OK
    console.say("Registered; the nodes fetch it now." if new else "It is registered already.")
    console.print(told.name)
    return OK


async def _register(connect: Connect, request: RegisterRequest) -> Registered:
    client = await connect()
    try:
        await client.info()
        return await client.register(request)
    finally:
        await client.aclose()
