"""A list read again and again gives what reading it anew gives, and the same objects for what did not change."""

from __future__ import annotations

import json
import random

from modelhub_tui.client.lines import Lines
from modelhub_tui.client.wire import models_reader


def body_of(records: list[dict[str, object]]) -> bytes:
    return ("[" + ",\n".join(json.dumps(each) for each in records) + "]").encode()


def test_reading_again_is_reading_anew() -> None:
    choose = random.Random(3)
    records: list[dict[str, object]] = [
        {"name": f"a/m-{at}", "repo": f"A/M-{at}", "size_bytes": at} for at in range(300)
    ]
    reader = models_reader()
    for step in range(120):
        for at in choose.sample(range(len(records)), min(choose.randrange(6), len(records))):
            records[at] = {**records[at], "size_bytes": choose.choice((1, 22, 333_333, 10**12 + step))}
        match choose.randrange(8):
            case 0:
                records.pop(choose.randrange(len(records)))
            case 1:
                records.insert(choose.randrange(len(records)), {"name": f"b/n-{step}", "repo": f"B/N-{step}"})
            case 2:
                records[-1] = {**records[-1], "size_bytes": step}
            case 3 if step % 3 == 0:
                records[0] = {"name": "\u202e", "size_bytes": 1}  # unusable
        now = reader.read(body_of(records) if step % 11 else json.dumps(records).encode())
        assert now == models_reader().read(body_of(records))


def test_what_did_not_change_stays_the_same_object() -> None:
    records: list[dict[str, object]] = [{"name": f"a/m-{at}", "repo": f"A/M-{at}"} for at in range(200)]
    reader = models_reader()
    before = reader.read(body_of(records))
    records[70] = {**records[70], "size_bytes": 5}
    now = reader.read(body_of(records))
    assert [at for at in range(200) if now[at] is not before[at]] == [70]
    del records[10]
    later = reader.read(body_of(records))
    assert all(each is now[at] for at, each in enumerate(later[:10]))
    assert all(each is now[at + 11] for at, each in enumerate(later[10:]))


def test_lines_that_are_longer_or_shorter_are_told() -> None:
    lines = Lines()
    lines.keep([b'{"a":%d}' % at for at in range(130)])
    same = b"[" + b",\n".join(lines.all()) + b"]"
    assert lines.news(same) == ([], lines._blocks)
    changed, _ = lines.news(same.replace(b'{"a":129}', b'{"a":1299}')) or ([], [])
    assert changed == [(129, b'{"a":1299}')]
    changed, _ = lines.news(same.replace(b'{"a":63}', b'{"a":6}')) or ([], [])
    assert changed == [(63, b'{"a":6}')]
    for other in (same[:-1] + b',\n{"a":130}]', same.replace(b',\n{"a":129}', b""), same + b" ", b"[]", b"", same[1:]):
        assert lines.news(other) is None, other[-30:]
