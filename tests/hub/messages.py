"""One request as it came in, and the answer to it, before anything spoils it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.blobs import Blob
from tests.hub.faults import Fault, Server

EXPIRED = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)


@dataclass
class Record:
    """One request as it came in, and what was sent for it."""

    server: Server
    method: str
    target: str
    """Path and query as sent."""
    headers: Mapping[str, str]
    """Request headers, names in lower case."""
    body: bytes = b""
    label: str = ""
    """`owner/name/path/of/file` when it is about a file."""
    etag: str = ""
    """Of that file."""
    status: int = 0
    sent: int = 0
    """Body bytes given to the kernel so far; grows while the answer is sent."""
    file_bytes: int = 0
    """Those of them that were the file's content."""
    length: int = 0
    """Body bytes of the whole answer."""
    fault: Fault | None = None
    at: float = field(default_factory=time.monotonic)

    @property
    def complete(self) -> bool:
        """The whole answer was sent."""
        return bool(self.status) and self.sent >= self.length

    @property
    def path(self) -> str:
        """The decoded path without its query."""
        return unquote(urlsplit(self.target).path)

    @property
    def parts(self) -> list[str]:
        """Path segments, each decoded on its own (a quoted slash stays in its segment)."""
        return [unquote(part) for part in urlsplit(self.target).path.split("/") if part]

    @property
    def query(self) -> dict[str, list[str]]:
        """Query members; `expand[]` is listed as `expand`."""
        found: dict[str, list[str]] = {}
        for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items():
            found.setdefault(name.removesuffix("[]"), []).extend(values)
        return found

    @property
    def authorization(self) -> str | None:
        """The credential it carried."""
        return self.headers.get("authorization")

    @property
    def range(self) -> str | None:
        """The byte range it asked for."""
        return self.headers.get("range")


@dataclass
class Answer:
    """What to send. For a file, `blob` from `start` to `stop`; else `body`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    blob: Blob | None = None
    start: int = 0
    stop: int = 0

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.stop - self.start if self.blob else len(self.body)

    def pieces(self) -> Iterable[memoryview]:
        """The body."""
        return self.blob.pieces(self.start, self.stop) if self.blob else [memoryview(self.body)]


def ranged(blob: Blob, wanted: str | None, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer a GET of a file: 200, or 206/416 when one byte range was asked for. Several ranges get the whole file."""
    base = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **(headers or {})}
    whole = Answer(200, base, blob=blob, stop=blob.size)
    if not wanted or not wanted.startswith("bytes=") or "," in wanted:
        return whole
    first, dash, last = wanted.removeprefix("bytes=").partition("-")
    try:
        start = int(first) if first else max(blob.size - int(last), 0)
        stop = min(int(last) + 1, blob.size) if first and last else blob.size
    except ValueError:
        return whole
    if not dash or start >= blob.size or stop <= start:
        return Answer(416, {**base, "Content-Range": f"bytes */{blob.size}"})
    return Answer(
        206, {**base, "Content-Range": f"bytes {start}-{stop - 1}/{blob.size}"}, blob=blob, start=start, stop=stop
    )
