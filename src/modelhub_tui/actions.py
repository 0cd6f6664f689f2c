"""What can be done with a model: decided by its state, and by what this router's generation is able to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from modelhub_tui.domain import IN_FLIGHT, LOCAL_ABILITIES, Ability, Model, ModelState, Node, Phase, Transfer

PULLABLE = frozenset({ModelState.AVAILABLE})
CANCELLABLE = frozenset({ModelState.QUEUED, ModelState.DOWNLOADING, ModelState.PAUSED, ModelState.FAILED})
RETRIABLE = frozenset({ModelState.FAILED, ModelState.PAUSED})
DELETABLE = frozenset({ModelState.DOWNLOADED})

PAUSABLE = frozenset({ModelState.QUEUED, ModelState.DOWNLOADING, ModelState.PAUSED})

STATES_FOR = {
    "pull": PULLABLE,
    "cancel": CANCELLABLE,
    "retry": RETRIABLE,
    "delete": DELETABLE,
    "pause": PAUSABLE - {ModelState.PAUSED},
    "resume": frozenset({ModelState.PAUSED}),
    "reorder": IN_FLIGHT,
}
"""The states in which each model command makes sense, where the router is able to do everything."""
_MOVING = (Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING)

_ON_ENDPOINT = frozenset({ModelState.AVAILABLE, ModelState.QUEUED, ModelState.FAILED, ModelState.DOWNLOADED})
"""States in which a download can be ordered on one endpoint; a second endpoint may want a copy too."""


_FOR_ALL = {
    "undo": (Ability.UNDO, "has no trash: what it deletes is gone."),
    "trash": (Ability.UNDO, "has no trash: what it deletes is gone."),
    "limits": (Ability.LIMITS, "has no limits that could be changed."),
}
"""Commands that are about no single model: what they need, and what to say without it."""


def held(model: Model) -> bool:
    """Whether a person holds its transfer; a nearly full disk does not count, that goes on by itself."""
    if model.state not in PAUSABLE:
        return False
    return model.paused or (model.state is ModelState.PAUSED and not waits_for_room(model))


def waits_for_room(model: Model) -> bool:
    """Whether its transfer is paused because the disk is nearly full."""
    transfer = model.transfer
    return transfer is not None and transfer.phase is Phase.PAUSED and transfer.error_code == "no_space"


def orphaned(model: Model) -> bool:
    """Whether nobody works on its transfers any more."""
    return model.state in IN_FLIGHT and bool(model.transfers) and all(each.orphaned for each in model.transfers)


def running(model: Model) -> tuple[Transfer, ...]:
    """The transfers that somebody works on right now."""
    return tuple(each for each in model.transfers if each.phase in _MOVING and not each.orphaned)


def deleters(nodes: Iterable[Node]) -> frozenset[str]:
    """Ids and names of the nodes that delete a model when asked to."""
    return frozenset(said for node in nodes if node.deletes for said in (node.id, node.name))


def can(
    action: str,
    model: Model,
    abilities: Collection[Ability] = LOCAL_ABILITIES,
    deleting_nodes: Collection[str] | None = None,
) -> bool:
    """Whether an action can be asked for this model: one of `STATES_FOR`, or `adopt`.

    Args:
        deleting_nodes: What `deleters()` says of the fleet's nodes; None if that is not known.
    """
    state = model.state
    if model.unusable:
        return action == "delete" and Ability.DELETE in abilities
    match action:
        case "pull":
            return (Ability.PULL in abilities and state in PULLABLE) or (
                Ability.PULL_ON_NODE in abilities and state in _ON_ENDPOINT
            )
        case "adopt":
            return Ability.ADOPT in abilities and model.found and not model.registered
        case "cancel":
            return Ability.CANCEL in abilities and state in CANCELLABLE
        case "retry":
            if Ability.RETRY not in abilities or (Ability.PAUSE in abilities and held(model)):
                return False
            waits = model.transfer is not None and model.transfer.waits_for_line
            return state in RETRIABLE or waits or orphaned(model)
        case "pause":
            return Ability.PAUSE in abilities and state in PAUSABLE and not held(model) and not orphaned(model)
        case "resume":
            return Ability.PAUSE in abilities and held(model)
        case "reorder":
            return Ability.ORDER in abilities and state in IN_FLIGHT and model.queue_position is not None
        case "delete":
            if model.found and not model.registered and Ability.ADOPT in abilities:
                return False  # not the router's to delete before it is adopted
            if Ability.DELETE_ON_NODE in abilities and _on_a_deleter(model, deleting_nodes):
                return True
            if Ability.DELETE not in abilities:
                return False
            if state in DELETABLE:
                # An endpoint's own model that nobody registered is nothing this router could forget.
                return Ability.PULL in abilities or model.registered
            # Where nothing can be cancelled, a registration that fetches nothing can at least be taken back.
            return model.registered and Ability.CANCEL not in abilities and state is not ModelState.DELETING
        case _:
            return False


def _on_a_deleter(model: Model, deleting_nodes: Collection[str] | None) -> bool:
    if deleting_nodes is None:
        return bool(model.placements)
    return any(place.node_id in deleting_nodes or place.node in deleting_nodes for place in model.placements)


def applicable(
    action: str,
    models: Iterable[Model],
    abilities: Collection[Ability] = LOCAL_ABILITIES,
    deleting_nodes: Collection[str] | None = None,
) -> tuple[Model, ...]:
    """Those of `models` that the model command `action` makes sense for."""
    return tuple(model for model in models if can(action, model, abilities, deleting_nodes))


def refusal(
    action: str,
    models: Iterable[Model],
    abilities: Collection[Ability],
    router: str,
    deleting_nodes: Collection[str] | None = None,
) -> str:
    """Why a key does nothing: what the router is not able to do, or that nothing is on its way. Empty if neither.

    Args:
        router: What answers, such as `llmlb 5.7.1`.
    """
    models = tuple(models)
    who = router or "This router"
    if action == "register":
        return "" if Ability.REGISTER in abilities else f"{who} cannot register models."
    if action in _FOR_ALL:
        needed, sentence = _FOR_ALL[action]
        return "" if needed in abilities else f"{who} {sentence}"
    if action not in STATES_FOR or applicable(action, models, abilities, deleting_nodes):
        return ""
    if models and all(model.unusable for model in models):
        return "Its registration cannot be used; it can only be deleted, with d."
    if not any(model.state in STATES_FOR[action] for model in models):
        return _idle(action, models)
    match action:
        case "delete" if Ability.ADOPT in abilities and any(model.found for model in models):
            return "It was found on disk and is not registered: adopt it first, with p."
        case "pause" | "resume":
            return "" if Ability.PAUSE in abilities else f"{who} cannot pause a download."
        case "reorder":
            return "" if Ability.ORDER in abilities else f"{who} has no order of downloads to change."
        case "retry" if Ability.RETRY in abilities:
            return ""
        case "pull":
            return f"{who} cannot start downloads: its endpoints fetch their own models."
        case "cancel":
            return f"{who} cannot stop a download."
        case "retry":
            return f"{who} cannot be asked to try again: its nodes do so by themselves."
        case _:
            return f"{who} cannot delete what its endpoints hold."


def _idle(action: str, models: tuple[Model, ...]) -> str:
    """Why there is nothing to hold, to stop or to move: nothing is on its way. Empty for all other actions."""
    if action not in ("pause", "cancel", "reorder") or any(model.state in IN_FLIGHT for model in models):
        return ""
    match models:
        case ():
            return ""
        case (Model(state=ModelState.DOWNLOADED, title=title),):
            return f"{title} is downloaded already: nothing is on its way."
        case (Model(state=ModelState.DELETING, title=title),):
            return f"{title} is being deleted."
        case (Model(title=title),):
            return f"{title} is not being downloaded."
        case _:
            return f"None of the {len(models)} models is being downloaded."
