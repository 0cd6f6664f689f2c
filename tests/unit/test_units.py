"""Numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui.units import human_context, human_count, human_duration, human_rate, human_size

NUMBERS = st.one_of(st.none(), st.integers(-(10**30), 10**30), st.floats())


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"),
        (float("nan"), "?"),
        (float("inf"), "?"),
        (-5, "0 B"),
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (1_000, "1 kB"),
        (484_220, "484 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (4_683_074_240, "4.7 GB"),
        (99_940_000_000, "99.9 GB"),
        (99_960_000_000, "100 GB"),
        (999_600_000_000, "1.0 TB"),
        (5 * 10**15, "5.0 PB"),
        (5 * 10**19, "50000 PB"),
    ],
)
def test_size(count: float | None, text: str) -> None:
    assert human_size(count) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(None, ""), (float("nan"), ""), (float("inf"), ""), (0, "0 B/s"), (112_000_000.0, "112 MB/s")],
)
def test_rate(rate: float | None, text: str) -> None:
    assert human_rate(rate) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0"),
        (345, "345"),
        (999, "999"),
        (1_000, "1.0k"),
        (1_234, "1.2k"),
        (9_949, "9.9k"),
        (9_950, "10k"),
        (890_000, "890k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (3_400_000, "3.4M"),
        (12_000_000, "12M"),
        (2_000_000_000, "2.0G"),
    ],
)
def test_count(count: int | None, text: str) -> None:
    assert human_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (float("inf"), ""),
        (-3, "0:00"),
        (0, "0:00"),
        (32.4, "0:32"),
        (59.6, "1:00"),
        (725, "12:05"),
        (3_599.7, "1:00:00"),
        (11_099, "3:04:59"),
        (86_399, "23:59:59"),
        (86_400, "1d 0h"),
        (187_200, "2d 4h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (None, ""),
        (0, ""),
        (512, "512"),
        (999, "999"),
        (1_000, "1K"),
        (2_048, "2K"),
        (32_768, "32K"),
        (40_960, "40K"),
        (128_000, "128K"),
        (131_072, "128K"),
        (202_752, "198K"),
        (262_144, "256K"),
        (1_000_000, "1M"),
        (1_048_576, "1M"),
        (10_000_000, "10M"),
    ],
)
def test_context(tokens: int | None, text: str) -> None:
    assert human_context(tokens) == text


@pytest.mark.parametrize("write", [human_size, human_rate, human_duration])
@given(value=NUMBERS)
def test_no_number_breaks_them(write: Callable[[float | None], str], value: float | None) -> None:
    assert re.fullmatch(r"[?\d:. a-zA-Z/]*", write(value))


@given(st.floats(0, 9e17), st.floats(0, 9e17))
def test_a_larger_size_never_reads_smaller(one: float, other: float) -> None:
    units = ["B", "kB", "MB", "GB", "TB", "PB"]

    def back(text: str) -> float:
        number, unit = text.split()
        return float(number) * 1000.0 ** units.index(unit)

    small, large = sorted((one, other))
    assert back(human_size(small)) <= back(human_size(large))
