"""What the hub answers: metadata, search, small files, redirects to signed URLs; and the CDN behind it.

Everything here is a pure answer to one request; sockets and faults are in `wire.py`. Where the live hub's exact words
are not known, `huggingface_hub` 2.4 decides: it must raise the exception it raises against the live one.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from tests.hub.blobs import Blob
from tests.hub.messages import EXPIRED, Answer, Record, ranged
from tests.hub.repos import Commit, HubRepo
from tests.hub.shapes import model_json, paths_json, tree_json

ALL = "*"
"""In a token's grants: may see every repo."""
_FILE_VIEWS = ("resolve", "raw")


class Refusal(Exception):
    """An error answer, raised from anywhere below `HubApi.answer`."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        plain = "".join(char if " " <= char <= "~" else "?" for char in message)  # what was asked for may be in it
        said = {"Content-Type": "application/json; charset=utf-8", "X-Error-Message": plain, **(headers or {})}
        if code:
            said["X-Error-Code"] = code
        self.answer = Answer(status, said, json.dumps({"error": message}).encode())


class HubApi:
    """The endpoint and its storage. Thread-safe as long as a repo is changed through its methods."""

    def __init__(self, *, resolve_cache: bool, signature_ttl_s: float, page_size: int) -> None:
        self.repos: dict[str, HubRepo] = {}
        """By id in lower case."""
        self.renamed: dict[str, str] = {}
        self.tokens: dict[str, Collection[str]] = {}
        self.resolve_cache = resolve_cache
        self.signature_ttl_s = signature_ttl_s
        self.page_size = page_size
        self.cdn_url = ""
        self.xet: dict[str, str] = {}
        """Hashes in Xet storage, by sha256, of the files that are kept there, too."""
        self.mirror_etag: Callable[[HubRepo, Blob], str | None] | None = None
        """Serve files as a mirror does: at once, without redirects or X-Linked headers, and with this ETag (as it is
        sent, quotes and all; None for none)."""
        self.untold: Callable[[HubRepo, str], bool] = lambda _repo, _path: False
        """The files of which the metadata tells no checksum."""
        self.xet_url = ""
        """Where that storage is; `local:///folder` needs no server."""
        self._secret = b"loopback"
        self._generation = 0
        self._stored: dict[str, tuple[str, Blob]] = {}
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    # -- the endpoint

    def answer(self, request: Record) -> Answer:
        """Answer one request to the endpoint."""
        try:
            answer = self._route(request)
        except Refusal as refusal:
            answer = refusal.answer
        answer.headers.setdefault("X-Request-Id", f"Root=1-loopback-{next(self._ids)}")
        return answer

    def _route(self, request: Record) -> Answer:
        parts = request.parts
        if request.authorization is not None and self._token(request) is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        if parts[:1] != ["api"]:
            return self._page(request, parts)
        match parts[1:]:
            case ["whoami-v2"]:
                return self._whoami(request)
            case ["models"]:
                return self._search(request)
            case ["resolve-cache", "models", owner, name, commit, *path]:
                return self._file(
                    request, self._readable(request, f"{owner}/{name}"), commit, "/".join(path), direct=True
                )
            case ["models", name, *rest] if name.lower() in self.repos:  # an old repo without an owner
                return self._model(request, name, rest)
            case ["models", owner, name, *rest]:
                return self._model(request, f"{owner}/{name}", rest)
            case ["models", name]:
                return self._model(request, name, [])
        raise Refusal(404, "Not Found")

    def _page(self, request: Record, parts: list[str]) -> Answer:
        """A file view, `/{repo}/resolve/{rev}/{path}`; every other page of the site is not there."""
        at = next((i for i in (2, 1) if parts[i : i + 1] and parts[i] in _FILE_VIEWS), None)
        if at is None or len(parts) < at + 3:
            raise Refusal(404, "Sorry, we can't find the page you are looking for.")
        revision, path = parts[at + 1], parts[at + 2 :]
        if revision == "refs" and len(path) > 2:
            revision, path = "/".join(["refs", *path[:2]]), path[2:]  # refs/pr/1 may come unquoted
        return self._file(request, self._readable(request, "/".join(parts[:at])), revision, "/".join(path))

    def _token(self, request: Record) -> str | None:
        """The bearer token, if it is a valid one."""
        kind, _, token = (request.authorization or "").partition(" ")
        return token if kind.lower() == "bearer" and token in self.tokens else None

    def _granted(self, request: Record, repo: HubRepo) -> bool:
        grants = self.tokens.get(self._token(request) or "", ())
        return ALL in grants or repo.id in grants

    def _visible(self, request: Record, id: str) -> HubRepo:
        """The repo, if the caller may know of it.

        Raises:
            Refusal: Missing or private: 401 without a token, 404 with one, as the live hub does. Renamed: a redirect.
        """
        repo = self.repos.get(id.lower())
        if repo is None and id.lower() in self.renamed:
            raise _moved(request, id, self.renamed[id.lower()])
        if repo is None or (repo.private and not self._granted(request, repo)):
            if self._token(request):
                raise Refusal(404, "Repository not found", "RepoNotFound")
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        if repo.id != id:
            raise _moved(request, id, repo.id)
        if repo.disabled:
            raise Refusal(403, "Access to this resource is disabled.")
        return repo

    def _readable(self, request: Record, id: str) -> HubRepo:
        """The repo, if the caller may have its files.

        Raises:
            Refusal: As `_visible`; gated: 401 without a token, 403 with one that was not approved.
        """
        repo = self._visible(request, id)
        if repo.gated and not self._granted(request, repo):
            start = f"Access to model {repo.id} is restricted"
            if self._token(request):
                raise Refusal(
                    403, f"{start} and you are not in the authorized list. Ask for access on its page.", "GatedRepo"
                )
            raise Refusal(
                401,
                f"{start}. You must have access to it and be authenticated to access it. Please log in.",
                "GatedRepo",
            )
        return repo

    @staticmethod
    def _commit(repo: HubRepo, revision: str) -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # -- files

    def _file(self, request: Record, repo: HubRepo, revision: str, path: str, *, direct: bool = False) -> Answer:
        """Answer a HEAD or GET of one file: small ones by content, LFS ones by a redirect to a signed URL."""
        commit = self._commit(repo, revision)
        blob = commit.files.get(path)
        request.label = f"{repo.id}/{path}"
        if blob is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.id})
        request.etag = blob.etag
        headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
        if self.mirror_etag is not None:
            etag = self.mirror_etag(repo, blob)
            if etag is not None:
                headers["ETag"] = etag
            return ranged(blob, request.range, {**headers, "Content-Type": "application/octet-stream"})
        if blob.lfs:
            if blob.sha256 in self.xet:
                headers["X-Xet-Hash"] = self.xet[blob.sha256]
                route = f"http://{request.headers.get('host', '')}/api/models/{repo.id}/xet-read-token/{commit.id}"
                headers["Link"] = f'<{route}>; rel="xet-auth"'
            body = b"Found. Redirecting"
            linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size), "ETag": f'"{blob.oid}"'}
            return Answer(
                302, {**headers, **linked, "Location": self.sign(repo, path, blob), "Content-Type": "text/plain"}, body
            )
        headers["ETag"] = f'"{blob.oid}"'
        if self.resolve_cache and not direct:
            target = f"/api/resolve-cache/models/{repo.id}/{commit.id}/{quote(path)}?etag={quote(headers['ETag'])}"
            return Answer(307, {**headers, "X-Linked-Size": str(blob.size), "Location": target}, b"Temporary Redirect")
        return ranged(blob, request.range, {**headers, "Content-Type": "text/plain; charset=utf-8"})

    def sign(self, repo: HubRepo, path: str, blob: Blob) -> str:
        """A URL on the CDN that is good for `signature_ttl_s`."""
        owner = hashlib.sha256(repo.id.encode()).hexdigest()
        place = f"/repos/{owner[:2]}/{owner[2:4]}/{owner}/{blob.sha256}"
        with self._lock:
            self._stored[place] = (f"{repo.id}/{path}", blob)
        # The generation makes `expire_signatures()` work without waiting.
        query = {"Expires": f"{time.time() + self.signature_ttl_s:.3f}", "Key-Pair-Id": f"K{self._generation}"}
        signed = {**query, "Signature": self._signature(place, query["Expires"], query["Key-Pair-Id"])}
        return f"{self.cdn_url}{place}?{urlencode({'response-content-disposition': 'inline', **signed})}"

    def _signature(self, place: str, expires: str, key: str) -> str:
        return hmac.new(self._secret, f"{place}\n{expires}\n{key}".encode(), hashlib.sha256).hexdigest()

    def expire_signatures(self) -> None:
        """Make every URL signed so far expire now."""
        self._generation += 1

    def answer_cdn(self, request: Record) -> Answer:
        """Answer one request to the CDN: bytes for a good signature, else 403. It knows no credentials and no repos."""
        url = urlsplit(request.target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        expires, key = query.get("Expires", "0"), query.get("Key-Pair-Id", "")
        label, blob = self._stored.get(url.path, ("", None))
        request.label, request.etag = label, blob.etag if blob else ""
        good = hmac.compare_digest(query.get("Signature", ""), self._signature(url.path, expires, key))
        if not good or float(expires) < time.time() or key != f"K{self._generation}":
            return Answer(403, {"Content-Type": "application/xml"}, EXPIRED)
        if blob is None:
            return Answer(404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>")
        return ranged(blob, request.range)

    # -- metadata

    def _whoami(self, request: Record) -> Answer:
        token = self._token(request)
        if token is None:
            raise Refusal(401, "Invalid username or password.")
        role = {"displayName": "tests", "role": "read"}
        return _json(
            {
                "type": "user",
                "name": token.removeprefix("hf_"),
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": role},
            }
        )

    def _model(self, request: Record, id: str, rest: Sequence[str]) -> Answer:
        query = request.query
        match rest:
            case ["auth-check", *_]:
                self._readable(request, id)
                return Answer(200, {"Content-Type": "text/plain"}, b"OK")
            case ["xet-read-token", revision]:
                self._commit(self._readable(request, id), revision)
                return _json({"accessToken": "xet-token", "exp": int(time.time()) + 3600, "casUrl": self.xet_url})
            case [] | ["revision", _]:
                repo = self._visible(request, id)
                commit = self._commit(repo, rest[1] if rest else "main")
                told = model_json(repo, commit, expand=query.get("expand"), blobs=_is_true(query, "blobs"))
                for sibling in () if "siblings" in repo.extra else told.get("siblings", ()):
                    if self.untold(repo, sibling["rfilename"]):
                        sibling.pop("blobId", None)
                        sibling.pop("lfs", None)
                return _json(told)
            case ["refs"]:
                repo = self._visible(request, id)
                heads = [
                    {"name": name, "ref": f"refs/heads/{name}", "targetCommit": at.id}
                    for name, at in repo.branches.items()
                ]
                return _json({"branches": heads, "tags": [], "converts": []})
            case ["tree", revision, *folder]:
                repo = self._visible(request, id)
                found = tree_json(
                    self._commit(repo, revision), "/".join(folder), recursive=_is_true(query, "recursive")
                )
                if found is None:
                    raise Refusal(404, "Entry not found", "EntryNotFound")
                return self._paged(request, found, 1000)
            case ["paths-info", revision] if request.method == "POST":
                repo = self._visible(request, id)
                commit = self._commit(repo, revision)
                return _json(paths_json(commit, _posted_paths(request)))
        raise Refusal(404, "Not Found")

    def _search(self, request: Record) -> Answer:
        """The list of models: every word of `search` in the id, every `filter` among the tags."""
        query = request.query
        words = " ".join(query.get("search", [])).lower().split()
        wanted = {tag for each in query.get("filter", []) for tag in each.split(",")} | set(
            query.get("pipeline_tag", [])
        )
        author = query.get("author", [""])[-1].lower()
        found = [
            repo
            for repo in list(self.repos.values())
            if not (repo.private and not self._granted(request, repo))
            and not repo.disabled
            and all(word in repo.id.lower() for word in words)
            and wanted <= {*repo.tags, repo.pipeline_tag}
            and (not author or repo.id.lower().startswith(f"{author}/"))
        ]
        keys: dict[str, Callable[[HubRepo], Any]] = {
            "downloads": lambda repo: repo.downloads or 0,
            "likes": lambda repo: repo.likes or 0,
            "lastModified": lambda repo: repo.last_modified,
            "createdAt": lambda repo: repo.created_at,
            "trendingScore": lambda repo: repo.likes or 0,
        }
        sort = query.get("sort", ["trendingScore"])[-1]
        if sort not in keys:
            raise Refusal(400, f'Invalid enum value for "sort": {sort}')
        found.sort(key=lambda repo: repo.id)
        found.sort(key=keys[sort], reverse=query.get("direction", ["-1"])[-1] != "1")
        expand, full = query.get("expand"), _is_true(query, "full")
        rows = [model_json(repo, repo.main, expand=expand, brief=not full) for repo in found]
        return self._paged(request, rows, int(query.get("limit", ["1000"])[-1]))

    def _paged(self, request: Record, rows: list[Any], limit: int) -> Answer:
        """One page of `rows`, with the `Link` to the next."""
        size = max(min(limit, self.page_size), 1)
        start = int(request.query.get("cursor", ["0"])[-1])
        answer = _json(rows[start : start + size])
        if start + size < len(rows):
            url = urlsplit(request.target)
            query = {**parse_qs(url.query, keep_blank_values=True), "cursor": [str(start + size)]}
            base = f"http://{request.headers.get('host', '')}{url.path}"
            answer.headers["Link"] = f'<{base}?{urlencode(query, doseq=True)}>; rel="next"'
        return answer


def _posted_paths(request: Record) -> list[str]:
    """`paths` of a form (the Python library) or of JSON (the JS client)."""
    if "json" in request.headers.get("content-type", ""):
        said = json.loads(request.body or b"{}").get("paths", [])
    else:
        said = parse_qs(request.body.decode(), keep_blank_values=True).get("paths", [])
    return [said] if isinstance(said, str) else list(said)


def _moved(request: Record, old: str, new: str) -> Refusal:
    """The redirect from another spelling, or an old name, of a repo."""
    return Refusal(307, f"Moved to {new}", headers={"Location": request.target.replace(old, new, 1)})


def _json(value: Any) -> Answer:
    return Answer(200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(value).encode())


def _is_true(query: dict[str, list[str]], name: str) -> bool:
    return query.get(name, ["false"])[-1].lower() in ("true", "1")
