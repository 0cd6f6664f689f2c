"""Every fault does what its rule says, seen from the other end of the socket."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

from tests.hub import DROP, MIB, RATE_LIMITED, Fault, Generated, HubRepo, LoopbackHub

SIZE = 3 * MIB + 17
FILE = "acme/big/big.bin"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A hub with one file, large enough to break in the middle."""
    with LoopbackHub([HubRepo("acme/big", {"big.bin": Generated(SIZE, seed=7), "small.txt": "small"})]) as running:
        yield running


@pytest.fixture
def location(hub: LoopbackHub) -> str:
    """The signed URL of that file."""
    return httpx.head(hub.resolve_url("acme/big", "big.bin")).headers["location"]


def content(hub: LoopbackHub) -> bytes:
    return hub.repo("acme/big")["big.bin"].read()


def pull(
    url: str, headers: dict[str, str] | None = None, timeout_s: float = 20.0
) -> tuple[httpx.Response, bytes, Exception | None]:
    """GET with httpx: the response, the bytes that arrived, and the error that ended it."""
    got = bytearray()
    with httpx.stream("GET", url, headers=headers, timeout=timeout_s) as response:
        try:
            for block in response.iter_raw():
                got += block
        except httpx.TransportError as error:
            return response, bytes(got), error
    return response, bytes(got), None


def raw(url: str) -> tuple[bytes, OSError | None]:
    """GET on a bare socket: all bytes until the end, and the error that ended it if it was not a clean FIN."""
    parts = httpx.URL(url)
    got = b""
    with socket.create_connection((parts.host, parts.port), timeout=20) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % parts.raw_path)
        try:
            while block := connection.recv(1 << 16):
                got += block
        except OSError as error:
            return got, error
    return got, None


@pytest.mark.parametrize("after", [0, 1, MIB, 2 * MIB + 5])
def test_reset_after_exactly_so_many_bytes(hub, location, after):
    hub.fault(server="cdn", reset_after=after)
    got, error = raw(location)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert f"Content-Length: {SIZE}".encode() in head
    assert body == content(hub)[:after]
    assert isinstance(error, ConnectionResetError)
    assert hub.served_bytes(FILE) == after
    assert not hub.requests(FILE, server="cdn")[0].complete


def test_reset_before_any_answer(hub, location):
    hub.fault(server="cdn", reset_at_once=True)
    got, error = raw(location)
    assert got == b""
    assert isinstance(error, ConnectionResetError)


@pytest.mark.parametrize("after", [0, MIB, SIZE - 1])
def test_clean_close_after_exactly_so_many_bytes(hub, location, after):
    hub.fault(server="cdn", close_after=after)
    got, error = raw(location)
    assert error is None
    assert got.partition(b"\r\n\r\n")[2] == content(hub)[:after]
    assert isinstance(pull(location)[2], type(None)), "the rule was for one request"
    hub.fault(server="cdn", close_after=after)
    assert isinstance(pull(location)[2], httpx.RemoteProtocolError)


def test_a_rule_is_for_as_many_requests_as_it_says(hub, location):
    rule = hub.fault(server="cdn", skip=1, times=2, status=503)
    assert [httpx.get(location).status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    assert (rule.hits, rule.seen) == (2, 5)
    always = hub.fault(server="cdn", times=None, status=500)
    assert [httpx.get(location).status_code for _ in range(3)] == [500] * 3
    always.remove()
    assert httpx.get(location).status_code == 200
    assert hub.log[-2].fault is always


def test_a_rule_matches_server_method_and_path(hub, location):
    hub.fault(server="hub", method="GET", path="acme/big/*.txt", times=None, status=502)
    assert httpx.get(hub.resolve_url("acme/big", "small.txt")).status_code == 502
    assert httpx.head(hub.resolve_url("acme/big", "small.txt")).status_code == 307
    assert httpx.get(hub.resolve_url("acme/big", "big.bin")).status_code == 302
    assert httpx.get(location).status_code == 200
    hub.fault(path="/api/models/acme/*", status=504)
    assert [httpx.get(f"{hub.url}/api/models/acme/big").status_code for _ in range(2)] == [504, 200]


def test_rules_for_every_piece_of_a_flaky_link(hub, location):
    hub.fault(server="cdn", close_after=MIB, times=None)
    got = b""
    while len(got) < SIZE:
        got += pull(location, {"range": f"bytes={len(got)}-"})[1]
    assert got == content(hub)
    assert len(hub.requests(FILE, server="cdn")) == 4
    assert hub.served_bytes(FILE) == SIZE


def test_stall_until_released(hub, location):
    rule = hub.fault(server="cdn", stall_after=MIB)
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull, location)
        assert rule.stalled.wait(20)
        assert hub.served_bytes(FILE) == MIB
        assert not pulling.done()
        rule.release()
        assert pulling.result(20)[1] == content(hub)


