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
from urllib.parse import quote

from modelhub_tui import hf_env
from modelhub_tui.errors import NoWay
from modelhub_tui.hub_status import meaning
from modelhub_tui.identifiers import BadIdentifier, commit, is_blob_id, is_sha256, repo_id, safe_repo_path
from modelhub_tui.net import loads, retry_after_s
from modelhub_tui.service.router.artefact import RepoFile
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.records import MAX_TEMPLATE, is_count
from modelhub_tui.untrusted import clean, encodable
from modelhub_tui.values import dataclass

if TYPE_CHECKING:
    from huggingface_hub import HfApi

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
        # Read by ourselves, member by member: the library makes objects of all of it, and one decorative member that is
        # not as it should be would stop a registration.
        if name.lower() != repo.lower():
            # A rename is believed if the hub has the repo under its new name, at the same commit; and what it says of
            # the files there is what counts.
            info, again, same = self._info(name, sha)
            if (again.lower(), same) != (name.lower(), sha):
                raise self._odd(f"answers about {name} when asked about {repo}")
        listed = info.get("siblings")
        siblings = listed if isinstance(listed, list) else []
        if len(siblings) > MAX_LISTED:
            what = f"{repo} has {len(siblings)} files; models from repos of more than {MAX_LISTED} are not supported."
            raise Refused("unsupported", what)
        if info.get("disabled"):
            raise Refused("disabled", f"The hub has disabled {repo}; choose another repo.")
        config, gguf = _member(info, "config"), _member(info, "gguf")
        template = gguf.get("chat_template") or _member(config, "tokenizer_config").get("chat_template")
        total = _positive(gguf.get("total")) or _positive(_member(info, "safetensors").get("total"))
        tags, pipeline = _tags(info.get("tags")), info.get("pipeline_tag")
        return RepoFacts(
            repo=name,
            commit=sha,
            files=tuple(file for each in siblings if (file := _file(each)) is not None),
            gated=bool(info.get("gated")),
            license=next((each.removeprefix("license:") for each in tags if each.startswith("license:")), ""),
            tags=tuple(each for each in tags if ":" not in each)[:30],
            pipeline=clean(pipeline, 60) if isinstance(pipeline, str) else "",
            context_length=_positive(gguf.get("context_length")) or _positive(config.get("max_position_embeddings")),
            parameters=total,
            chat_template=encodable(template[:MAX_TEMPLATE]) if isinstance(template, str) else None,
        )

    def _info(self, repo: str, revision: str | None) -> tuple[Mapping[str, Any], str, str]:
        """What the hub says of a repo, its name there, and the commit.

        Raises:
            Refused: As for `facts()`; `hub_failed` where it names no repo or no commit.
        """
        path = f"{repo}/revision/{quote(revision, safe='')}" if revision else repo
        info = self._ask(repo, revision, lambda: self._json("GET", path, params={"blobs": True}))
        if not isinstance(info, dict):
            raise self._odd(f"answers with something else than what it knows of {repo}")
        try:
            name, sha = repo_id(info.get("id")), commit(info.get("sha"))
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
        where = f"{repo}/paths-info/{quote(commit, safe='')}"
        told = self._ask(repo, commit, lambda: self._json("POST", where, data={"paths": paths, "expand": False}))
        wanted = {*paths}
        rows = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
        files = (each for each in rows if each.get("type") == "file")
        found = (_checked(each.get("path"), each.get("size"), each.get("lfs"), each.get("oid")) for each in files)
        return {each.path: each for each in found if each is not None and each.path in wanted}

    def _json(self, method: str, path: str, **more: Any) -> Any:
        """One question to the hub's API about models, with the library's own client, headers and exceptions.

        Raises:
            ValueError: The answer is no JSON.
        """
        from huggingface_hub.utils import get_session, hf_raise_for_status, validate_repo_id

        from modelhub_tui.hub_http import LIMIT_BYTES

        api = self._api()
        validate_repo_id("/".join(path.split("/")[:2]))
        url = f"{self.endpoint}/api/models/{path}"
        answer = get_session().request(method, url, headers=api._build_hf_headers(), timeout=self._timeout_s, **more)
        hf_raise_for_status(answer)
        return loads(answer.content, LIMIT_BYTES)

    def _api(self) -> HfApi:
        prepare()
        from huggingface_hub import HfApi

        trouble = hf_env.token_trouble(os.environ)
        if trouble:
            raise Refused("bad_token", trouble)
        token = hf_env.hub_token() or ""
        if not (token.isascii() and token.isprintable()):
            raise Refused(
                "bad_token", "The HF token has characters that no token has; set HF_TOKEN anew, or run `hf auth login`."
            )
        return HfApi(endpoint=self.endpoint, token=token or False, library_name="modelhub-tui")

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
        from huggingface_hub import errors

        has_token = bool(hf_env.hub_token())
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
            case errors.HFValidationError():
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
        if isinstance(error, ValueError):
            return self._odd("answers with something else than JSON"), True
        log.error("unexpected answer of the hub about %s", repo, exc_info=error)
        return Refused(
            "hub_failed", f"The hub at {self.endpoint} answers in a way that is not understood; is HF_ENDPOINT right?"
        ), False

    def _explain_status(self, error: Any) -> tuple[Refused, bool]:
        status = error.response.status_code
        if status == 404:
            return Refused(
                "no_such_repo", "The hub does not know it (404). Check its spelling, and HF_ENDPOINT."
            ), False
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
        meant = meaning(status)
        todo = meant.todo or "try again later"
        # What does not pass may have been an accident of one server among many: it is asked again all the same.
        return Refused(meant.code, f"The hub at {self.endpoint} {meant.what}; {todo}."), True

    def _gated(self, repo: str) -> Refused:
        page = f"{self.endpoint}/{repo}"
        todo = (
            "with the account of your HF token" if hf_env.hub_token() else "and set HF_TOKEN (or run `hf auth login`)"
        )
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


def _member(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object in an object; an empty one where it is anything else."""
    said = told.get(name)
    return said if isinstance(said, dict) else {}


def _file(sibling: object) -> RepoFile | None:
    """One row of a repo's `siblings`, or None."""
    if not isinstance(sibling, dict):
        return None
    return _checked(sibling.get("rfilename"), sibling.get("size"), sibling.get("lfs"), sibling.get("blobId"))


def _checked(path: object, size: object, lfs: object, blob_id: object) -> RepoFile | None:
    """One file as the hub lists it, or None if its name cannot be one; what makes no sense counts as not told."""
    try:
        name = safe_repo_path(path)
    except BadIdentifier:
        return None
    large = lfs if isinstance(lfs, dict) else {}
    told: Any = size if is_count(size) else large.get("size")
    # One route of the API calls it `sha256`, the other `oid`.
    sha256 = _lower(large.get("sha256") or large.get("oid"))
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
