"""A hub that sends without end, in every way: the service stays small, answers in time, and says what is wrong."""

from __future__ import annotations

import gzip
import itertools
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from modelhub_tui import hub_http
from modelhub_tui.service.node import hub as node_hub
from modelhub_tui.service.node.faults import Fault
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.hub import Hub
from tests.faults.machine import Machine
from tests.faults.machine import Refused as Answered
from tests.hub.hostile import Asked, HostileHub, head

GB = 1 << 30
MB = 1 << 20
COMMIT = "a" * 40


def endless(unit: bytes) -> Iterator[bytes]:
    return itertools.repeat(unit * (MB // len(unit) + 1), GB // MB)


def bomb() -> Iterator[bytes]:
    """A gigabyte of spaces after a bit of JSON, packed into one."""
    packer = zlib.compressobj(9, wbits=31)
    yield packer.compress(b'{"id":"acme/x",')
    for _ in range(GB // MB):
        yield packer.compress(b" " * MB)
    yield packer.flush()


def announced(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([head(Content_Type="application/json", Content_Length=GB)], endless(b"["))


def unannounced(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([head(Content_Type="application/json")], endless(b'{"a":1},'))


def chunked(asked: Asked) -> Iterable[bytes]:
    part = b"100000\r\n" + b"x" * MB + b"\r\n"
    return itertools.chain([head(Transfer_Encoding="chunked")], itertools.repeat(part, 1024))


def tiny_chunks(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([head(Transfer_Encoding="chunked")], endless(b"1\r\n \r\n"))


def packed(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([head(Content_Encoding="gzip")], bomb())


def packed_otherwise(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([head(Content_Encoding="br")], endless(b"\xff"))


def many_lists(asked: Asked) -> Iterable[bytes]:
    """60 MB that would become 1.4 GB."""
    body = b'{"id":"acme/x","sha":"%s","siblings":[' % COMMIT.encode() + b"[]," * (20 * MB) + b"1]}"
    return [head(Content_Length=len(body)), body]


def long_head(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([b"HTTP/1.1 200 OK\r\n"], endless(b"X-Padding: " + b"x" * 1000 + b"\r\n"))


def interim_answers(asked: Asked) -> Iterable[bytes]:
    return endless(b"HTTP/1.1 100 Continue\r\n\r\n")


def error_body(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([head(404, Content_Length=GB)], endless(b"e"))


def redirect_body(asked: Asked) -> Iterable[bytes]:
    return itertools.chain([head(307, Location=f"{asked.path}x", Content_Length=GB)], endless(b"r"))


HOSTILE = (
    *(announced, unannounced, chunked, tiny_chunks, packed, packed_otherwise, many_lists, long_head),
    *(interim_answers, error_body, redirect_body),
)


class Watch:
    """The most memory that a process took while this ran, in bytes: asked of the kernel, which counts every page."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}")

    def __enter__(self) -> Watch:
        (self._path / "clear_refs").write_text("5")  # VmHWM begins anew
        return self

    def __exit__(self, *exc: object) -> None:
        line = next(each for each in (self._path / "status").read_text().splitlines() if each.startswith("VmHWM"))
        self.most_bytes = int(line.split()[1]) * 1024


def test_a_service_that_is_sent_gigabytes_stays_small_and_goes_on(tmp_path: Path) -> None:
    serving = [announced]
    with (
        HostileHub(lambda asked: serving[0](asked)) as hub,
        Machine(tmp_path, hub.url) as machine,
        Watch(machine.service_pid) as watch,
    ):
        for each in HOSTILE:
            serving[0] = each
            with pytest.raises(Answered) as refused:
                machine.ask("POST", "/v0/models/register", {"repo": "acme/x", "filename": "x.gguf"}, timeout_s=90)
            assert refused.value.code in ("hub_unreachable", "hub_failed", "no_such_repo"), (each, refused.value)
            assert refused.value.sentence.endswith((".", "?")), each
            assert psutil.Process(machine.service_pid).memory_info().rss < 300 * MB, each
            assert isinstance(machine.ask("GET", "/v0/models"), list)
    assert watch.most_bytes < 300 * MB
    assert hub.sent_bytes < 2 * GB, "most of what was offered was never read"


@pytest.mark.parametrize("send", HOSTILE)
def test_a_node_takes_no_more_of_a_files_description(send: object) -> None:
    with HostileHub(send) as hub:  # type: ignore[arg-type]
        began = hub.sent_bytes
        with pytest.raises(Fault):
            node_hub.Hub(hub.url, timeout_s=5).find("acme/x", COMMIT, "x.gguf")
        assert hub.sent_bytes - began < 80 * MB


@pytest.mark.parametrize("way", ["head", "body", "silence", "interim"])
def test_a_hub_that_drips_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    over = threading.Event()

    def drip(unit: bytes) -> Iterator[bytes]:
        while not over.wait(0.05):
            yield unit

    def send(asked: Asked) -> Iterable[bytes]:
        first = {"head": b"HTTP/1.1 200 OK\r\nX-A: ", "body": head(Content_Length=MB), "interim": b""}.get(way, b"")
        unit = {"interim": b"HTTP/1.1 103 Early Hints\r\n\r\n", "silence": b""}.get(way, b"x")
        return itertools.chain([first], drip(unit))

    monkeypatch.setattr(hub_http, "DEADLINE_S", 1.0)
    began = time.monotonic()
    with HostileHub(send) as hub:
        for ask in (
            lambda: Hub(hub.url, timeout_s=30, sleep=lambda _: None).facts("acme/x", None),
            lambda: Hub(hub.url, timeout_s=30, sleep=lambda _: None).sizes("acme/x", COMMIT, ["x.gguf"]),
        ):
            with pytest.raises(Refused, match="has not answered in full within 1 s"):
                ask()
        if way != "body":  # a HEAD has none
            with pytest.raises(Fault):
                node_hub.Hub(hub.url, timeout_s=0.5).find("acme/x", COMMIT, "x.gguf")
        over.set()
    assert time.monotonic() - began < 60


def test_an_answer_that_is_compressed_all_the_same_is_understood() -> None:
    body = b'{"id":"acme/x","sha":"%s","siblings":[]}' % COMMIT.encode()

    def send(asked: Asked) -> Iterable[bytes]:
        assert asked.headers["accept-encoding"] == "identity"
        data = gzip.compress(body)
        return [head(Content_Encoding="gzip", Content_Length=len(data)), data]

    with HostileHub(send) as hub:
        assert Hub(hub.url).facts("acme/x", None).commit == COMMIT


def test_the_listing_of_a_hundred_thousand_files_is_no_attack() -> None:
    sibling = (
        '{"rfilename":"%s/model-%06d-of-100000.safetensors","size":4999999999,"blobId":"%s",'
        '"lfs":{"sha256":"%s","size":4999999999,"pointerSize":136}}'
    )
    siblings = ",".join(sibling % ("checkpoint" * 8, each, "b" * 40, "c" * 64) for each in range(100_000))
    body = f'{{"id":"acme/x","sha":"{COMMIT}","siblings":[{siblings}]}}'.encode()
    assert len(body) > 30_000_000
    with HostileHub(lambda _: [head(Content_Length=len(body)), body]) as hub:
        assert len(Hub(hub.url).facts("acme/x", None).files) == 100_000
