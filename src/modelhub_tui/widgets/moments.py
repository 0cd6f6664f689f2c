"""Moments and spans of time in a few words. Never an age, which would be wrong while nothing changes."""

from __future__ import annotations

import time


def moment(at: float, now: float) -> str:
    """A time of day, `21:04`; with its date, `11-21 21:04`, if that is not today's."""
    then, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%m-%d %H:%M", then)


def exact(at: float, now: float) -> str:
    """The same with seconds, and with the year when it is another day."""
    then, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `11th`."""
    tens, ones = divmod(number, 10)
    suffix = "th" if tens % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(ones, "th")
    return f"{number}{suffix}"


def in_words(seconds: float) -> str:
    """A length of time as `1 hour`, `90 minutes`, `2 days`: the largest unit that divides it, or nearly does."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length and (seconds % length == 0 or seconds >= 10 * length):
            count = round(seconds / length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    count = round(seconds)
    return f"{count} second{'' if count == 1 else 's'}"
