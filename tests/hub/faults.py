"""What can go wrong, as rules a test adds to a running hub.

A rule says which requests it is for (`server`, `method`, `path`, `skip`, `times`) and what happens to them; several
effects may be combined. The first rule that matches a request is used. Byte counts are of the body of that response.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Server = Literal["hub", "cdn"]

RATE_LIMITED: Mapping[str, str] = {
    "RateLimit": '"api";r=0;t=1',
    "RateLimit-Policy": '"fixed window";"api";q=500;w=300',
    "Retry-After": "1",
}
"""Headers of the live hub's 429, with a wait that a test can afford."""

DROP = object()
"""In `Fault.json`: leave this member out."""


def retold(told: Any, way: str, word: Any) -> None:
    """Put `word` into a JSON document at each place that `way` leads to (see `Fault.json`)."""
    first, _, rest = way.partition(".")
    if first == "*":
        for each in told if isinstance(told, list) else ():
            retold(each, rest, word)
    elif isinstance(told, dict):
        if rest:
            retold(told.get(first), rest, word)
        elif word is DROP:
            told.pop(first, None)
        else:
            told[first] = word


@dataclass
class Fault:
    """One rule. Thread-safe: requests of several connections may hit it at once."""

    server: Server | None = None
    method: str | None = None
    """None matches GET, HEAD and POST."""
    path: str = "*"
    """Glob over the URL's decoded path, or over `owner/name/path/of/file` of a file request (also on the CDN)."""
    skip: int = 0
    """Let this many matching requests pass first."""
    times: int | None = 1
    """Then use the rule this often; None means always."""

    status: int | None = None
    """Answer with this status (and `body`) in place of the real answer."""
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Headers to set, or to drop where the value is None: a wrong Content-Length, Content-Range or etag, no
    X-Repo-Commit, Retry-After. A Content-Length given here does not change how many bytes are sent."""
    json: Mapping[str, Any] = field(default_factory=dict)
    """Members of a JSON answer to tell otherwise, by their way there: `sha`, `siblings.*.rfilename`, `*.lfs.oid`
    (`*` is each row of a list); `DROP` leaves a member out. What is not there is added: any word fits anywhere."""
    delay_s: float = 0.0
    """Wait before the first byte of the answer, or until `release()`."""
    reset_after: int | None = None
    """Send this many bytes of the body, then reset the connection (RST). 0 resets after the headers."""
    close_after: int | None = None
    """Send this many bytes of the body, then close in good order (FIN), before Content-Length is reached."""
    reset_at_once: bool = False
    """Reset without a single byte of an answer."""
    stall_after: int | None = None
    """Send this many bytes of the body, then nothing for `stall_s` seconds, then go on."""
    stall_s: float | None = None
    """None stalls until `release()`."""
    drip_bytes: int | None = None
    """Send the body in steps of this many bytes ..."""
    drip_s: float = 0.1
    """... with this pause between them (slow loris)."""
    flip_at: int | None = None
    """Change one bit of the byte at this offset *of the file*, if the response covers it."""
    ignore_range: bool = False
    """Answer a ranged request with 200 and the whole file."""
    expired: bool = False
    """CDN: answer 403 as for an expired signature."""

    hits: int = field(default=0, init=False)
    """How often the rule was used."""
    seen: int = field(default=0, init=False)
    """How many requests matched, skipped ones too."""
    removed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.stalled = threading.Event()
        """Set once a response stands still."""
        self.released = threading.Event()

    def take(self, server: Server, method: str, path: str, label: str) -> bool:
        """Say whether the rule is for this request, and count it."""
        if self.removed or self.server not in (None, server) or self.method not in (None, method):
            return False
        if not fnmatch.fnmatchcase(path, self.path) and not (label and fnmatch.fnmatchcase(label, self.path)):
            return False
        with self._lock:
            self.seen += 1
            if self.seen <= self.skip or (self.times is not None and self.hits >= self.times):
                return False
            self.hits += 1
        return True

    def release(self) -> None:
        """Let stalled responses go on, and later ones pass without a stall."""
        self.released.set()

    def remove(self) -> None:
        """End the rule; stalled responses go on."""
        self.removed = True
        self.release()
