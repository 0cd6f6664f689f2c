"""The order in which nodes take up the models."""

from __future__ import annotations

from dataclasses import replace

from modelhub_tui.domain import Place
from modelhub_tui.service.router.records import Registration


def moved(record: Registration, to: Place, among: list[Registration]) -> list[Registration]:
    """The records that change when a model gets another place.

    Args:
        among: The models that count, in queue order, `record` with them.
    """
    at = next(index for index, each in enumerate(among) if each.name == record.name)
    others = among[:at] + among[at + 1 :]
    wanted = {Place.FIRST: 0, Place.EARLIER: max(at - 1, 0), Place.LATER: at + 1, Place.LAST: len(others)}[to]
    before, after = others[:wanted], others[wanted:]
    low = before[-1].queue if before else None
    high = after[0].queue if after else None
    if low is not None and high is not None:
        place = (low + high) / 2
        if not low < place < high:
            # No number is left between the two: number all of them anew.
            return [replace(each, queue=float(at)) for at, each in enumerate([*before, record, *after], start=1)]
    elif low is not None:
        place = low + 1
    else:
        place = 0.0 if high is None else high - 1
    return [replace(record, queue=place)]
