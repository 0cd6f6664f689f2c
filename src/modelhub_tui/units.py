"""Numbers as people read them. Decimal units, as HuggingFace and disk makers use."""

from __future__ import annotations

import re
from math import inf, isfinite

from modelhub_tui.untrusted import clean

_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_DECIMAL, _BINARY = ("k", "M", "G", "T", "P"), ("Ki", "Mi", "Gi", "Ti", "Pi")
_SIZE_FACTORS = {
    "": 1,
    **{unit.lower(): 1000**power for power, unit in enumerate(_DECIMAL, 1)},
    **{unit.lower(): 1024**power for power, unit in enumerate(_BINARY, 1)},
}
_DURATION_FACTORS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)(?:/s)?", re.ASCII)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*) ?", re.ASCII)
_LONGEST = 40
"""Characters of a size or a duration that are looked at; nobody means what is longer."""
_MOST = 2**63 - 1
"""More bytes than any disk holds, and the largest integer that databases take."""


def human_size(count: float | None) -> str:
    """Bytes as `4.7 GB`; three significant digits at most, `?` for None and for what is no number."""
    if count is None or not isfinite(count):
        return "?"
    value = max(0.0, float(count))
    for unit in _SIZE_UNITS:
        if value < 999.5 or unit == _SIZE_UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit in ("B", "kB") or value >= 99.95 else f"{value:.1f} {unit}"


def human_rate(bytes_per_s: float | None) -> str:
    """Bytes per second as `112 MB/s`; empty for None."""
    return "" if bytes_per_s is None or not isfinite(bytes_per_s) else f"{human_size(bytes_per_s)}/s"


def human_count(count: int | None) -> str:
    """A number of downloads or likes as `345`, `1.2k`, `3.4M`; empty for None."""
    if count is None:
        return ""
    for limit, divisor, unit in ((999.5, 1, ""), (999_500, 1_000, "k"), (999_500_000, 1_000_000, "M")):
        if count < limit:
            value = count / divisor
            return f"{value:.1f}{unit}" if divisor > 1 and value < 9.95 else f"{value:.0f}{unit}"
    return f"{count / 1_000_000_000:.1f}G"


def human_duration(seconds: float | None) -> str:
    """Seconds as `0:32`, `12:05`, `3:04:59`, `2d 4h`; empty for None."""
    if seconds is None or not isfinite(seconds):
        return ""
    whole = round(max(seconds, 0))
    if whole >= 86_400:
        return f"{whole // 86_400}d {whole % 86_400 // 3600}h"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def human_context(tokens: int | None) -> str:
    """A context length in tokens as `32K` or `1M`; empty for None.

    Publishers count in 1024s (131072 is 128K) or in 1000s (128000 is 128K); round thousands are taken as the latter.
    """
    if not tokens:
        return ""
    kilo = 1000 if tokens % 1000 == 0 else 1024
    if tokens < kilo:
        return str(tokens)
    return f"{tokens / kilo**2:.0f}M" if tokens >= kilo**2 else f"{tokens / kilo:.0f}K"


def parse_size(text: str) -> int:
    """Read a size, or bytes per second, as people write it: `50M`, `1.5 GB`, `64GiB`, `20MB/s`, `1048576`.

    `k M G T P` are 1000s and `Ki Mi Gi Ti Pi` 1024s, in upper or lower case, with or without a `B`.

    Returns:
        Whole bytes.

    Raises:
        ValueError: With a sentence that says what to write instead.
    """
    match = _SIZE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    factor = _SIZE_FACTORS.get(match[2].lower().removesuffix("b")) if match else None
    if match is not None and factor is not None:
        # Whole numbers stay whole: beyond 2**53 a float would lose the last bytes.
        count = round(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor
        if count <= _MOST:
            return count
    said = clean(text, _LONGEST)
    raise ValueError(f"{said!r} is no size; write it as 500M, 20G or 64GiB, or as a number of bytes.")


def parse_duration(text: str) -> int:
    """Read a duration as people write it: `90`, `30m`, `1h`, `1h 30m`, `2d`; a bare number is seconds.

    Returns:
        Whole seconds.

    Raises:
        ValueError: With a sentence that says what to write instead.
    """
    said = text.strip().lower()
    words = _DURATION.findall(said) if len(text) <= _LONGEST and _DURATION.sub("", said) == "" else []
    # "1 30" could mean anything: only a number that stands alone may go without a unit.
    if words and (len(words) == 1 or all(unit for _, unit in words)):
        seconds = sum(float(number) * _DURATION_FACTORS.get(unit, inf) for number, unit in words)
        if seconds <= _MOST:
            return round(seconds)
    shown = clean(text, _LONGEST)
    raise ValueError(f"{shown!r} is no duration; write it as 90s, 30m, 1h or 2d, or as a number of seconds.")


def exact_size(count: int) -> str:
    """Bytes in the fewest characters that `parse_size()` reads back as the same number: `50M`, `64Gi`, `1234567`."""
    for power in range(len(_DECIMAL), 0, -1):
        for base, units in ((1000, _DECIMAL), (1024, _BINARY)):
            if count and count % base**power == 0:
                return f"{count // base**power}{units[power - 1]}"
    return str(count)


def exact_duration(seconds: int) -> str:
    """Seconds as `parse_duration()` reads them back: `1h`, `90s`, `2d`."""
    unit = next((unit for unit in ("d", "h", "m") if seconds and seconds % _DURATION_FACTORS[unit] == 0), "s")
    return f"{seconds // _DURATION_FACTORS[unit]}{unit}"
