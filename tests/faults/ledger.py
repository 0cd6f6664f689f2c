"""Which bytes the hub served more than once, and because of what. Counted from its log of ranged answers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.hub import Record

_FROM = re.compile(r"bytes=(\d+)-")


@dataclass
class Ledger:
    """Bytes by cause."""

    served: int = 0
    by_kill: dict[float, int] = field(default_factory=lambda: defaultdict(int))
    """Served again because of each kill, by the kill's time."""
    otherwise: int = 0
    """Served again for another cause: a fault of the hub, a cancellation, a file that was removed."""


def count(log: Iterable[Record], kills: Iterable[float], excuses: Iterable[tuple[str, float]] = ()) -> Ledger:
    """Add up what was served, and what of it twice.

    Args:
        log: The hub's, in order of arrival.
        kills: When something was killed (monotonic seconds).
        excuses: Files (`owner/name/path`) whose bytes were thrown away on purpose, and when.
    """
    ledger = Ledger()
    seen: dict[str, list[tuple[int, int, Record]]] = defaultdict(list)
    ruined: set[str] = set()
    """Files with a wrong byte in them: they fail their hash and are fetched once more, whole, whatever is killed."""
    at_kills, forgiven = sorted(kills), [*excuses]
    ledger.by_kill.update(dict.fromkeys(at_kills, 0))
    for record in log:
        if not record.file_bytes or record.method != "GET":
            continue
        ledger.served += record.file_bytes
        found = _FROM.match(record.range or "") if record.status == 206 else None
        start = int(found[1]) if found else 0
        stop = start + record.file_bytes
        for before_start, before_stop, before in seen[record.label]:
            again = min(stop, before_stop) - max(start, before_start)
            if again <= 0:
                continue
            cause = max((at for at in at_kills if before.at < at <= record.at), default=None)
            excused = any(label == record.label and before.at < at <= record.at for label, at in forgiven)
            excused = excused or record.label in ruined
            if cause is None or excused or before.fault is not None or record.fault is not None:
                ledger.otherwise += again
            else:
                ledger.by_kill[cause] += again
        seen[record.label].append((start, stop, record))
        if record.fault is not None and record.fault.flip_at is not None:
            ruined.add(record.label)
    return ledger
