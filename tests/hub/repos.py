"""The hub's repos: files by branch and commit, and who may see them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tests.hub.blobs import MIB, Blob, Generated, Source

LFS_SUFFIXES = (".gguf", ".safetensors", ".bin", ".onnx", ".pt", ".pth", ".npz", ".h5", ".model")
"""What the live hub's default .gitattributes sends to LFS, as far as models go."""
LFS_OVER_BYTES = 10 * MIB
"""Larger files must be LFS on the live hub, whatever their name."""

Gated = Literal[False, "auto", "manual"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One state of a repo."""

    id: str
    """40 hex digits."""
    files: Mapping[str, Blob]


def _head_of(path: str, size: int) -> bytes:
    """The first bytes of a file of this name: a GGUF's mark, the length of a safetensors' header."""
    if path.lower().endswith(".gguf"):
        return b"GGUF"[:size]
    return (size // 2).to_bytes(8, "little")[:size] if path.lower().endswith(".safetensors") else b""


class HubRepo:
    """One model repo. Tests change it while it is served: `commit()`, `move()`, or any public attribute."""

    def __init__(
        self,
        id: str,
        files: Mapping[str, Source] | None = None,
        *,
        gated: Gated = False,
        private: bool = False,
        disabled: bool = False,
        downloads: int | None = 0,
        likes: int | None = 0,
        tags: Iterable[str] = (),
        pipeline_tag: str | None = None,
        revisions: Mapping[str, Mapping[str, Source]] | None = None,
        commit_id: str | None = None,
        lfs_over_bytes: int = LFS_OVER_BYTES,
        lfs_suffixes: tuple[str, ...] = LFS_SUFFIXES,
        created_at: str = "2026-01-01T00:00:00.000Z",
        last_modified: str = "2026-02-03T04:05:06.000Z",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a repo whose branch `main` holds `files`.

        Args:
            id: `owner/name`.
            files: Content by path in the repo; the path is served as given, also when it is hostile.
            downloads: Of the last 30 days; None leaves the member out, as the live hub sometimes does. `likes` too.
            revisions: Further branches or tags and the files they hold.
            commit_id: The commit `main` points at; made from the content if None.
            lfs_over_bytes: Size above which any file is LFS; `lfs_suffixes` are LFS at any size.
            extra: Further members of the model's JSON (`cardData`, `gguf`, `library_name`, ...).
        """
        self.id = id
        self.gated: Gated = gated
        self.private = private
        self.disabled = disabled
        self.downloads = downloads
        self.likes = likes
        self.tags = tuple(tags)
        self.pipeline_tag = pipeline_tag
        self.lfs_over_bytes = lfs_over_bytes
        self.lfs_suffixes = lfs_suffixes
        self.created_at = created_at
        self.last_modified = last_modified
        self.extra = dict(extra or {})
        self.branches: dict[str, Commit] = {}
        """Branches and tags; `main` is always there."""
        self.commits: dict[str, Commit] = {}
        """All commits ever made, by id: a pinned revision stays valid after the branch moved on."""
        self._lock = threading.Lock()
        self.commit(files or {}, commit_id=commit_id)
        for name, content in (revisions or {}).items():
            self.commit(content, branch=name)

    def __repr__(self) -> str:
        return f"HubRepo({self.id!r})"

    @property
    def main(self) -> Commit:
        """What `main` points at."""
        return self.branches["main"]

    @property
    def sha(self) -> str:
        """Commit id of `main`."""
        return self.main.id

    def __getitem__(self, path: str) -> Blob:
        """The file of `main` at `path`, with its `size`, `sha256`, `etag`, `read()`."""
        return self.main.files[path]

    def commit(self, files: Mapping[str, Source], *, branch: str = "main", commit_id: str | None = None) -> str:
        """Point `branch` at a new commit that holds exactly `files`; return its id.

        Giving an existing `commit_id` changes what that commit holds: git never does, a broken upstream may.
        """
        blobs = {
            path: source if isinstance(source, Blob) else self._blob(path, source) for path, source in files.items()
        }
        with self._lock:
            made = Commit(commit_id or self._commit_id(branch, blobs), blobs)
            self.branches[branch] = self.commits[made.id] = made
        return made.id

    def change(self, path: str, source: Source) -> str:
        """Commit another content for one file of `main`; return the new commit's id."""
        return self.commit({**self.main.files, path: source})

    def move(self, old: str, new: str) -> str:
        """Rename one file on `main`; return the new commit's id."""
        files = dict(self.main.files)
        files[new] = files.pop(old)
        return self.commit(files)

    def remove(self, path: str) -> str:
        """Remove one file from `main`; return the new commit's id."""
        return self.commit({name: blob for name, blob in self.main.files.items() if name != path})

    def at(self, revision: str) -> Commit | None:
        """Find a commit by branch, tag, `HEAD` or full id; None if there is none."""
        with self._lock:
            return self.branches.get("main" if revision == "HEAD" else revision) or self.commits.get(revision)

    def _blob(self, path: str, source: Source) -> Blob:
        if isinstance(source, Generated) and not source.head:
            # Noise under a model's name begins as such a file does: what does not is no model.
            source = replace(source, head=_head_of(path, source.size))
        small = Blob.of(source, lfs=False)
        return (
            Blob.of(source, lfs=True)
            if path.lower().endswith(self.lfs_suffixes) or small.size > self.lfs_over_bytes
            else small
        )

    def _commit_id(self, branch: str, blobs: Mapping[str, Blob]) -> str:
        """The same id in every run for the same content, without hashing big files."""
        digest = hashlib.sha1(f"{self.id}\n".encode())
        for path, blob in sorted(blobs.items()):
            source = blob.source
            if isinstance(source, Generated):
                mark = f"{source.size} {source.seed}".encode() + source.head
            elif isinstance(source, Path):
                mark = f"{source.name} {blob.size}".encode()
            else:
                mark = source
            digest.update(f"{path}\n".encode("utf-8", "surrogatepass") + hashlib.sha1(mark).digest())
        return digest.hexdigest()
