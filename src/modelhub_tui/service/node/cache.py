"""The HuggingFace cache on disk: where files go, how they are published, and what is there.

Layout, as `huggingface_hub` 2.4 writes and scans it:
`models--owner--name/{blobs/<etag>, snapshots/<commit>/<path> -> ../../blobs/<etag>, refs/main}`, locks under `.locks/`.
A blob's name is its checksum (what the real hub's etag is), or `unverified-…` where nobody tells one.
An unfinished file is `blobs/<etag>.modelhub.part`: the name contains the content's checksum, so it can only ever belong
to those bytes (and `hf cache prune`, which deletes every `*.incomplete`, leaves it alone).
While its bytes come over several connections it has gaps, and `blobs/<etag>.modelhub.map` beside it says which.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from pathlib import Path

from modelhub_tui.identifiers import is_blob_name, is_checksum
from modelhub_tui.service.node.chunkmap import mapped_bytes, new_map
from modelhub_tui.service.node.manifest import File

PART_SUFFIX = ".modelhub.part"
MAP_SUFFIX = ".modelhub.map"
TRASH_SUFFIX = ".modelhub.trash"
"""A blob of a deleted model that can be had back; see `trash.py`."""
_LOCK_WAIT_S = 5.0
_NO_SYMLINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory holds HuggingFace models; backups may skip it.\n"


class Cache:
    """One HuggingFace cache folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def repo_dir(self, repo: str) -> Path:
        """`repo` is `owner/name`, already checked."""
        return self.root / f"models--{repo.replace('/', '--')}"

    def blob(self, repo: str, etag: str) -> Path:
        return self.repo_dir(repo) / "blobs" / etag

    def part(self, repo: str, etag: str) -> Path:
        return self.repo_dir(repo) / "blobs" / (etag + PART_SUFFIX)

    def map(self, repo: str, etag: str) -> Path:
        """Beside a part that has gaps: which of its bytes are there (`chunkmap.py`)."""
        return self.repo_dir(repo) / "blobs" / (etag + MAP_SUFFIX)

    def drop_part(self, repo: str, etag: str) -> None:
        """Remove an unfinished file. Its map goes last: a part with gaps must not be found without it."""
        self.part(repo, etag).unlink(missing_ok=True)
        for each in (self.map(repo, etag), new_map(self.map(repo, etag))):
            each.unlink(missing_ok=True)

    def trashed(self, repo: str, etag: str) -> Path:
        return self.repo_dir(repo) / "blobs" / (etag + TRASH_SUFFIX)

    def link(self, repo: str, commit: str, path: str) -> Path:
        """Where engines find a file. `path` has been through `safe_repo_path`."""
        return self.repo_dir(repo) / "snapshots" / commit / path

    def path_of(self, file: File) -> Path:
        return self.link(file.repo, file.commit or file.revision, file.path)

    def prepare(self, repo: str, commit: str) -> None:
        """Make a repo's folders. Snapshots come first: a repo with blobs alone is called corrupt by a scan."""
        new = not self.root.exists()
        self.root.mkdir(parents=True, exist_ok=True)
        if new:
            with contextlib.suppress(OSError):
                (self.root / "CACHEDIR.TAG").write_text(_TAG)
        (self.repo_dir(repo) / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (self.repo_dir(repo) / "blobs").mkdir(exist_ok=True)

    def part_bytes(self, file: File) -> int:
        """Bytes of an unfinished file that are on disk; 0 without one."""
        with contextlib.suppress(OSError):
            if file.etag:
                length = self.part(file.repo, file.etag).stat().st_size
                mapped = mapped_bytes(self.map(file.repo, file.etag), length)
                return length if mapped is None else mapped
        return 0

    def is_whole(self, file: File) -> bool:
        """Whether the file is where engines look for it, with the right length. Cheap: reads no content."""
        if file.commit is None or file.size is None:
            return False
        try:
            return self.path_of(file).stat().st_size == file.size
        except OSError:
            return False

    def linked_name(self, file: File) -> str | None:
        """Name of this repo's blob that a file's link leads to, unless it is a checksum: nobody has compared that."""
        link = self.path_of(file)
        with contextlib.suppress(OSError):
            blob = Path(os.path.normpath(link.parent / link.readlink()))
            if blob.parent == Path(os.path.normpath(self.repo_dir(file.repo) / "blobs")):
                return blob.name if is_blob_name(blob.name) and not is_checksum(blob.name) else None
        return None

    def publish(self, file: File, fd: int) -> None:
        """Turn a verified part into a blob and link it. `fd` is the open part.

        The library's lock is taken as a courtesy to a library call fetching the same file, but not waited for long:
        that call ends with the same bytes under the same name, and both replace atomically.
        """
        from filelock import FileLock, Timeout

        assert file.etag
        os.fsync(fd)
        # Before the part is the blob: killed in between, we leave nothing over, and a whole part needs no map.
        self.map(file.repo, file.etag).unlink(missing_ok=True)
        blob = self.blob(file.repo, file.etag)
        lock_path = self.root / ".locks" / blob.parent.parent.name / f"{file.etag}.lock"
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            with contextlib.suppress(Timeout, NotImplementedError):
                held.enter_context(FileLock(lock_path, timeout=_LOCK_WAIT_S, mode=0o664))
            self.part(file.repo, file.etag).replace(blob)
            sync_dir(blob.parent)
        self.make_link(file)

    def make_link(self, file: File) -> None:
        """Put the file into its snapshot: a relative link, as the library makes it; replaced atomically."""
        assert file.etag
        link, blob = self.path_of(file), self.blob(file.repo, file.etag)
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(blob, link.parent)
        if link.is_symlink() and str(link.readlink()) == target:
            return
        # The same name each time: what a killed process left of it is replaced by the next.
        temporary = link.with_name(f".{hashlib.blake2b(link.name.encode(), digest_size=6).hexdigest()}.modelhub.tmp")
        try:
            if os.path.lexists(link):
                temporary.unlink(missing_ok=True)
                temporary.symlink_to(target)
                temporary.replace(link)
            else:
                link.symlink_to(target)
        except OSError as error:
            if error.errno not in _NO_SYMLINKS:
                raise
            blob.replace(link)  # no links on this file system: the library, too, then keeps the file in the snapshot
        sync_dir(link.parent)

    def write_ref(self, repo: str, ref: str, commit: str) -> None:
        """Remember which commit a branch is at, as the library does, so that it finds the files offline."""
        path = self.repo_dir(repo) / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.write_text(commit)
        temporary.replace(path)

    def usage(self) -> tuple[int, int]:
        """Free and total bytes of the file system the cache is on, or will be on."""
        for folder in (self.root, *self.root.parents):
            with contextlib.suppress(OSError):
                told = shutil.disk_usage(folder)
                return told.free, told.total
        return 0, 0


def sync_dir(path: Path) -> None:
    """Make a rename last over a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
