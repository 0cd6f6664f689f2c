"""Limits as people write them: in the environment, in config.toml and on the command line.

What they may be is as docs/wire.md says; a running service checks them once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from modelhub_tui.domain import Limits
from modelhub_tui.errors import BadSettings
from modelhub_tui.identifiers import whole_number
from modelhub_tui.units import exact_duration, exact_size, parse_duration, parse_size
from modelhub_tui.values import dataclass

LEAST_BANDWIDTH_BPS = 1024
"""Less would end in time-outs rather than in downloads."""
MOST_TRASH_S = 10 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class LimitText:
    """One limit: where it is named, and how it is read and written."""

    setting: str
    """Key in config.toml; the environment variable is `MODELHUB_` and this, in capitals."""
    member: str
    """Field of `Limits`."""
    read: Callable[[str], int]
    """Raises ValueError with a sentence."""
    write: Callable[[int], str]
    least: int = 0
    most: int = 2**63 - 1
    zero: bool = False
    """Whether 0 is fine although it is less than the least."""

    @property
    def env(self) -> str:
        """The environment variable."""
        return f"MODELHUB_{self.setting.upper()}"

    def value(self, text: str) -> int:
        """Read it.

        Raises:
            ValueError: With a sentence that says what to write instead.
        """
        count = self.read(text)
        if self.least <= count <= self.most or (self.zero and count == 0):
            return count
        bounds = f"at least {self.write(self.least)}" if count < self.least else f"at most {self.write(self.most)}"
        raise ValueError(f"{text.strip()!r} is out of range; it must be {bounds}{', or 0' if self.zero else ''}.")


def _count(text: str) -> int:
    count = whole_number(text.strip(), 10**9)
    if count is None:
        raise ValueError(f"{text.strip()[:40]!a} is no whole number.")
    return count


LIMIT_TEXTS = (
    LimitText("parallel_transfers", "parallel_transfers", _count, str, least=1, most=16),
    LimitText("bandwidth", "bandwidth_bps", parse_size, exact_size, least=LEAST_BANDWIDTH_BPS, zero=True),
    LimitText("disk_floor", "disk_floor_bytes", parse_size, exact_size),
    LimitText("trash_seconds", "trash_seconds", parse_duration, exact_duration, most=MOST_TRASH_S),
    LimitText("trash_size", "trash_bytes", parse_size, exact_size),
)


def read_limits(texts: Mapping[str, str | None], names: Mapping[str, str] | None = None) -> Limits:
    """Read limits from texts by setting; what is absent or empty is as by default.

    Args:
        names: What to call a setting in a complaint; its own name if absent.

    Raises:
        BadSettings: With a sentence that names the setting and says what to write instead.
    """
    said: dict[str, int] = {}
    for each in LIMIT_TEXTS:
        text = texts.get(each.setting)
        if not text:
            continue
        try:
            said[each.member] = each.value(text)
        except ValueError as error:
            raise BadSettings(f"{(names or {}).get(each.setting, each.setting)}: {error}") from error
    return replace(Limits(), **said)


def limits_env(limits: Limits) -> dict[str, str]:
    """The environment that makes a process of ours start with these limits."""
    told = ((each, getattr(limits, each.member)) for each in LIMIT_TEXTS)
    return {each.env: "" if count is None else each.write(count) for each, count in told}
