"""Models that are whole in the cache and belong to none we hold: the library fetched them, or we did for a lost router.

Looks at names, links, lengths and first bytes (a git-lfs pointer is no model); all of the content is checked when
somebody adopts a model. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from modelhub_tui.identifiers import (
    BadIdentifier,
    OutsideError,
    is_blob_id,
    is_blob_name,
    is_checksum,
    is_commit,
    is_sha256,
    safe_repo_path,
)
from modelhub_tui.net import loads
from modelhub_tui.service.node import contents
from modelhub_tui.service.node.cache import Cache, repo_of
from modelhub_tui.service.node.folders import Folder
from modelhub_tui.service.node.manifest import File, unverifiable_name
from modelhub_tui.service.node.removal import read_ref
from modelhub_tui.small_files import read_small
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

MAX_GROUPS = 500
MAX_FILES = 2000
"""Most files of one model."""
_MAX_ALL_FILES = 10_000
_MAX_REPO = 200
_LOOK_CLOSER_EVERY = 10
"""A folder's time tells of new names in it, but not in the folders below: now and then every repo is read again."""
_MAX_NOTES_BYTES = 16 * 1024 * 1024
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.[a-z]+)\Z", re.IGNORECASE)
_COMPANION = re.compile(r"(^|[-_./])mmproj", re.IGNORECASE)
_NO_MODEL = re.compile(r"(^|[-_./])imatrix", re.IGNORECASE)
_GGML = re.compile(r"(^|/)ggml-[^/]*\.bin\Z")
_WEIGHTS = re.compile(r"(\.safetensors|\.onnx|(^|/)pytorch_model[^/]*\.bin)\Z", re.IGNORECASE)
_SUPPORT = re.compile(
    r"(\.json|\.txt|\.model|\.jinja|\.tiktoken|\.vocab|\.bpe|\.py|\.spm|\.onnx_data(_[0-9]+)?|\.onnx\.data)\Z",
    re.IGNORECASE,
)
_CONFIGS = ("config.json", "model_index.json", "params.json")
"""One of these makes a folder of weights a model."""


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one model in one snapshot."""

    repo: str
    commit: str
    files: tuple[File, ...]
    weights: frozenset[str]
    """Etags of what makes it this model; empty for what any number of models may share beside their own files."""
    places: frozenset[str] = frozenset()
    """Paths of those of its weights that are no links: their content has no name, so their place stands for it."""

    def as_wire(self, paths: Iterable[str] = ()) -> dict[str, Any]:
        """As a heartbeat carries it (docs/wire.md); without places, where it is in the trash."""
        return {
            "repo": self.repo,
            "revision": self.commit,
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "sha256": file.etag if is_sha256(file.etag) else None,
                    "blob_id": file.etag if is_blob_id(file.etag) else None,
                }
                for file in self.files
            ],
            "paths": [*paths],
        }


class Finder:
    """Keeps an eye on one cache folder."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._read: dict[str, tuple[object, tuple[Group, ...]]] = {}
        """(what told that nothing has changed, groups) by the repo's folder name"""
        self._scans = 0
        self.groups: tuple[Group, ...] = ()
        """Replaced as a whole, so that anybody may read it at any time."""
        self._wire: tuple[tuple[Group, dict[str, Any]], ...] = ()
        """The groups with what is told of them: made by who scans, as heartbeats must not take long."""

    def scan(self) -> None:
        """Look at the cache again. A repo in which nothing seems to have changed costs a few `stat` calls.

        Raises:
            OSError: It cannot be looked at; what was found before stands.
        """
        closer = self._scans % _LOOK_CLOSER_EVERY == 0
        self._scans += 1
        read: dict[str, tuple[object, tuple[Group, ...]]] = {}
        for name in self._names():
            repo = repo_of(name)
            if repo is None:
                continue
            try:
                with self._cache.home(repo) as home:
                    signature = _signature(home)
                    before = self._read.get(name)
                    if before is not None and before[0] == signature and not closer:
                        read[name] = before
                    else:
                        read[name] = (signature, tuple(_groups_of(self._cache, repo, home)))
            except OSError as error:
                log.info("%s cannot be read: %s", name, error)
        self._read = read
        self._show(_within_limits(group for _, groups in read.values() for group in groups))

    def forget(self, repos: Collection[str]) -> None:
        """Files of these repos went: show nothing of them before they have been looked at again."""
        self._show(group for group in self.groups if group.repo not in repos)
        for repo in repos:
            self._read.pop(self._cache.repo_dir(repo).name, None)

    def report(self, held: Iterable[File]) -> list[dict[str, Any]]:
        """What a heartbeat tells.

        Args:
            held: Files of the models that we hold or fetch; their models are not found but known.
        """
        known: set[tuple[str | None, ...]] = set()
        for file in held:
            known |= {(file.repo, file.etag), (file.repo, file.commit, file.path)}
        return [
            wire
            for group, wire in self._wire
            if not any((group.repo, etag) in known for etag in group.weights)
            and not any((group.repo, group.commit, path) in known for path in group.places)
        ]

    def _show(self, groups: Iterable[Group]) -> None:
        before = {id(group): wire for group, wire in self._wire}
        self._wire = tuple((group, before.get(id(group)) or self._told(group)) for group in groups)
        self.groups = tuple(group for group, _ in self._wire)

    def _told(self, group: Group) -> dict[str, Any]:
        return group.as_wire(str(self._cache.path_of(file)) for file in group.files)

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._cache.root) as entries:
                return sorted(each.name for each in entries if each.name.startswith("models--") and each.is_dir())
        except FileNotFoundError:
            return []  # no cache yet


