"""Everything the node asks the hub about a file, through `huggingface_hub`: commit, etag, size, location, real errors.

The library is imported on first use (it costs 0.4 s), and gets endpoint and token with each call, because it reads its
own environment only once, at import.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urljoin, urlsplit

from modelhub_tui import identifiers
from modelhub_tui.errors import NoWay
from modelhub_tui.hf_env import hub_token
from modelhub_tui.net import retry_after_s
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.xet import XetFile, xet_file
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Found:
    """One file as the hub describes it now."""

    commit: str
    digest: str | None
    """The checksum that its ETag is; None for an ETag of any other form, or none at all."""
    size: int
    url: str
    """Where its bytes are; signed and short-lived when it is not on the hub itself. A secret: never log it."""
    linked: bool = False
    """It is kept elsewhere, and the hub sends us there: then its checksum is the hub's own word, not some ETag."""
    xet: XetFile | None = None
    """Where they are in Xet storage, too, if the hub keeps the file there."""
    asked: bool = True
    """The hub has said so; False for what `Hub.assume()` takes for granted."""


class Hub:
    """The hub the settings name. Blocking calls, safe from several threads."""

    def __init__(self, endpoint: str, *, timeout_s: float = 10.0) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._timeout_s = timeout_s

    def token(self) -> str | None:
        """The user's token (HF_TOKEN, then the file of `hf auth login`).

        Raises:
            Fault: It has characters that no header can carry.
        """
        token = hub_token()
        if token and not (token.isascii() and token.isprintable()):
            raise faults.bad_token(self.endpoint)
        return token

    def find(self, repo: str, revision: str, path: str, *, commit: str | None = None, size: int | None = None) -> Found:
        """Ask for one file's commit, checksum, size and location: one HEAD.

        Args:
            commit: As it was registered: taken where the answer leaves it out, as mirrors and proxies do. `size` too.

        Raises:
            Fault: Why there is no such file for us, or no answer.
        """
        quiet_library()
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import get_hf_file_metadata

        from modelhub_tui import hub_http

        token = self.token()
        try:
            url = hf_hub_url(repo, path, revision=revision, endpoint=self.endpoint)
            with hub_http.asking(self.endpoint, deadline_s=3 * self._timeout_s):
                told = get_hf_file_metadata(
                    url,
                    token=token or False,
                    timeout=self._timeout_s,
                    endpoint=self.endpoint,
                    library_name="modelhub-tui",
                )
        except Exception as error:
            raise self.explain(error, repo, revision, path, has_token=token is not None) from error
        # A word without the form of a commit is not the same as none: somebody there makes them up.
        commit = commit if told.commit_hash is None else told.commit_hash
        size = size if told.size is None else told.size
        if not identifiers.is_commit(commit) or size is None or not 0 <= size < 2**53:
            raise faults.bad_answer(self.host, f"no commit or size for {path}")
        assert commit
        location = next_hop(url, told.location)
        if location is None:
            raise faults.bad_answer(self.host, "it sends us to an unsafe address")
        kept = told.xet_file_data
        xet = xet_file(kept.file_hash, next_hop(url, kept.refresh_route)) if kept is not None else None
        linked = origin(location) != origin(url)
        return Found(commit, _checksum(told.etag, linked=linked), size, location, linked, xet)

    def assume(self, repo: str, commit: str, path: str, *, digest: str, size: int) -> Found:
        """A file of which all is known, as it is where the hub has it, without asking for more than its bytes."""
        from huggingface_hub import hf_hub_url

        return Found(commit, digest, size, hf_hub_url(repo, path, revision=commit, endpoint=self.endpoint), asked=False)

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    def headers_for(self, url: str) -> dict[str, str]:
        """What to send with a request for bytes: the token goes to the hub's own origin and nowhere else."""
        headers = {"Accept-Encoding": "identity"}
        if origin(url) == origin(self.endpoint) and (token := self.token()):
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def explain(self, error: Exception, repo: str, revision: str, path: str, *, has_token: bool) -> faults.Fault:
        """Translate the library's exception, most specific first."""
        from huggingface_hub import errors

        response: Any = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        match error:
            case NoWay():
                return faults.no_way(error)
            case errors.GatedRepoError():
                return faults.gated(self.endpoint, repo, has_token=has_token)
            case errors.RepositoryNotFoundError():
                return faults.no_such_repo(self.endpoint, repo, has_token=has_token)
            case errors.RevisionNotFoundError():
                return faults.no_such_revision(repo, revision)
            case errors.EntryNotFoundError():
                return faults.no_such_file(repo, path)
            case errors.DisabledRepoError():
                return faults.disabled(repo)
            case errors.OfflineModeIsEnabled():
                return faults.offline_by_wish()
            case errors.HfHubHTTPError() if status == 401:
                return faults.bad_token(self.endpoint)
            case errors.HfHubHTTPError() if status == 403:
                return faults.gated(self.endpoint, repo, has_token=has_token)
            case errors.HfHubHTTPError() if isinstance(status, int):
                if status == 404:
                    return faults.no_such_file(repo, path)
                return faults.status(self.host, status, retry_after_s(response.headers), path=path)
            case errors.HFValidationError():
                return faults.bad_manifest(f"{repo} is no repo")
            case ValueError():
                return faults.bad_answer(self.host, "a length that is no number")
        own = faults.short_of(_root(error))
        if own is not None:
            return own
        why = getattr(getattr(error, "__cause__", None), "strerror", None) or str(error) or type(error).__name__
        return faults.hub_unreachable(self.endpoint, why)


def _root(error: BaseException) -> BaseException:
    """What an exception was raised for, at the end of the chain."""
    seen = error
    for _ in range(10):
        behind = seen.__cause__ or seen.__context__
        if behind is None:
            break
        seen = behind
    return seen


def _checksum(etag: object, *, linked: bool) -> str | None:
    """The checksum that an ETag is, if it has the form of one. Quotes and a weak ETag's `W/` are off already.

    40 hex digits in an answer that sends us elsewhere are git's name of the pointer to the file, not of its content.
    """
    told = etag.lower() if isinstance(etag, str) else None
    return told if identifiers.is_sha256(told) or (identifiers.is_blob_id(told) and not linked) else None


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what decides who may see a token."""
    at = urlsplit(url)
    return at.scheme, (at.hostname or "").lower(), at.port or _DEFAULT_PORTS.get(at.scheme, 0)


def next_hop(url: str, location: str) -> str | None:
    """Where an address leads on to: http or https, never from https back to http; None if nobody may be sent there."""
    try:
        target = urljoin(url, location)
        at = urlsplit(target)
        usable = bool(at.hostname) and at.port != 0  # `port` raises, too, when it is no number
    except ValueError:
        return None
    safe = at.scheme == "https" or (at.scheme == "http" and urlsplit(url).scheme == "http")
    return target if usable and safe else None


def quiet_library() -> None:
    """Take away the library's own handler on stderr, which would paint over a screen; our handlers get its records."""
    logger = logging.getLogger("huggingface_hub")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    logger.propagate = True
