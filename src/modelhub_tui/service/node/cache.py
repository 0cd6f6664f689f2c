"""The HuggingFace cache on disk: where files go, how they are published, and what is there.

Layout, as `huggingface_hub` 2.4 writes and scans it:
`models--owner--name/{blobs/<etag>, snapshots/<commit>/<path> -> ../../blobs/<etag>, refs/main}`, locks under `.locks/`.
A blob's name is its checksum (what the real hub's etag is), or `unverified-…` where nobody tells one.
An unfinished file is `blobs/<etag>.modelhub.part`: the name contains the content's checksum, so it can only ever belong
to those bytes (and `hf cache prune`, which deletes every `*.incomplete`, leaves it alone).
While its bytes come over several connections it has gaps, and `blobs/<etag>.modelhub.map` beside it says which.

Links: the cache, a repo's folder in it and `blobs` may be links, as people move large files to other disks. Nothing
else below a repo's folder is entered through one (`folders.py`), and nothing in `blobs` is opened, written or removed
but by its own name there. Words that become names are those that `identifiers.py` lets through.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from modelhub_tui import identifiers, locks
from modelhub_tui.identifiers import BadIdentifier, OutsideError, is_blob_name, is_checksum, safe_repo_path
from modelhub_tui.service.node.chunkmap import mapped_bytes, new_map
from modelhub_tui.service.node.claims import Claims
from modelhub_tui.service.node.folders import PLAIN_FLAGS, Folder
from modelhub_tui.service.node.manifest import File

log = logging.getLogger(__name__)

PART_SUFFIX = ".modelhub.part"
MAP_SUFFIX = ".modelhub.map"
TRASH_SUFFIX = ".modelhub.trash"
"""A blob of a deleted model that can be had back; see `trash.py`."""
TEMPORARY_SUFFIX = ".modelhub.tmp"
"""What is about to get another name; `removal.sweep()` removes what a killed process left of it."""
_LOCK_WAIT_S = 5.0
_LOCK_POLL_S = 0.05
_NO_SYMLINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory holds HuggingFace models; backups may skip it.\n"


class Cache:
    """One HuggingFace cache folder.

    Args:
        claims: What others and we need of it; None where nobody else is to be asked.
        links: False: files lie in the snapshots themselves, as with `HF_HUB_DISABLE_SYMLINKS`.
    """

    def __init__(self, root: Path, claims: Claims | None = None, *, links: bool = True) -> None:
        self.root, self.claims, self._links = root, claims or Claims(root), links
        self.writing: set[tuple[str, str]] = set()
        """(repo, etag) of the parts that this process has open."""

    def repo_dir(self, repo: str) -> Path:
        """`repo` is `owner/name`.

        Raises:
            BadIdentifier: It is not. So do all that make a path of words which cannot be a name.
        """
        return self.root / folder_name(repo)

    def blob(self, repo: str, etag: str) -> Path:
        return self._in_blobs(repo, etag, "")

    def part(self, repo: str, etag: str) -> Path:
        return self._in_blobs(repo, etag, PART_SUFFIX)

    def map(self, repo: str, etag: str) -> Path:
        """Beside a part that has gaps: which of its bytes are there (`chunkmap.py`)."""
        return self._in_blobs(repo, etag, MAP_SUFFIX)

    def part_lock(self, repo: str, etag: str) -> Path:
        """Beside a part, where the file system has no locks of its own."""
        return self._in_blobs(repo, etag, f"{PART_SUFFIX}.lock")

    def trashed(self, repo: str, etag: str) -> Path:
        """Each service has a trash of its own in the cache they share."""
        owner = self.claims.owner
        return self._in_blobs(repo, etag, f".{owner.tag}{TRASH_SUFFIX}" if owner else TRASH_SUFFIX)

    def _in_blobs(self, repo: str, etag: str, suffix: str) -> Path:
        if not is_blob_name(etag):
            raise BadIdentifier("that is no name of a blob")
        return self.root.joinpath(folder_name(repo), "blobs", etag + suffix)

    def link(self, repo: str, commit: str, path: str) -> Path:
        """Where engines find a file. To be told and compared; `snapshot()` is the way to change anything there."""
        return self.root.joinpath(folder_name(repo), "snapshots", identifiers.commit(commit), safe_repo_path(path))

    def path_of(self, file: File) -> Path:
        """As `link()`; `file.commit` is known."""
        return self.link(file.repo, file.commit or "", file.path)

    def home(self, repo: str) -> Folder:
        """A repo's folder, open. Raises OSError when there is none."""
        return Folder.at(self.repo_dir(repo))

    def snapshot(self, file: File, *, make: bool = False) -> Folder:
        """The folder of its snapshot that a file is in, open, and reached through no link.

        Raises:
            OutsideError: A folder on the way is a link.
            OSError: It is not there, or cannot be entered or made.
        """
        folders = (identifiers.commit(file.commit), *safe_repo_path(file.path).split("/")[:-1])
        with self.home(file.repo) as home:
            return home.enter("snapshots", *folders, make=make)

    def blob_behind(self, repo: str, where: tuple[str, ...], target: str | None) -> str | None:
        """The blob to which a link in a snapshot leads.

        Args:
            where: Folders from `snapshots` to the link: the commit, and more. None of them is a link, so words decide.
            target: What the link says; None if it is no link.

        Returns:
            A name in this repo's `blobs`; None if it leads elsewhere.
        """
        if target is None:
            return None
        home = os.path.normpath(self.repo_dir(repo))
        folder, _, name = os.path.normpath("/".join((home, "snapshots", *where, target))).rpartition("/")
        if target.startswith("/"):
            folder, _, name = os.path.normpath(target).rpartition("/")
        return name if folder == f"{home}/blobs" and is_blob_name(name) else None

    def drop_part(self, repo: str, etag: str) -> None:
        """Remove an unfinished file, unless another process is writing it.

        Its map goes last: a part with gaps must not be found without it.
        """
        part, chunks = self.part(repo, etag), self.map(repo, etag)
        with contextlib.ExitStack() as held:
            # Ours alone, as for writing. A job of our own that was told to stop writes nothing any more.
            if (repo, etag) not in self.writing:
                with contextlib.suppress(OSError):
                    fd = os.open(part, PLAIN_FLAGS)
                    held.callback(os.close, fd)
                    taken = locks.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if taken is None:
                        soft = locks.SoftLock(self.part_lock(repo, etag))
                        held.callback(soft.release)
                        taken = soft.acquire()
                    if not taken:
                        return
            for each in (part, chunks, new_map(chunks)):
                drop_file(each)
        locks.tidy(self.part_lock(repo, etag))

    def drop_parts(self, repo: str, etags: Iterable[str]) -> None:
        """`drop_part()` for many: one look into their folder tells which of them have begun."""
        try:
            names = {each.name for each in (self.repo_dir(repo) / "blobs").iterdir()}
        except FileNotFoundError:
            return
        for etag in etags:
            chunks = self.map(repo, etag)
            ours = (self.part(repo, etag), chunks, new_map(chunks), self.part_lock(repo, etag))
            if any(each.name in names for each in ours):
                self.drop_part(repo, etag)

    def prepare(self, repo: str, commit: str) -> None:
        """Make a repo's folders. Snapshots come first: a repo with blobs alone is called corrupt by a scan.

        Raises:
            OutsideError: One of them is a link that may not be one.
            OSError: The disk says no.
        """
        home, commit = self.repo_dir(repo), identifiers.commit(commit)
        new = not self.root.exists()
        self.root.mkdir(parents=True, exist_ok=True)
        if new:
            with contextlib.suppress(OSError), Folder.at(self.root) as root:
                root.write("CACHEDIR.TAG", _TAG.encode())
        home.mkdir(exist_ok=True)
        with Folder.at(home) as opened:
            opened.enter("snapshots", commit, make=True).close()
        (home / "blobs").mkdir(exist_ok=True)

    def part_bytes(self, file: File) -> int:
        """Bytes of an unfinished file that are on disk; 0 without one, or while its size is not known."""
        with contextlib.suppress(OSError):
            if file.etag and file.size is not None:
                told = self.part(file.repo, file.etag).lstat()
                if stat.S_ISREG(told.st_mode):
                    mapped = mapped_bytes(self.map(file.repo, file.etag), told.st_size, file.size)
                    return told.st_size if mapped is None else mapped
        return 0

    def is_whole(self, file: File) -> bool:
        """Whether the file is where engines look for it, with the right length. Cheap: reads no content.

        It may be a link to anywhere, as some people keep files of their own; the folders on the way may not.
        """
        if file.commit is None or file.size is None:
            return False
        try:
            with self.snapshot(file) as folder:
                told = os.stat(file.path.rpartition("/")[2], dir_fd=folder.fd)
        except OSError:
            return False
        return stat.S_ISREG(told.st_mode) and told.st_size == file.size

    def linked_name(self, file: File) -> str | None:
        """Name of this repo's blob that a file's link leads to, unless it is a checksum: nobody has compared that."""
        with contextlib.suppress(OSError), self.snapshot(file) as folder:
            *folders, name = file.path.split("/")
            blob = self.blob_behind(file.repo, (file.commit or "", *folders), folder.target(name))
            return None if is_checksum(blob) else blob
        return None

    def publish(self, file: File, fd: int, *, sync: bool = True) -> None:
        """Turn a verified part into a blob and link it. `fd` is the open part.

        Args:
            sync: Make the new names last over a power cut. If not, that is `sync_names()`, once for many files.

        The library's lock is taken as a courtesy to a library call fetching the same file, but not waited for long:
        that call ends with the same bytes under the same name, and both replace atomically.

        Raises:
            OSError: The disk says no, or what has the part's name is another file by now.
        """
        assert file.etag
        os.fsync(fd)
        # Before the part is the blob: killed in between, we leave nothing over, and a whole part needs no map.
        self.map(file.repo, file.etag).unlink(missing_ok=True)
        part, blob = self.part(file.repo, file.etag), self.blob(file.repo, file.etag)
        with self.library_lock(file.repo, file.etag):
            if not os.path.samestat(os.fstat(fd), part.lstat()):
                raise FileNotFoundError(errno.ENOENT, "another file has taken its name", os.fspath(part))
            part.replace(blob)
            if sync:
                sync_dir(blob.parent)
        self.make_link(file, sync=sync)

    def sync_names(self, files: Collection[File]) -> None:
        """What `publish()` does for one file, for many: each folder once."""
        for folder in {self.repo_dir(file.repo) / "blobs" for file in files}:
            sync_dir(folder)
        for folder in {self.path_of(file).parent for file in files}:
            sync_dir(folder)

    @contextlib.contextmanager
    def library_lock(self, repo: str, etag: str) -> Iterator[None]:
        """The library's lock for one blob, `.locks/<repo's folder>/<etag>.lock`, taken as the library does.

        Not with its `FileLock`, which takes a path, and empties whatever file it leads to.
        """
        with contextlib.ExitStack() as held:
            try:
                name, until = f"{etag}.lock", time.monotonic() + _LOCK_WAIT_S
                with Folder.at(self.root) as root, root.enter(".locks", folder_name(repo), make=True) as folder:
                    fd = folder.open_file(name, 0o664)
                    held.callback(os.close, fd)
                    take: Callable[[], bool | None] = functools.partial(locks.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if take() is None:
                        # The library's lock is then that the file exists: an empty one, such as ours, is nobody's.
                        if not os.fstat(fd).st_size:
                            folder.unlink(name)
                        soft = locks.SoftLock(self.root / ".locks" / folder_name(repo) / name)
                        held.callback(soft.release)
                        take = functools.partial(self._take_soft, soft, repo, name)
                while not take() and time.monotonic() < until:
                    time.sleep(_LOCK_POLL_S)
            except OSError as error:
                log.info("going on without the library's lock: %s", error)
            yield

    def _take_soft(self, soft: locks.SoftLock, repo: str, name: str) -> bool:
        """Take the lock that the file is. It goes by its path: so the way there is looked at each time, and after.

        Raises:
            OutsideError: A folder on the way is, or has become, a link; nothing is held there.
            OSError: The disk says no.
        """
        with Folder.at(self.root) as root, root.enter(".locks", folder_name(repo)) as folder:
            taken = soft.acquire()
            if taken and not folder.is_plain(name):
                soft.release()
                raise OutsideError(folder.path)
        return taken

    def make_link(self, file: File, *, sync: bool = True) -> None:
        """Put the file into its snapshot: a relative link, as the library makes it; replaced atomically.

        Raises:
            OutsideError: A folder on the way is a link.
            OSError: The disk says no.
        """
        assert file.etag
        blob, name = self.blob(file.repo, file.etag), file.path.rpartition("/")[2]
        target = "../" * (2 + file.path.count("/")) + f"blobs/{file.etag}"
        with self.snapshot(file, make=True) as folder:
            if folder.target(name) == target:
                return
            # The same name each time: what a killed process left of it is replaced by the next.
            temporary = _temporary(name)
            try:
                if not self._links:
                    raise OSError(errno.EPERM, "no links are wanted")
                if folder.lstat(name) is not None:
                    folder.unlink(temporary)
                    folder.symlink(target, temporary)
                    folder.rename(temporary, folder, name)
                else:
                    folder.symlink(target, name)
            except OSError as error:
                if error.errno not in _NO_SYMLINKS:
                    raise
                # No links here: the library, too, then keeps the file in the snapshot.
                os.replace(blob, name, dst_dir_fd=folder.fd)
            if sync:
                folder.sync()

    def write_ref(self, repo: str, ref: str, commit: str) -> None:
        """Remember which commit a branch is at, as the library does, so that it finds the files offline.

        Raises:
            OutsideError: A folder on the way is a link.
            OSError: The disk says no.
        """
        *folders, name = identifiers.revision(ref).split("/")
        commit = identifiers.commit(commit)
        with self.claims.alone(), self.home(repo) as home:
            # Not in `refs`: a scan takes all that is there for branches, and gives up on a repo with an unfinished one.
            # The same name each time, as for a link: nothing of it is left for long.
            temporary = _temporary(f"refs/{ref}")
            home.unlink(temporary)
            home.write(temporary, commit.encode())
            try:
                with home.enter("refs", *folders, make=True) as refs:
                    home.rename(temporary, refs, name)
            except OSError:
                home.unlink(temporary)
                raise

    def free_names(self) -> int | None:
        """How many more files its file system can hold (free inodes); None where there is no such limit."""
        for folder in (self.root, *self.root.parents):
            with contextlib.suppress(OSError):
                told = os.statvfs(folder)
                return told.f_favail if told.f_files else None
        return None

    def usage(self) -> tuple[int, int]:
        """Free and total bytes of the file system the cache is on, or will be on."""
        for folder in (self.root, *self.root.parents):
            with contextlib.suppress(OSError):
                told = shutil.disk_usage(folder)
                return told.free, told.total
        return 0, 0


def without_links(environ: Mapping[str, str]) -> bool:
    """Whether the library is told to keep files in the snapshots, with no links to them."""
    return environ.get("HF_HUB_DISABLE_SYMLINKS", "").upper() in {"1", "ON", "YES", "TRUE"}


def _temporary(name: str) -> str:
    """What something is called before it gets its name."""
    return f".{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}{TEMPORARY_SUFFIX}"


def drop_file(path: Path) -> None:
    """Remove what has a name of ours in `blobs`; a folder of that name is not ours.

    Raises:
        OSError: It is there and cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()


def sync_dir(path: Path) -> None:
    """Make a rename last over a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@functools.lru_cache(256)
def folder_name(repo: str) -> str:
    """What the folder of a repo, `owner/name`, is called."""
    return f"models--{identifiers.repo_id(repo).replace('/', '--')}"


def repo_of(name: str) -> str | None:
    """The repo that a folder of the cache is of; None if it is of none."""
    try:
        return identifiers.repo_id(name.removeprefix("models--").replace("--", "/", 1))
    except BadIdentifier:
        return None
