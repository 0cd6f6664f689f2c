"""What can be done with a model: decided by its state, and by what this router's generation is able to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from modelhub_tui.domain import LOCAL_ABILITIES, Ability, Model, ModelState

PULLABLE = frozenset({ModelState.AVAILABLE})
CANCELLABLE = frozenset({ModelState.QUEUED, ModelState.DOWNLOADING, ModelState.PAUSED, ModelState.FAILED})
RETRIABLE = frozenset({ModelState.FAILED, ModelState.PAUSED})
DELETABLE = frozenset({ModelState.DOWNLOADED})

STATES_FOR = {"pull": PULLABLE, "cancel": CANCELLABLE, "retry": RETRIABLE, "delete": DELETABLE}
"""The states in which each model command makes sense, where the router is able to do everything."""

_ON_ENDPOINT = frozenset({ModelState.AVAILABLE, ModelState.QUEUED, ModelState.FAILED, ModelState.DOWNLOADED})
"""States in which a download can be ordered on one endpoint; a second endpoint may want a copy too."""


def can(action: str, model: Model, abilities: Collection[Ability] = LOCAL_ABILITIES) -> bool:
    """Whether `pull`, `cancel`, `retry` or `delete` can be asked for this model."""
    state = model.state
    match action:
        case "pull":
            return (Ability.PULL in abilities and state in PULLABLE) or (
                Ability.PULL_ON_NODE in abilities and state in _ON_ENDPOINT
            )
        case "cancel":
            return Ability.CANCEL in abilities and state in CANCELLABLE
        case "retry":
            return Ability.RETRY in abilities and state in RETRIABLE
        case "delete":
            if Ability.DELETE_ON_NODE in abilities and model.placements:
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


def applicable(
    action: str, models: Iterable[Model], abilities: Collection[Ability] = LOCAL_ABILITIES
) -> tuple[Model, ...]:
    """Those of `models` that the model command `action` makes sense for."""
    return tuple(model for model in models if can(action, model, abilities))


def refusal(action: str, models: Iterable[Model], abilities: Collection[Ability], router: str) -> str:
    """Why a key does nothing although the state of a model calls for it; empty when the state is the reason.

    Args:
        router: What answers, such as `llmlb 5.7.1`.
    """
    models = tuple(models)
    who = router or "This router"
    if action == "register":
        return "" if Ability.REGISTER in abilities else f"{who} cannot register models."
    if action not in STATES_FOR or applicable(action, models, abilities):
        return ""
    if not any(model.state in STATES_FOR[action] for model in models):
        return ""
    match action:
        case "pull":
            return f"{who} cannot start downloads: its endpoints fetch their own models."
        case "cancel":
            return f"{who} cannot stop a download."
        case "retry":
            return f"{who} cannot be asked to try again: its nodes do so by themselves."
        case _:
            return f"{who} cannot delete what its endpoints hold."
