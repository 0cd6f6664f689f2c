"""Models that are whole in the cache and belong to none we hold: the library fetched them, or we did for a lost router.

Looks at names, links and lengths only; content is checked when somebody adopts a model. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from modelhub_tui.identifiers import is_blob_id, is_blob_name, is_commit, is_sha256, safe_repo_path
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.manifest import File
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

    def as_wire(self, cache: Cache) -> dict[str, Any]:
        """As a heartbeat carries it (docs/wire.md)."""
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
            "paths": [str(cache.path_of(file)) for file in self.files],
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

    def scan(self) -> None:
        """Look at the cache again. A repo in which nothing seems to have changed costs a few `stat` calls."""
        closer = self._scans % _LOOK_CLOSER_EVERY == 0
        self._scans += 1
        read: dict[str, tuple[object, tuple[Group, ...]]] = {}
        for home in self._homes():
            signature = _signature(home)
            before = self._read.get(home.name)
            if before is not None and before[0] == signature and not closer:
                read[home.name] = before
                continue
            try:
                read[home.name] = (signature, tuple(_groups_of(self._cache, home)))
            except OSError as error:
                log.info("%s cannot be read: %s", home.name, error)
        self._read = read
        self.groups = tuple(_within_limits(group for _, groups in read.values() for group in groups))

    def forget(self, repos: Collection[str]) -> None:
        """Files of these repos went: show nothing of them before they have been looked at again."""
        self.groups = tuple(group for group in self.groups if group.repo not in repos)
        for repo in repos:
            self._read.pop(self._cache.repo_dir(repo).name, None)

    def report(self, held: Iterable[File]) -> list[dict[str, Any]]:
        """What a heartbeat tells.

        Args:
            held: Files of the models that we hold or fetch; their models are not found but known.
        """
        known = {(file.repo, file.etag) for file in held}
        return [
            group.as_wire(self._cache)
            for group in self.groups
            if not any((group.repo, etag) in known for etag in group.weights)
        ]

    def _homes(self) -> list[Path]:
        try:
            with os.scandir(self._cache.root) as entries:
                names = sorted(each.name for each in entries if each.name.startswith("models--") and each.is_dir())
        except OSError:
            return []  # no cache yet, or not ours to read
        return [self._cache.root / name for name in names]


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


def _signature(home: Path) -> object:
    """Changes when a blob or a file at the top of a snapshot comes or goes, or a branch moves."""
    found = []
    for folder in (home, home / "blobs", home / "refs", home / "snapshots"):
        with contextlib.suppress(OSError):
            found.append((folder.name, folder.stat().st_mtime_ns))
    with contextlib.suppress(OSError), os.scandir(home / "snapshots") as entries:
        found += sorted((each.name, each.stat().st_mtime_ns) for each in entries)
    with contextlib.suppress(OSError):
        found.append(("main", (home / "refs" / "main").stat().st_mtime_ns))
    return found


def _groups_of(cache: Cache, home: Path) -> Iterator[Group]:
    """The models of one repo. Of the same file in several snapshots, the one `main` is at counts, else the newest."""
    repo = home.name.removeprefix("models--").replace("--", "/", 1)
    try:
        safe_repo_path(repo)
        snapshots = [each for each in (home / "snapshots").iterdir() if is_commit(each.name) and each.is_dir()]
    except (OSError, ValueError):
        return
    main = ""
    with contextlib.suppress(OSError, ValueError):
        main = (home / "refs" / "main").read_text().strip()
    seen: set[str] = set()
    for snapshot in sorted(snapshots, key=lambda each: (each.name != main, -each.stat().st_mtime)):
        files = _files_of(cache, repo, snapshot)
        for paths, weights in _models(files, snapshot):
            first = paths[0] if not weights else min(weights)
            if first not in seen:
                seen.add(first)
                etags = frozenset(files[path].etag or "" for path in weights)
                yield Group(repo, snapshot.name, tuple(files[path] for path in paths), etags)


def _files_of(cache: Cache, repo: str, snapshot: Path) -> dict[str, File]:
    """The whole files of a snapshot, by path: links into this repo's blobs.

    A blob whose name is no checksum came from a mirror that gives none: such a file can be adopted, but not verified.
    What a user linked from elsewhere is not the cache's to give away; what is shorter or longer than the library's own
    notes say was never finished.
    """
    blobs = os.path.normpath(cache.repo_dir(repo) / "blobs")
    root = os.path.join(os.path.realpath(cache.root), "")  # noqa: PTH118 - a prefix with its slash
    sizes = _noted_sizes(cache.repo_dir(repo) / "trees" / f"{snapshot.name}.json")
    files: dict[str, File] = {}
    for folder, _, names in os.walk(snapshot):
        for name in sorted(names):
            link = Path(folder) / name
            try:
                path = safe_repo_path(link.relative_to(snapshot).as_posix())
                hop = Path(os.path.normpath(link.parent / link.readlink()))
                if str(hop.parent) != blobs or not is_blob_name(hop.name):
                    continue
                size = hop.stat().st_size
                if hop.is_symlink() and not os.path.realpath(hop).startswith(root):
                    continue
            except (OSError, ValueError):
                continue  # no link, leads nowhere, or has a name that no repo file may have
            if size and sizes.get(path, size) == size:
                files[path] = File(repo, snapshot.name, path, size, hop.name, commit=snapshot.name)
    return files


def _noted_sizes(path: Path) -> dict[str, int]:
    """Lengths by path, as far as the library noted them when it listed the repo."""
    told = _json(path)
    listed = told.get("files") if isinstance(told, dict) else None
    if not isinstance(listed, dict):
        return {}
    sizes = {}
    for name, each in listed.items():
        size = (each.get("lfs_size") or each.get("size")) if isinstance(each, dict) else None
        if type(size) is int:
            sizes[name] = size
    return sizes


def _models(files: dict[str, File], snapshot: Path) -> Iterator[tuple[list[str], list[str]]]:
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
        elif int(match["number"]) == 1:
            shards = _shards(match)
            if all(each in files for each in shards):
                yield shards, shards
    weights = [path for path in rest if _WEIGHTS.search(path)]
    configured = any(path.rsplit("/", 1)[-1] in _CONFIGS for path in rest)
    if not configured:
        # One file of a larger whole, such as another model's VAE, or a checkpoint that a catalog knows to be enough.
        yield from (([path], []) for path in weights if not _SHARD.match(path))
    elif weights and _complete(rest, weights, snapshot):
        yield [path for path in rest if path in weights or _SUPPORT.search(path)], weights


def _shards(match: re.Match[str]) -> list[str]:
    count = min(int(match["count"]), 10_000)
    return [f"{match['stem']}-{number:05}-of-{match['count']}{match['suffix']}" for number in range(1, count + 1)]


def _complete(files: dict[str, File], weights: list[str], snapshot: Path) -> bool:
    """Whether every shard is here that a name or an index speaks of."""
    spoken_of: set[str] = set()
    for path in files:
        if path.endswith((".safetensors.index.json", ".bin.index.json")):
            told = _json(snapshot / path)
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
    shards = [match for path in weights if path not in spoken_of and (match := _SHARD.match(path))]
    return all(each in files for match in shards for each in _shards(match))


def _json(path: Path) -> object:
    try:
        if path.stat().st_size > _MAX_NOTES_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
