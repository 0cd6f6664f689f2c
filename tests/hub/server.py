"""`LoopbackHub`: the endpoint and the CDN, running."""

from __future__ import annotations

import fnmatch
import ssl
from collections.abc import Callable, Collection, Iterable
from typing import Any, Self

from tests.hub.api import ALL, HubApi
from tests.hub.faults import Fault, Server
from tests.hub.messages import Record
from tests.hub.repos import HubRepo
from tests.hub.wire import Host, Listener, Pacer

GOOD_TOKEN = "hf_goodtoken"
"""May see every repo, gated and private ones too."""
STRANGER_TOKEN = "hf_strangertoken"
"""Valid, but approved for nothing."""


class LoopbackHub:
    """A HuggingFace-compatible hub on 127.0.0.1. Use as a context manager; see the package docstring."""

    def __init__(
        self,
        repos: Iterable[HubRepo] = (),
        *,
        throttle_bps: float | None = None,
        connection_bps: float | Callable[[str], float | None] | None = None,
        latency_s: float = 0.0,
        tokens: dict[str, Collection[str]] | None = None,
        resolve_cache: bool = True,
        signature_ttl_s: float = 3600.0,
        page_size: int = 1000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare a hub; entering the context (or `start()`) opens its two ports.

        Args:
            throttle_bps: Bytes per second of all file bodies together; None for no limit. May be changed later.
            connection_bps: The same for each response; a function gets `owner/name/path` and returns its limit.
            latency_s: Wait before each answer.
            tokens: Which gated and private repos each valid token may see; `"*"` is all.
            resolve_cache: Answer small files with the live hub's 307 to `/api/resolve-cache/...` first.
            signature_ttl_s: How long a signed CDN URL is good.
            page_size: At most this many rows in one page of a list; the rest follows by `Link`.
            tls: Both servers speak https with this; see `tests.tls`.
        """
        self.api = HubApi(resolve_cache=resolve_cache, signature_ttl_s=signature_ttl_s, page_size=page_size)
        self.api.tokens = dict(tokens) if tokens is not None else {GOOD_TOKEN: (ALL,), STRANGER_TOKEN: ()}
        self.log: list[Record] = []
        """Every request to both servers, in the order they came."""
        self.faults: list[Fault] = []
        """The rules in force; `fault()` adds one."""
        pacer = Pacer(throttle_bps)
        self._hub_host = Host(self.api.answer, self.log, self.faults, pacer, connection_bps, latency_s)
        self._cdn_host = Host(self.api.answer_cdn, self.log, self.faults, pacer, connection_bps, latency_s)
        self._hub = Listener("hub", self._hub_host, tls)
        self._cdn = Listener("cdn", self._cdn_host, tls)
        self.api.cdn_url = self._cdn.url
        for repo in repos:
            self.add(repo)

    # -- life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> Self:
        """Open both ports."""
        self.up()
        return self

    def close(self) -> None:
        """Close both for good; open connections are reset."""
        self._hub.close()
        self._cdn.close()

    def down(self, server: Server | None = None) -> None:
        """Refuse and reset connections to one server, or both, until `up()`."""
        for each in self._listeners(server):
            each.down()

    def up(self, server: Server | None = None) -> None:
        """Come back on the same ports."""
        for each in self._listeners(server):
            each.up()

    def drop_connections(self, server: Server | None = None) -> None:
        """Reset what is open now, and go on serving."""
        for each in self._listeners(server):
            each.drop_connections()

    def _listeners(self, server: Server | None) -> list[Listener]:
        return [each for each in (self._hub, self._cdn) if server in (None, each.name)]

    @property
    def url(self) -> str:
        """The endpoint, for HF_ENDPOINT."""
        return self._hub.url

    @property
    def cdn_url(self) -> str:
        """Where LFS files come from: another origin."""
        return self._cdn.url

    def env(self, **more: str) -> dict[str, str]:
        """Environment for a child process: this endpoint, no proxy, no telemetry, and `more`."""
        local = "127.0.0.1,localhost,::1"
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": local, "no_proxy": local, **more}

    # -- content

    def add(self, repo: HubRepo) -> HubRepo:
        """Serve a repo; one with the same id is replaced."""
        self.api.repos[repo.id.lower()] = repo
        return repo

    def remove(self, id: str) -> None:
        """Stop knowing a repo. URLs already signed stay good, as on the live hub."""
        del self.api.repos[id.lower()]

    def rename(self, old: str, new: str) -> HubRepo:
        """Give a repo another id; the old one redirects."""
        repo = self.api.repos.pop(old.lower())
        repo.id = new
        self.api.renamed[old.lower()] = new
        return self.add(repo)

    def repo(self, id: str) -> HubRepo:
        """The repo with this id, in any case."""
        return self.api.repos[id.lower()]

    @property
    def repos(self) -> tuple[HubRepo, ...]:
        """All of them, in the order added."""
        return tuple(self.api.repos.values())

    @property
    def tokens(self) -> dict[str, Collection[str]]:
        """Valid tokens and what each may see; may be changed while running."""
        return self.api.tokens

    def resolve_url(self, repo: str, path: str, revision: str = "main") -> str:
        """The download URL of a file."""
        return f"{self.url}/{repo}/resolve/{revision}/{path}"

    # -- speed and trouble

    @property
    def throttle_bps(self) -> float | None:
        """Bytes per second of all file bodies together."""
        return self._hub_host.total.bps

    @throttle_bps.setter
    def throttle_bps(self, bps: float | None) -> None:
        self._hub_host.total.bps = bps

    @property
    def connection_bps(self) -> float | Callable[[str], float | None] | None:
        """The same for each response that starts from now on."""
        return self._hub_host.connection_bps

    @connection_bps.setter
    def connection_bps(self, bps: float | Callable[[str], float | None] | None) -> None:
        self._hub_host.connection_bps = self._cdn_host.connection_bps = bps

    @property
    def latency_s(self) -> float:
        """Wait before each answer."""
        return self._hub_host.latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self._hub_host.latency_s = self._cdn_host.latency_s = seconds

    def fault(self, **rule: Any) -> Fault:
        """Add a rule (see `Fault` for its members) and return it, to count its `hits`, `release()` or `remove()` it."""
        made = Fault(**rule)
        self.faults.append(made)
        return made

    def expire_signatures(self) -> None:
        """Make every CDN URL handed out so far answer 403 from now on."""
        self.api.expire_signatures()

    # -- what was asked

    def requests(self, path: str = "*", *, server: Server | None = None, method: str | None = None) -> list[Record]:
        """The log, filtered as `Fault` filters: `path` is a glob over the URL's path or `owner/name/path/of/file`."""
        return [
            each
            for each in list(self.log)
            if server in (None, each.server)
            and method in (None, each.method)
            and (fnmatch.fnmatchcase(each.path, path) or fnmatch.fnmatchcase(each.label, path))
        ]

    def served_bytes(self, what: str = "*") -> int:
        """File bytes sent so far: of all, of a path glob as in `requests()`, or of one etag (sha256 or git id)."""
        return sum(each.file_bytes for each in list(self.log) if what == each.etag) or sum(
            each.file_bytes for each in self.requests(what)
        )