def test_stall_for_a_time_and_for_longer_than_the_reader_waits(hub, location):
    hub.fault(server="cdn", stall_after=MIB, stall_s=0.2)
    began = time.monotonic()
    assert pull(location)[1] == content(hub)
    assert time.monotonic() - began >= 0.2
    hub.fault(server="cdn", stall_after=MIB)
    _, got, error = pull(location, timeout_s=0.5)
    assert isinstance(error, httpx.ReadTimeout)
    assert got == content(hub)[: len(got)]
    assert len(got) <= MIB


def test_no_answer_until_released(hub):
    rule = hub.fault(server="hub", delay_s=60)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx.get, f"{hub.url}/api/models/acme/big", timeout=20)
        assert rule.stalled.wait(20)
        assert not asking.done()
        rule.release()
        assert asking.result(20).status_code == 200


def test_slow_loris(hub, location):
    hub.fault(server="cdn", drip_bytes=100, drip_s=0.05)
    began = time.monotonic()
    assert pull(location, {"range": "bytes=0-499"})[1] == content(hub)[:500]
    assert time.monotonic() - began >= 4 * 0.05


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_error_status_with_headers(hub, location, status):
    hub.fault(server="cdn", status=status, headers={**RATE_LIMITED, "Retry-After": "7"})
    answer = httpx.get(location)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert answer.headers["ratelimit"] == '"api";r=0;t=1'
    assert hub.served_bytes() == 0


def test_expired_signature(hub, location):
    hub.fault(server="cdn", skip=1, expired=True)
    assert [httpx.get(location).status_code for _ in range(3)] == [200, 403, 200]


def test_range_ignored(hub, location):
    hub.fault(server="cdn", ignore_range=True)
    answer, got, _ = pull(location, {"range": f"bytes={MIB}-"})
    assert (answer.status_code, "content-range" in answer.headers) == (200, False)
    assert got == content(hub)
    assert pull(location, {"range": f"bytes={MIB}-"})[0].status_code == 206


@pytest.mark.parametrize("off_by", [-1000, 1000])
def test_wrong_content_length(hub, location, off_by):
    hub.fault(server="cdn", headers={"content-length": str(SIZE + off_by)})
    got, error = raw(location)
    head, _, body = got.partition(b"\r\n\r\n")
    assert f"content-length: {SIZE + off_by}".encode() in head
    assert head.lower().count(b"content-length") == 1
    assert (body, error) == (content(hub), None)
    hub.fault(server="cdn", headers={"content-length": str(SIZE + off_by)})
    assert (pull(location)[2] is None) == (off_by < 0)


def test_wrong_content_range(hub, location):
    hub.fault(server="cdn", headers={"Content-Range": f"bytes 0-9/{SIZE}"})
    answer, got, _ = pull(location, {"range": "bytes=10-19"})
    assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes 0-9/{SIZE}")
    assert got == content(hub)[10:20]


def test_a_flipped_byte_at_its_place_in_the_file_whatever_range_is_asked(hub, location):
    hub.fault(server="cdn", flip_at=MIB + 3, times=None)
    whole = content(hub)
    spoiled = pull(location)[1]
    assert [at for at in range(MIB, MIB + 9) if spoiled[at] != whole[at]] == [MIB + 3]
    assert spoiled[: MIB + 3] + whole[MIB + 3 : MIB + 4] + spoiled[MIB + 4 :] == whole
    part = pull(location, {"range": f"bytes={MIB}-{MIB + 9}"})[1]
    assert part == spoiled[MIB : MIB + 10]
    assert pull(location, {"range": "bytes=0-99"})[1] == whole[:100]


def test_metadata_headers_changed_or_dropped(hub):
    url = hf_hub_url("acme/big", "big.bin", endpoint=hub.url)
    hub.fault(method="HEAD", headers={"X-Linked-Etag": f'"{"a" * 64}"', "X-Linked-Size": "5"})
    found = get_hf_file_metadata(url, token=False)
    assert (found.etag, found.size) == ("a" * 64, 5)
    hub.fault(method="HEAD", headers={"X-Repo-Commit": None})
    assert get_hf_file_metadata(url, token=False).commit_hash is None


def test_no_commit_in_the_answer_is_what_the_library_calls_no_connection(hub, tmp_path):
    hub.fault(method="HEAD", headers={"X-Repo-Commit": None}, times=None)
    with pytest.raises(errors.LocalEntryNotFoundError) as caught:
        hf_hub_download("acme/big", "big.bin", endpoint=hub.url, token=False, cache_dir=tmp_path)
    assert isinstance(caught.value.__cause__, errors.FileMetadataError)


def test_the_library_does_not_notice_a_flipped_byte(hub, tmp_path):
    """Why the node checks hashes itself."""
    hub.fault(server="cdn", flip_at=100)
    path = hf_hub_download("acme/big", "big.bin", endpoint=hub.url, token=False, cache_dir=tmp_path)
    assert Path(path).stat().st_size == SIZE
    assert Path(path).read_bytes() != content(hub)


def test_hostile_body(hub):
    hub.fault(path="/api/*", status=200, body=b"[" * 1_000_000, headers={"Content-Type": "application/json"})
    assert httpx.get(f"{hub.url}/api/models/acme/big").content == b"[" * 1_000_000