def as_deleted(name: str, registration: str | None, files: tuple[File, ...]) -> dict[str, Any] | None:
    """A deleted model as a heartbeat carries it; None where one item cannot say all of it."""
    first = files[0] if files else None
    if first is None or first.commit is None or len(files) > MAX_FILES or registration is None:
        return None
    if any((file.repo, file.commit) != (first.repo, first.commit) or file.size is None for file in files):
        return None
    told = Group(first.repo, first.commit, files, frozenset()).as_wire()
    return {**told, "deleted_as": name, "registration": registration}


def _within_limits(groups: Iterable[Group]) -> Iterator[Group]:
    """As many as a heartbeat may carry: the router refuses one that is too large, and would hear nothing at all."""
    count = files = 0
    for group in groups:
        size = len(group.files)
        if size <= MAX_FILES and len(group.repo) <= _MAX_REPO and files + size <= _MAX_ALL_FILES:
            yield group
            count, files = count + 1, files + size
            if count == MAX_GROUPS:
                return


def _signature(home: Folder) -> object:
    """Changes when a blob or a file at the top of a snapshot comes or goes, or a branch moves."""
    found: list[tuple[str, int]] = [("", os.fstat(home.fd).st_mtime_ns)]
    with contextlib.suppress(OSError):
        found.append(("blobs", os.stat("blobs", dir_fd=home.fd).st_mtime_ns))
    for name in ("refs", "snapshots"):
        with contextlib.suppress(OSError), home.enter(name) as folder:
            found.append((name, os.fstat(folder.fd).st_mtime_ns))
            inner = folder.names()[0] if name == "snapshots" else ["main"]
            for each, told in ((each, folder.lstat(each)) for each in inner):
                if told is not None:
                    found.append((each, told.st_mtime_ns))
    return found


def _groups_of(cache: Cache, repo: str, home: Folder) -> Iterator[Group]:
    """The models of one repo. Of the same file in several snapshots, the one `main` is at counts, else the newest."""
    main, changed = None, {}
    with contextlib.suppress(OSError), home.enter("refs") as refs:
        main = read_ref(refs, "main")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, OutsideError), home.enter("snapshots") as snapshots:
        for commit in filter(is_commit, snapshots.names()[0]):
            told = snapshots.lstat(commit)
            changed[commit] = 0.0 if told is None else told.st_mtime
    seen: set[str] = set()
    for commit in sorted(changed, key=lambda each: (each != main, -changed[each])):
        files = _files_of(cache, home, repo, commit)
        for paths, weights in _models(files, cache):
            first = paths[0] if not weights else min(weights)
            if first not in seen:
                seen.add(first)
                etags = frozenset(files[path].etag or "" for path in weights)
                places = frozenset(path for path in weights if not is_checksum(files[path].etag))
                yield Group(repo, commit, tuple(files[path] for path in paths), etags, places)


def _files_of(cache: Cache, home: Folder, repo: str, commit: str) -> dict[str, File]:
    """The whole files of a snapshot, by path: links into this repo's blobs, or the files themselves.

    The library puts these there where it makes no links (`HF_HUB_DISABLE_SYMLINKS`, Windows shares). Such a file has no
    name that tells its content, unless it is a second name of a blob: adopting it asks the hub for its checksum.
    A blob whose name is no checksum came from a mirror that gives none: such a file can be adopted, but not verified.
    What a user linked from elsewhere is not the cache's to give away; what is shorter or longer than the library's own
    notes say was never finished.
    """
    root = os.path.join(os.path.realpath(cache.root), "")  # noqa: PTH118 - a prefix with its slash
    sizes = _noted_sizes(home, commit)
    files: dict[str, File] = {}
    try:
        snapshot = home.enter("snapshots", commit)
    except (FileNotFoundError, NotADirectoryError, OutsideError):
        return files
    linked: dict[tuple[int, int], str] | None = None
    with snapshot:
        for where, folder, names in snapshot.walk():
            for name in names:
                try:
                    path = safe_repo_path("/".join((*where, name)))
                    target = folder.target(name)
                    etag = cache.blob_behind(repo, (commit, *where), target)
                    if etag is not None:
                        blob = cache.blob(repo, etag)
                        told = blob.stat()
                        if blob.is_symlink() and not os.path.realpath(blob).startswith(root):
                            continue
                    elif target is None and (entry := folder.lstat(name)) is not None:
                        told, blob = entry, cache.link(repo, commit, path)
                        if told.st_nlink > 1 and linked is None:
                            linked = _blobs_with_other_names(home)
                        etag = (linked or {}).get((told.st_dev, told.st_ino)) or unverifiable_name(commit, path)
                    else:
                        continue  # a link to a file of the user's own
                except (OSError, BadIdentifier):
                    continue  # leads nowhere, or has a name that no repo file may have
                size = told.st_size
                plain = stat.S_ISREG(told.st_mode) and 0 < size < 2**53 and sizes.get(path, size) == size
                if plain and contents.trouble_at(path, blob) is None:
                    files[path] = File(repo, commit, path, size, etag, commit=commit)
    return files


