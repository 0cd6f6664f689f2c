"""Which model a person means: a catalog id, a registered name, a title, or words of one that only one model has.

What cannot be taken back takes full names only.
"""

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


def resolve(models: Sequence[Model], name: str, *, full: bool = False) -> Model:
    """Return the one model that `name` means. Case does not matter, and an exact match beats a part.

    Args:
        full: A part is not enough: something is about to be destroyed.

    Raises:
        NotFound: No model has it.
        BadUsage: It is empty, or several have it, or it is a part and has to be more; the reason lists them.
    """
    wanted = name.strip().casefold()
    if not wanted:
        raise BadUsage("A NAME is empty; type a catalog id, a registered name, or words of one.")
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
    found = [model for model in models if has_part(_said(model), wanted)]
    if found and full:
        raise only_a_part(name, _handles(found))
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


def has_part(names: Sequence[str], part: str) -> bool:
    """Whether one of some names holds a part as whole words; one with a slash begins with the whole owner.

    A number may follow a word: `qwen` is a part of `qwen2.5`, and `7b` is none of `27b`.
    """
    part = part.casefold()
    for name in map(str.casefold, names):
        at = name.find(part)
        while at >= 0:
            before, after = name[at - 1 : at], name[at + len(part) : at + len(part) + 1]
            begins = not at if "/" in part else not (before.isalnum() and part[0].isalnum())
            ends = not (part[-1].isalnum() and after.isalnum()) or (part[-1].isalpha() and after in "0123456789")
            if begins and ends:
                return True
            at = name.find(part, at + 1)
    return False


def only_a_part(name: str, full: Sequence[str]) -> BadUsage:
    """The refusal to destroy what was named by a part of its name."""
    return BadUsage(f"{clean(name, 100)!r} is a part of a name; type it in full: {' or '.join(full)}.")


def handle(model: Model) -> str:
    """What to type for this model."""
    return model.catalog_id or model.name


def _said(model: Model) -> tuple[str, ...]:
    return model.catalog_id or "", model.name, model.title, model.repo


def _only(found: list[Model], name: str) -> Model:
    if len(found) == 1:
        return found[0]
    more = f" and {len(found) - MOST_CANDIDATES} more" if len(found) > MOST_CANDIDATES else ""
    raise BadUsage(f"{clean(name, 100)!r} could be any of: {', '.join(_handles(found))}{more}. Type more of the name.")


def _handles(found: list[Model]) -> list[str]:
    """What to type for each of the first of some models, no two the same."""
    shown = [handle(model) for model in found[:MOST_CANDIDATES]]
    return shown if len(set(shown)) == len(shown) else [model.name for model in found[:MOST_CANDIDATES]]
