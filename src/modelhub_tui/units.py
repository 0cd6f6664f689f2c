"""Numbers as people read them. Decimal units, as HuggingFace and disk makers use."""

from __future__ import annotations

from math import isfinite

_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


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