def _blobs_with_other_names(home: Folder) -> dict[tuple[int, int], str]:
    """Names of blobs that have hard links, by what tells files apart."""
    found = {}
    with contextlib.suppress(OSError), home.enter("blobs") as blobs:
        for name in filter(is_blob_name, blobs.names()[1]):
            told = blobs.lstat(name)
            if told is not None and told.st_nlink > 1 and stat.S_ISREG(told.st_mode):
                found[told.st_dev, told.st_ino] = name
    return found


def _noted_sizes(home: Folder, commit: str) -> dict[str, int]:
    """Lengths by path, as far as the library noted them when it listed the repo."""
    told = None
    with contextlib.suppress(OSError), home.enter("trees") as trees:
        told = _json(trees.read(f"{commit}.json", _MAX_NOTES_BYTES))
    listed = told.get("files") if isinstance(told, dict) else None
    if not isinstance(listed, dict):
        return {}
    sizes = {}
    for name, each in listed.items():
        size = (each.get("lfs_size") or each.get("size")) if isinstance(each, dict) else None
        if type(size) is int:
            sizes[name] = size
    return sizes


def _models(files: dict[str, File], cache: Cache) -> Iterator[tuple[list[str], list[str]]]:
    """(paths, those of them that are weights) of each model that is whole; a part of one has no weights."""
    rest = dict(files)
    for path in files:
        name = path.rsplit("/", 1)[-1]
        single = path.lower().endswith(".gguf") or _GGML.search(path)
        if not single:
            continue
        rest.pop(path)
        if _NO_MODEL.search(name):
            continue
        if _COMPANION.search(name):
            yield [path], []
            continue
        match = _SHARD.match(path)
        if match is None:
            yield [path], [path]
        elif int(match["number"]) == 1 and all(each in files for each in _shards(match)):
            shards = [*_shards(match)]
            yield shards, shards
    weights = [path for path in rest if _WEIGHTS.search(path)]
    configured = any(path.rsplit("/", 1)[-1] in _CONFIGS for path in rest)
    if not configured:
        # One file of a larger whole, such as another model's VAE, or a checkpoint that a catalog knows to be enough.
        yield from (([path], []) for path in weights if not _SHARD.match(path))
    elif weights and _complete(rest, weights, cache):
        yield [path for path in rest if path in weights or _SUPPORT.search(path)], weights


def _shards(match: re.Match[str]) -> Iterator[str]:
    """Names of all the shards that one's name speaks of; one after the other, as it may speak of 99,999."""
    for number in range(1, int(match["count"]) + 1):
        yield f"{match['stem']}-{number:05}-of-{match['count']}{match['suffix']}"


def _complete(files: dict[str, File], weights: list[str], cache: Cache) -> bool:
    """Whether every shard is here that a name or an index speaks of."""
    spoken_of: set[str] = set()
    for path, file in files.items():
        if path.endswith((".safetensors.index.json", ".bin.index.json")):
            told = None
            with contextlib.suppress(OSError):
                blob = cache.blob(file.repo, file.etag or "")
                if blob.exists():
                    told = _json(read_small(blob, _MAX_NOTES_BYTES, follow_links=True))
                else:
                    with cache.snapshot(file) as inside:
                        told = _json(inside.read(path.rpartition("/")[2], _MAX_NOTES_BYTES))
            spoken = told.get("weight_map") if isinstance(told, dict) else None
            names = set(map(str, spoken.values())) if isinstance(spoken, dict) else set()
            folder = path.rpartition("/")[0]
            there = [f"{folder}/{name}" if folder else name for name in names]
            # An index whose every shard is missing belongs to another format of the same model, not fetched.
            found = [each in files for each in there]
            if any(found) and not all(found):
                return False
            spoken_of.update(there)
    # Names are asked only where no index tells: some count from 0, some from 1.
    shards = (match for path in weights if path not in spoken_of and (match := _SHARD.match(path)))
    sets = {(match["stem"], match["count"], match["suffix"]): match for match in shards}
    return all(each in files for match in sets.values() for each in _shards(match))


def _json(raw: bytes) -> object:
    try:
        return loads(raw, _MAX_NOTES_BYTES)
    except ValueError:
        return None
