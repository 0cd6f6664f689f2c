"""What the hub says about a repo, asked through `huggingface_hub`. Blocking: call it in a thread.

The library is imported inside the functions: it costs half a second that the service's start must not pay.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from modelhub_tui.errors import NoWay
from modelhub_tui.identifiers import BadIdentifier, commit, is_blob_id, is_sha256, repo_id, safe_repo_path
from modelhub_tui.net import retry_after_s
from modelhub_tui.service.router.artefact import RepoFile
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.records import MAX_TEMPLATE, is_count
from modelhub_tui.untrusted import clean, encodable
from modelhub_tui.values import dataclass

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
ATTEMPTS = 3
_PAUSE_S = 0.4
_MOST_TAGS = 1000
MAX_LISTED = 100_000
"""Files that a repo may have."""
T = TypeVar("T")
_prepare_lock = threading.Lock()
_prepared = False


@dataclass(frozen=True, slots=True)
class RepoFacts:
    """A repo at one commit."""

    repo: str
    """As the hub spells it today: a renamed repo has its new name."""
    commit: str
    files: tuple[RepoFile, ...]
    gated: bool = False
    license: str = ""
    tags: tuple[str, ...] = ()
    pipeline: str = ""
    context_length: int | None = None
    parameters: int | None = None
    chat_template: str | None = None


class Hub:
    """The configured hub's metadata.

    Args:
        endpoint: Base URL, without trailing slash.
        sleep: Waits between attempts.
    """

    def __init__(
        self, endpoint: str, *, timeout_s: float = TIMEOUT_S, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.endpoint, self._timeout_s, self._sleep = endpoint, timeout_s, sleep

    def facts(self, repo: str, revision: str | None) -> RepoFacts:
        """Ask for a repo's commit, files, sizes and checksums.

        Raises:
            Refused: With the code and sentence for whatever the hub or the network said.
        """
        info, name, sha = self._info(repo, revision)
        if name.lower() != repo.lower():
            # A rename is believed if the hub has the repo under its new name, at the same commit.
            _, again, same = self._info(name, sha)
            if (again.lower(), same) != (name.lower(), sha):
                raise self._odd(f"answers about {name} when asked about {repo}")
        siblings = info.siblings or []
        if len(siblings) > MAX_LISTED:
            what = f"{repo} has {len(siblings)} files; models from repos of more than {MAX_LISTED} are not supported."
            raise Refused("unsupported", what)
        if info.disabled:
            raise Refused("disabled", f"The hub has disabled {repo}; choose another repo.")
        config: Mapping[str, Any] = info.config if isinstance(info.config, dict) else {}
        gguf: Mapping[str, Any] = info.gguf if isinstance(info.gguf, dict) else {}
        tokenizer = config.get("tokenizer_config")
        template = gguf.get("chat_template") or (
            tokenizer.get("chat_template") if isinstance(tokenizer, dict) else None
        )
        total = gguf.get("total") or getattr(info.safetensors, "total", None)
        tags = _tags(info.tags)
        return RepoFacts(
            repo=name,
            commit=sha,
            files=tuple(file for each in siblings if (file := _file(each)) is not None),
            gated=bool(info.gated),
            license=next((each.removeprefix("license:") for each in tags if each.startswith("license:")), ""),
            tags=tuple(each for each in tags if ":" not in each)[:30],
            pipeline=clean(info.pipeline_tag, 60) if isinstance(info.pipeline_tag, str) else "",
            context_length=_positive(gguf.get("context_length")) or _positive(config.get("max_position_embeddings")),
            parameters=_positive(total),
            chat_template=encodable(template[:MAX_TEMPLATE]) if isinstance(template, str) else None,
        )

    def _info(self, repo: str, revision: str | None) -> tuple[ModelInfo, str, str]:
        """What the hub says of a repo, its name there, and the commit.

        Raises:
            Refused: As for `facts()`; `hub_failed` where it names no repo or no commit.
        """
        api = self._api()
        info = self._ask(
            repo,
            revision,
            lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=self._timeout_s),
        )
        try:
            name, sha = repo_id(info.id), commit(info.sha)
        except BadIdentifier as error:
            raise self._odd(f"says of {repo} what cannot be: {error}") from error
        return info, name, sha

    def _odd(self, what: str) -> Refused:
        return Refused("hub_failed", f"The hub at {self.endpoint} {what}; is HF_ENDPOINT a HuggingFace hub?")

    def check_access(self, repo: str) -> None:
        """Make sure that files of a gated repo may be fetched, before anybody waits for them.

        Raises:
            Refused: `gated`, with what to do.
        """
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        from modelhub_tui import hub_http

        api = self._api()
        try:
            with hub_http.asking(self.endpoint):
                api.auth_check(repo)
        except RepositoryNotFoundError as error:  # GatedRepoError is one
            raise self._gated(repo) from error
        except NoWay as error:
            raise Refused("hub_unreachable", error.reason) from error
        except Exception as error:
            if not isinstance(error, (HfHubHTTPError, *_transport_errors())):
                raise
            # Not every hub has this route; the node finds out when it fetches.
            log.info("cannot check access to %s: %s", repo, clean(error))

    def sizes(self, repo: str, commit: str, paths: list[str]) -> dict[str, RepoFile]:
        """Sizes and checksums of some files, for hubs whose listing lacks them."""
        from huggingface_hub import RepoFile as HubFile

        api = self._api()
        told = self._ask(repo, commit, lambda: api.get_paths_info(repo, paths, revision=commit))
        wanted = {*paths}
        found = (_checked(each.path, each.size, each.lfs, each.blob_id) for each in told if isinstance(each, HubFile))
        return {each.path: each for each in found if each is not None and each.path in wanted}

    def _api(self) -> HfApi:
        prepare()
        from huggingface_hub import HfApi, get_token

        token = get_token() or ""
        if not (token.isascii() and token.isprintable()):
            raise Refused(
                "bad_token", "The HF token has characters that no token has; set HF_TOKEN anew, or run `hf auth login`."
            )
        return HfApi(endpoint=self.endpoint, library_name="modelhub-tui")

    def _ask(self, repo: str, revision: str | None, ask: Callable[[], T]) -> T:
        """Ask, and ask again after a failure that may pass; at most `ATTEMPTS` times."""
        from modelhub_tui import hub_http

        for attempt in range(1, ATTEMPTS + 1):
            try:
                with hub_http.asking(self.endpoint):
                    return ask()
            except Refused:
                raise
            except Exception as error:
                refused, passing = self._explain(error, repo, revision)
                if not passing or attempt == ATTEMPTS:
                    raise refused from error
                self._sleep(_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.7, 1.3))  # noqa: S311
        raise AssertionError("unreachable")

    def _explain(self, error: Exception, repo: str, revision: str | None) -> tuple[Refused, bool]:
        """Word a failure, most specific type first, and say whether it may pass by itself."""
        from huggingface_hub import errors, get_token

        has_token = bool(get_token())
        match error:
            case NoWay(reason=reason):  # tells its cause itself; asking again changes nothing
                return Refused("hub_unreachable", reason), False
            case errors.GatedRepoError():
                return self._gated(repo), False
            case errors.RepositoryNotFoundError():
                hint = "your token may not see it" if has_token else "it is private: then set HF_TOKEN"
                return Refused(
                    "no_such_repo", f"The hub has no model repo {repo}, or {hint}. Check its spelling."
                ), False
            case errors.RevisionNotFoundError():
                what = clean(revision or "main", 60)
                return Refused(
                    "no_such_revision", f"{repo} has no revision {what}; leave it out to use the newest."
                ), False
            case errors.RemoteEntryNotFoundError():
                return Refused("no_such_file", f"A file of {repo} is gone from the hub; choose another."), False
            case errors.DisabledRepoError():
                return Refused("disabled", f"The hub has disabled {repo}; choose another repo."), False
            case errors.HFValidationError() | errors.BadRequestError():
                return Refused(
                    "no_such_repo", f"{clean(repo, 80)} is not a repo name; it looks like owner/name."
                ), False
            case errors.OfflineModeIsEnabled():
                return Refused(
                    "hub_unreachable",
                    "HF_HUB_OFFLINE is set for the service, so the hub is not asked: unset it, and restart the service "
                    "(`modelhub stop`) to register models.",
                ), False
            case errors.HfHubHTTPError():
                return self._explain_status(error)
        import httpx2

        if isinstance(error, httpx2.ProxyError):
            why = clean(error, 80).rstrip(".")
            reason = f"The proxy gives no way to {self.endpoint} ({why}); check HTTPS_PROXY, ALL_PROXY and NO_PROXY."
            return Refused("hub_unreachable", reason), True
        if isinstance(error, _transport_errors()):
            reason = f"The hub at {self.endpoint} cannot be reached; check the network and HF_ENDPOINT, then try again."
            return Refused("hub_unreachable", reason), True
        log.error("unexpected answer of the hub about %s", repo, exc_info=error)
        return Refused(
            "hub_failed", f"The hub at {self.endpoint} answers in a way that is not understood; is HF_ENDPOINT right?"
        ), False

    def _explain_status(self, error: Any) -> tuple[Refused, bool]:
        status = error.response.status_code
        if status == 429:
            wait_s = retry_after_s(error.response.headers)
            told = f" Try again in {wait_s:.0f} s." if wait_s else " Try again in a few minutes."
            refused = Refused("rate_limited", f"The hub asks us to slow down.{told}", retry_after_s=wait_s or 60.0)
            return refused, False
        if status == 401:
            return Refused(
                "bad_token", "The hub refuses the HF token; set a valid HF_TOKEN, or run `hf auth login` again."
            ), False
        if status == 403:
            return Refused(
                "gated", "The hub says this token may not do that; use one with read access to the repo."
            ), False
        if status >= 500 or status == 408:
            return Refused("hub_failed", f"The hub at {self.endpoint} fails (HTTP {status}); try again later."), True
        return Refused("hub_failed", f"The hub at {self.endpoint} refuses the request (HTTP {status})."), False

    def _gated(self, repo: str) -> Refused:
        from huggingface_hub import get_token

        page = f"{self.endpoint}/{repo}"
        todo = "with the account of your HF token" if get_token() else "and set HF_TOKEN (or run `hf auth login`)"
        return Refused("gated", f"{repo} is gated: accept its terms at {page} {todo}.")


def prepare() -> None:
    """Import and tame the library: no telemetry, no progress bars, no log handler of its own."""
    global _prepared
    with _prepare_lock:
        if _prepared:
            return
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi

        from modelhub_tui import hub_http

        hub_http.install()
        # Its own handler writes to stderr, unredacted.
        library = logging.getLogger(HfApi.__module__.partition(".")[0])
        library.handlers.clear()
        library.propagate = True
        _prepared = True


def _transport_errors() -> tuple[type[Exception], ...]:
    import httpx2

    return (httpx2.TransportError, ConnectionError, TimeoutError)


def _file(sibling: Any) -> RepoFile | None:
    return _checked(sibling.rfilename, sibling.size, sibling.lfs, sibling.blob_id)


def _checked(path: object, size: object, lfs: Any, blob_id: object) -> RepoFile | None:
    """One file as the hub lists it, or None if its name cannot be one; what makes no sense counts as not told."""
    try:
        name = safe_repo_path(path)
    except BadIdentifier:
        return None
    told: Any = size if is_count(size) else getattr(lfs, "size", None)
    sha256 = _lower(getattr(lfs, "sha256", None)) if lfs else None
    git = _lower(blob_id) if not lfs else None
    return RepoFile(
        name,
        told if is_count(told) else None,
        sha256 if is_sha256(sha256) else None,
        git if is_blob_id(git) else None,
    )


def _lower(said: object) -> str | None:
    return said.lower() if isinstance(said, str) else None


def _tags(said: object) -> list[str]:
    return [clean(each, 60) for each in said[:_MOST_TAGS] if isinstance(each, str)] if isinstance(said, list) else []


def _positive(value: object) -> int | None:
    return value if is_count(value) and value else None  # type: ignore[return-value]
