"""What servers say of time and size is read with care."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from modelhub_tui import net
from modelhub_tui.net import retry_after_s


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "86400"}, 3600),
        ({"retry-after": "-3"}, None),
        ({"retry-after": formatdate(1000, usegmt=True)}, 0),
        ({"retry-after": formatdate(1_000_055, usegmt=True)}, 55),
        ({"retry-after": "soon"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": "t=x"}, None),
        ({"retry-after": "soon", "ratelimit": "t=5"}, 5),
        ({}, None),
        *[
            ({header: f"{before}{number}"}, None)
            for number in ("²", "9" * 400, "9" * 5000, "nan", "inf", "1e999", "1_0", "١", "Mon, 99 Zzz 9999999999")
            for header, before in (("retry-after", ""), ("ratelimit", "t="))
        ],
    ],
    ids=ascii,
)
def test_pauses_are_read_in_every_form(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, 1_000_000) == expected


def test_a_pause_until_a_date_is_counted_by_the_clock() -> None:
    assert retry_after_s({"retry-after": formatdate(0, usegmt=True)}) == 0


@pytest.mark.parametrize("unit", [b'{"":0},', b"[[]],", b"{},"])
def test_what_would_take_much_room_when_parsed_is_not_parsed(unit: bytes) -> None:
    """Short values take forty times their length: 16 MiB of them, planted as an index, took a node to half a GiB."""
    body = b"[" + unit * ((16 << 20) // len(unit) - 1) + b"0]"
    with pytest.raises(ValueError, match="too long"):
        net.loads(body, 16 << 20)
