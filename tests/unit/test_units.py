"""Numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui.units import (
    exact_duration,
    exact_size,
    human_context,
    human_count,
    human_duration,
    human_rate,
    human_size,
    parse_duration,
    parse_size,
)

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


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("0", 0),
            ("1048576", 1_048_576),
            ("50M", 50_000_000),
            ("50m", 50_000_000),
            ("50 MB", 50_000_000),
            ("20MB/s", 20_000_000),
            ("1.5G", 1_500_000_000),
            ("64Gi", 64 * 1024**3),
            (" 64 GiB ", 64 * 1024**3),
            ("512kib", 512 * 1024),
            ("12B", 12),
            ("9007199254740993", 9007199254740993),
        ],
    )
    def test_sizes(self, text: str, count: int) -> None:
        assert parse_size(text) == count

    @pytest.mark.parametrize(
        "text", ["", "G", "-5", "5 X", "1,5G", "5G5", "5GG", "1e9", "nan", "٥M", "9" * 30, "5P" * 99]
    )
    def test_no_sizes(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"is no size; write it as 500M, 20G or 64GiB, or as a number of bytes\.$"):
            parse_size(text)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            ("30m", 1800),
            ("1h", 3600),
            ("1.5h", 5400),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            ("2d", 172_800),
            ("1W", 604_800),
            (" 5 min ", 300),
        ],
    )
    def test_durations(self, text: str, seconds: int) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize(
        "text", ["", "h", "-1", "1 30", "1h 30", "1y", "1:30", "inf", "1h,2m", "9" * 39, "1h" * 99]
    )
    def test_no_durations(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"is no duration; write it as 90s, 30m, 1h or 2d, or as a number of sec"):
            parse_duration(text)

    def test_what_is_no_size_is_repeated_without_its_control_characters(self) -> None:
        with pytest.raises(ValueError, match=r"^'5\[31m' is no size"):
            parse_size("5\x1b[31m")

    @given(st.integers(0, 2**63 - 1))
    def test_what_is_written_exactly_is_read_back(self, count: int) -> None:
        assert parse_size(exact_size(count)) == count
        assert parse_duration(exact_duration(count % 10**9)) == count % 10**9

    def test_exact_texts_are_short(self) -> None:
        sizes = (0, 999, 50_000_000, 64 * 1024**3, 1_234_567)
        assert [exact_size(count) for count in sizes] == ["0", "999", "50M", "64Gi", "1234567"]
        assert [exact_duration(each) for each in (0, 90, 1800, 3600, 172_800)] == ["0s", "90s", "30m", "1h", "2d"]
