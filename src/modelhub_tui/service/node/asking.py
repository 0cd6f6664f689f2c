"""One ranged request for bytes: redirects followed, the head of the answer checked."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from modelhub_tui import tls
from modelhub_tui.errors import NoWay
from modelhub_tui.identifiers import whole_number
from modelhub_tui.net import retry_after_s
from modelhub_tui.service.node import contents, faults
from modelhub_tui.service.node.hub import Hub, next_hop
from modelhub_tui.service.node.transport import BadHTTP, Body, Transport

_MAX_REDIRECTS = 5
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20}|\*)\Z")


class Expired(Exception):
    """The address of the bytes is good no longer; the hub has to be asked again."""


class WriteFailed(Exception):
    """Keeps a disk's OSError apart from a socket's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def open_range(transport: Transport, hub: Hub, url: str, start: int, end: int) -> Body:
    """Ask for bytes `start` to `end` (exclusive), following redirects; each hop gets only what its host may see.

    Raises:
        Fault: A redirect that leads nowhere or where it must not, or to where nobody answers.
        OSError, BadHTTP: No answer.
    """
    for hop in range(_MAX_REDIRECTS):
        try:
            body = transport.open(url, {**hub.headers_for(url), "Range": f"bytes={start}-{end - 1}"})
        except (OSError, BadHTTP) as error:
            if not hop or isinstance(error, TimeoutError | ConnectionAbortedError):
                raise
            raise lost(urlsplit(url).netloc, error) from error  # the caller knows only the first address
        if body.status not in (301, 302, 303, 307, 308):
            return body
        target = next_hop(url, body.headers.get("location", ""))
        body.close()
        if target is None:
            raise faults.bad_answer(urlsplit(url).netloc, "it redirects to an unsafe address")
        url = target
    raise faults.bad_answer(urlsplit(url).netloc, "it redirects without end")


def bytes_to_skip(body: Body, start: int, size: int, host: str, path: str) -> int:
    """Check an answer's head; return how many bytes of its body come before `start`: 0, unless Range was ignored.

    Raises:
        Expired: The address is refused.
        Fault: Anything else that is not the bytes asked for.
    """
    if body.headers.get("content-encoding", "identity") not in ("", "identity"):
        raise faults.bad_answer(host, "it compresses the file")
    if body.status == 206:
        told = _CONTENT_RANGE.match(body.headers.get("content-range", ""))
        if told is None or whole_number(told[1]) != start or told[3] not in ("*", str(size)):
            raise _other(
                body, whole_number(told[3]) if told else None, path, host, "another range than the one asked for"
            )
        return 0
    if body.status == 200:
        length = body.headers.get("content-length", "")
        if length and whole_number(length) != size:
            raise _other(body, whole_number(length), path, host, "a file of another length")
        # Range ignored. What is on disk stays there: the total must not go backwards, and the checksum decides anyway.
        return start
    if body.status in (401, 403, 404, 410, 416):
        raise Expired
    raise faults.status(host, body.status, retry_after_s(body.headers))


def first_bytes(body: Body) -> bytes:
    """As many of a body's first bytes as tell what it is. Raises OSError or BadHTTP."""
    head = bytearray(contents.HEAD_BYTES)
    view, have = memoryview(head), 0
    while have < len(head) and (count := body.read_into(view[have:])):
        have += count
    return bytes(head[:have])


def _other(body: Body, told: int | None, path: str, host: str, what: str) -> faults.Fault:
    """An answer of another length than the file's: a git-lfs pointer in its place, or who knows what."""
    if told is not None and told < contents.MOST_POINTER_BYTES and contents.is_pointer(first_bytes(body), told):
        return faults.pointer_sent(host, path)
    return faults.bad_answer(host, what)


def lost(host: str, error: Exception) -> faults.Fault:
    """The connection broke, or was never made."""
    own = faults.short_of(error)
    if own is not None:
        return own
    no_way = error if isinstance(error, NoWay) else tls.refusal(error, host)
    if no_way is not None:
        return faults.no_way(no_way)
    return faults.connection_lost(host, getattr(error, "strerror", None) or str(error) or type(error).__name__)
