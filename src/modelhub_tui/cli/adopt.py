"""`modelhub adopt`: register models that lie in a node's cache already, such as those that `hf download` fetched."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import OK
from modelhub_tui.cli.names import handle
from modelhub_tui.cli.orders import choose, order
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.trouble import BadUsage, exit_code
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.domain import Fleet, Model
from modelhub_tui.errors import AlreadyRegistered, ModelHubError, NotSupported, explain

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect
    from modelhub_tui.client.base import RouterClient


def adopt(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Register found models, as they are; print the router's name of each."""
    if bool(arguments.names) == arguments.all:
        raise BadUsage("Name what to adopt, or say --all; `modelhub local` shows what was found.")
    catalog = load_catalog(settings.catalog, settings.cache_dir)

    async def work(client: RouterClient, fleet: Fleet) -> tuple[list[dict[str, object]], int]:
        found = [model for model in fleet.models if model.found]
        chosen = tuple(found) if arguments.all else choose(found, fleet.models, arguments.names)
        adopted: list[dict[str, object]] = []
        code = OK
        for model in chosen:
            try:
                adopted.append(await _adopt(client, model))
            except NotSupported:
                raise  # none of the others fares better
            except ModelHubError as error:
                text = str(explain(error))
                console.error(text if model.name in text else f"{handle(model)}: {text}")
                code = code or exit_code(error)
        return adopted, code

    adopted, code = order(connect, catalog, work, Patience(arguments, console), heard=True)
    if console.as_json:
        console.json(adopted)
        return code
    for each in adopted:
        console.print(str(each["name"]))
    if not adopted and code == OK:
        console.say("Nothing was found that is not registered.")
    return code


async def _adopt(client: RouterClient, model: Model) -> dict[str, object]:
    """Adopt one model; one that is registered already is fine.

    Raises:
        ModelHubError: The router refuses.
    """
    new, name, file, size_bytes = False, model.name, model.file, model.size_bytes
    if not model.registered:
        try:
            told = await client.adopt(model.name)
            new, name = True, told.name
            file, size_bytes = told.file or file, told.size_bytes or size_bytes
        except AlreadyRegistered as known:
            name = known.name or name
    return {"id": model.catalog_id, "name": name, "new": new, "file": file, "size_bytes": size_bytes}