def test_redirect_on_purpose(hub, location):
    hub.fault(server="hub", method="HEAD", status=302, headers={"Location": "http://127.0.0.1:9/gone"})
    assert httpx.head(hub.resolve_url("acme/big", "big.bin")).headers["location"] == "http://127.0.0.1:9/gone"


def test_down_resets_what_is_open_and_up_comes_back_on_the_same_port(hub, location):
    rule = hub.fault(server="cdn", stall_after=MIB)
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull, location)
        assert rule.stalled.wait(20)
        url, cdn_url = hub.url, hub.cdn_url
        hub.down()
        _, got, error = pulling.result(20)
    assert error is not None
    assert len(got) <= MIB
    for each in (url, cdn_url):
        with pytest.raises(httpx.ConnectError):
            httpx.get(each)
    hub.up()
    assert (hub.url, hub.cdn_url) == (url, cdn_url)
    assert pull(location)[1] == content(hub)


def test_one_server_can_go_down_alone(hub, location):
    hub.down("hub")
    with pytest.raises(httpx.ConnectError):
        httpx.get(hub.url)
    assert pull(location)[1] == content(hub)
    hub.up("hub")
    assert httpx.get(f"{hub.url}/api/models/acme/big").status_code == 200


def test_dropped_connections_and_a_hub_that_goes_on(hub, location):
    rule = hub.fault(server="cdn", stall_after=MIB)
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull, location)
        assert rule.stalled.wait(20)
        hub.drop_connections("cdn")
        assert pulling.result(20)[2] is not None
    assert pull(location)[1] == content(hub)


def test_closing_leaves_no_thread_behind(hub, location):
    hub.fault(server="cdn", stall_after=MIB)
    hub.fault(server="cdn", drip_bytes=1, drip_s=30)
    before = threading.active_count()
    with ThreadPoolExecutor(2) as pool:
        pulling = [pool.submit(pull, location) for _ in range(2)]
        assert hub.faults[0].stalled.wait(20)
        while len(hub.requests(FILE, server="cdn")) < 2:
            threading.Event().wait(0.01)
        hub.close()
        assert all(each.result(20)[2] is not None for each in pulling)
    assert threading.active_count() < before


def test_speed_of_all_and_of_each_connection_can_be_changed_while_they_run(hub, location):
    hub.throttle_bps = 2 * MIB
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(pull, location, {"range": f"bytes={at}-{at + MIB - 1}"}) for at in (0, MIB)]
        assert b"".join(each.result(60)[1] for each in halves) == content(hub)[: 2 * MIB]
    assert time.monotonic() - began > 0.8

    hub.throttle_bps = 20_000  # would take minutes
    earlier = hub.served_bytes()
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull, location, timeout_s=60)
        while hub.served_bytes() == earlier:
            threading.Event().wait(0.01)
        hub.throttle_bps = None
        assert pulling.result(60)[1] == content(hub)

    seen: list[str] = []
    hub.connection_bps = lambda label: seen.append(label) or 10 * MIB
    began = time.monotonic()
    pull(location)
    assert time.monotonic() - began > 0.2
    assert seen == [FILE]


def test_latency(hub):
    hub.latency_s = 0.1
    began = time.monotonic()
    httpx.get(f"{hub.url}/api/models/acme/big")
    assert time.monotonic() - began >= 0.1


def test_connections_are_kept(hub, location):
    with httpx.Client() as client:
        ports = set()
        for _ in range(3):
            with client.stream("GET", location, headers={"range": "bytes=0-99"}) as response:
                response.read()
                ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(ports) == 1


def test_rules_are_thread_safe():
    rule = Fault(times=500)
    with ThreadPoolExecutor(8) as pool:
        used = pool.map(lambda _: rule.take("cdn", "GET", "/x", ""), itertools.repeat(None, 1000))
    assert sum(used) == rule.hits == 500


def test_a_hub_that_lies_says_any_word_in_any_member(hub: LoopbackHub) -> None:
    words = {"sha": "main", "siblings.*.rfilename": "../x", "likes": DROP, "new": [1]}
    hub.fault(path="/api/models/acme/big", json=words, times=None)
    told = httpx.get(f"{hub.url}/api/models/acme/big").json()
    assert (told["sha"], told["new"], "likes" in told) == ("main", [1], False)
    assert [each["rfilename"] for each in told["siblings"]] == ["../x", "../x"] and told["id"] == "acme/big"
    hub.fault(path="*/tree/*", json={"*.lfs.oid": "deadbeef", "*.path": "/etc/passwd"}, times=None)
    tree = httpx.get(f"{hub.url}/api/models/acme/big/tree/main").json()
    assert {each["path"] for each in tree} == {"/etc/passwd"}
    assert [each["lfs"]["oid"] for each in tree if "lfs" in each] == ["deadbeef"]
    hub.fault(method="HEAD", headers={"X-Repo-Commit": "../../x"}, times=None)
    assert httpx.head(hub.resolve_url("acme/big", "big.bin")).headers["x-repo-commit"] == "../../x"
