"""Which model a person means: a catalog id, a registered name, a title, or any part that only one model has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.domain import Model
from modelhub_tui.errors import BadReference, NotFound
from modelhub_tui.untrusted import clean

if TYPE_CHECKING:
    from modelhub_tui.client.base import RegisterRequest
    from modelhub_tui.hub_refs import HubRef

MOST_CANDIDATES = 10


def resolve(models: Sequence[Model], name: str) -> Model:
    """Return the one model that `name` means. Case does not matter, and an exact match beats a part.

    Raises:
        NotFound: No model has it.
        BadUsage: It is empty, or several have it; the reason lists them.
    """
    wanted = name.strip().casefold()
    if not wanted:
        raise BadUsage("A NAME is empty; type a catalog id, a registered name, or part of one.")
    exact = (
        lambda model: (model.catalog_id or "").casefold() == wanted,
        lambda model: model.name.casefold() == wanted,
        lambda model: model.title.casefold() == wanted,
        lambda model: model.repo.casefold() == wanted,
    )
    for matches in exact:
        found = [model for model in models if matches(model)]
        if found:
            return _only(found, name)
    found = [model for model in models if wanted in _said(model)]
    if found:
        return _only(found, name)
    raise NotFound(clean(name, 100))


def resolve_pull(models: Sequence[Model], name: str, endpoint: str) -> Model | RegisterRequest:
    """Return the known model that `name` means, or, if it names a repo that no list has, the request to register it.

    Raises:
        NotFound, BadUsage: As for `resolve()`.
        BadReference: It has a slash, but is no repo.
    """
    from modelhub_tui.client.base import RegisterRequest
    from modelhub_tui.hub_refs import parse_hub_ref

    try:
        return resolve(models, name)
    except NotFound:
        if "/" not in name:
            raise
    try:
        ref = parse_hub_ref(name, endpoint)
    except BadReference:
        if "://" in name:
            raise
        raise NotFound(clean(name, 100)) from None
    return _known(models, ref) or RegisterRequest(ref.repo, ref.file, ref.revision)


def _known(models: Sequence[Model], ref: HubRef) -> Model | None:
    """The listed model that a reference means; one with a file or revision of its own is that and no other."""
    there = [model for model in models if model.repo.casefold() == ref.repo.casefold()]
    if ref.file is not None:
        there = [model for model in there if ref.file in (model.file, *model.files)]
    if ref.revision is not None:
        there = [model for model in there if model.revision == ref.revision]
    return _only(there, ref.repo) if there else None


def handle(model: Model) -> str:
    """What to type for this model."""
    return model.catalog_id or model.name


def _said(model: Model) -> str:
    return "\n".join((model.catalog_id or "", model.name, model.title, model.repo)).casefold()


def _only(found: list[Model], name: str) -> Model:
    if len(found) == 1:
        return found[0]
    shown = [handle(model) for model in found[:MOST_CANDIDATES]]
    if len(set(shown)) < len(shown):
        shown = [model.name for model in found[:MOST_CANDIDATES]]
    more = f" and {len(found) - MOST_CANDIDATES} more" if len(found) > MOST_CANDIDATES else ""
    raise BadUsage(f"{clean(name, 100)!r} could be any of: {', '.join(shown)}{more}. Type more of the name.")
