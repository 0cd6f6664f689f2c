"""Safe deletion: frees exactly one model's bytes.

Never touched: a blob another revision or another placed model uses, a file of the user's own that a snapshot links to,
anything outside the repo's folder. No link is entered, whatever lies behind it; and in our own folders only what has
the form of ours goes: links that lead into `blobs`, blobs by their names, refs that hold a commit, the library's notes.

What another service on this machine has claimed counts as used (`claims.py`), and each removal holds the lock under
which it is claimed; a blob goes under the library's lock for it, a part under the lock of whoever writes it.

Blobs that are links into the library's store for all repos are the library's: it counts the names that lead there.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from modelhub_tui.identifiers import BadIdentifier, OutsideError, is_commit, is_sha256, revision
from modelhub_tui.service.node.abreast import abreast
from modelhub_tui.service.node.cache import (
    MAP_SUFFIX,
    TEMPORARY_SUFFIX,
    Cache,
    drop_file,
    folder_name,
    repo_of,
    sync_dir,
)
from modelhub_tui.service.node.folders import Folder, Way
from modelhub_tui.service.node.hub import quiet_library
from modelhub_tui.service.node.manifest import File

_REF_BYTES = 256
_NOTES_BYTES = 16 * 1024 * 1024
_TEMPORARY = re.compile(rf"\.[0-9a-f]{{12}}{re.escape(TEMPORARY_SUFFIX)}\Z")
_OLD_REF = re.compile(r".+\.[0-9a-f]{8}\.tmp\Z")
"""How a branch was called before it had its name, in versions before this one."""
_NEW_MAP = re.compile(rf".+{re.escape(MAP_SUFFIX)}\.new\Z")
_MOMENT_S = 60.0
OWN_REFS = "modelhub"
"""Folder in `refs` for commits that no branch here is at: a name that hubs do not give to branches of their own."""
_NOT_THERE = (FileNotFoundError, NotADirectoryError, OutsideError)
"""Why there is nothing of ours in some place: no such folder, or none that we enter."""


def remove_files(cache: Cache, files: Iterable[File], keep: Collection[File] = ()) -> None:
    """Remove a model's files, parts included.

    Args:
        files: What the model consists of.
        keep: Files of all other models we hold or fetch; what they need stays.

    Raises:
        OSError: Something could not be removed; calling again goes on where it ended.
    """
    files = tuple(files)
    with cache.claims.alone():
        keep = (*keep, *cache.claims.others(files))
        kept_links = {_place(each) for each in keep}
        kept_blobs = {(each.repo, each.etag) for each in keep if each.etag}
        for repo in {file.repo for file in files}:
            mine = [file for file in files if file.repo == repo]
            cache.drop_parts(repo, {file.etag for file in mine if file.etag and (repo, file.etag) not in kept_blobs})
            unlinked = abreast(lambda file: _remove_link(cache, file), [f for f in mine if _place(f) not in kept_links])
            going = {blob for blob in unlinked if blob}
            # A blob may be there without its link: published, and the process killed before the link was made.
            going |= {file.etag for file in mine if file.etag and file.fetched}
            going -= {etag for owner, etag in kept_blobs if owner == repo}
            going -= linked_blobs(cache, repo) if going else set()
            _remove_blobs(cache, repo, going)
            if going:
                _drop_dangling(cache, repo, going)
            kept_commits = {file.commit for file in keep if file.repo == repo}
            drop_own_refs(cache, repo, {file.commit for file in mine if file.commit} - kept_commits)
            tidy(cache, repo)


def _place(file: File) -> tuple[str, str | None, str]:
    return file.repo, file.commit, file.path


def _remove_link(cache: Cache, file: File) -> str | None:
    """Take a file out of its snapshot, if it is the cache's own there; returns the blob to which it led."""
    with _snapshot(cache, file) as folder:
        if folder is None:
            return None
        name = _name(file)
        blob = _blob_behind(cache, file, folder)
        if blob is None and folder.is_plain(name):
            blob = _same_blob(cache, file, folder.lstat(name))
            folder.unlink(name)
        elif blob is not None:
            folder.unlink(name)
        return blob


def _same_blob(cache: Cache, file: File, told: os.stat_result | None) -> str | None:
    """The blob of which a file in a snapshot is a second name (a hard link), if it is one."""
    if told is None or told.st_nlink < 2 or not file.etag:
        return None
    try:
        return file.etag if os.path.samestat(told, cache.blob(file.repo, file.etag).lstat()) else None
    except OSError:
        return None


@contextlib.contextmanager
def _snapshot(cache: Cache, file: File) -> Iterator[Folder | None]:
    """The folder that a file is in; None if there is none that we enter."""
    try:
        folder = cache.snapshot(file) if file.commit else None
    except _NOT_THERE:
        folder = None
    try:
        yield folder
    finally:
        if folder is not None:
            folder.close()


def _name(file: File) -> str:
    return file.path.rpartition("/")[2]


def _blob_behind(cache: Cache, file: File, folder: Folder) -> str | None:
    return cache.blob_behind(file.repo, (file.commit or "", *file.path.split("/")[:-1]), folder.target(_name(file)))


def linked_blobs(cache: Cache, repo: str, besides: Collection[tuple[str, ...]] = ()) -> set[str]:
    """The blobs to which any snapshot of this repo links, apart from the links in `besides`: (commit, folder, …, name).

    Raises:
        OSError: A folder cannot be read, so nobody knows.
    """
    found = set()
    try:
        with cache.home(repo) as home, home.enter("snapshots") as snapshots:
            for where, folder, names in snapshots.walk():
                for name in names:
                    if (*where, name) not in besides:
                        found.add(cache.blob_behind(repo, where, folder.target(name)))
    except _NOT_THERE:
        pass
    return {blob for blob in found if blob is not None}


def _remove_blobs(cache: Cache, repo: str, etags: Iterable[str]) -> None:
    there = [etag for etag in etags if os.path.lexists(cache.blob(repo, etag))]
    for etag in there:
        blob = cache.blob(repo, etag)
        if _is_shared(cache, blob):
            quiet_library()
            from huggingface_hub import DeleteCacheStrategy

            one: frozenset[Path] = frozenset({blob})
            none: frozenset[Path] = frozenset()
            with cache.library_lock(repo, etag):
                DeleteCacheStrategy(0, one, refs=none, repos=none, snapshots=none, cache_dir=cache.root).execute()

    def drop(etag: str) -> None:
        with cache.library_lock(repo, etag):
            drop_file(cache.blob(repo, etag))

    abreast(drop, there)


def _drop_dangling(cache: Cache, repo: str, etags: Collection[str]) -> None:
    """Take away links to blobs that have just gone: the library may have made one after we looked."""
    with contextlib.suppress(*_NOT_THERE), cache.home(repo) as home, home.enter("snapshots") as snapshots:
        for where, folder, names in snapshots.walk():
            for name in names:
                blob = cache.blob_behind(repo, where, folder.target(name))
                if blob in etags and not os.path.lexists(cache.blob(repo, blob or "")):
                    folder.unlink(name)


def _is_shared(cache: Cache, blob: Path) -> bool:
    """Whether a blob is a link into the library's store, and everything there is as the library leaves it.

    What the library reads and locks there must be small files: it would wait for a pipe, and read a device for ever.
    """
    if not blob.is_symlink():
        return False
    content, store = Path(os.path.realpath(blob)), Path(os.path.realpath(cache.root)) / "blobs"
    if not is_sha256(content.name) or content.parent != store / content.name[:2]:
        return False
    notes = [
        store / ".huggingface-shared-blobs",
        *(content.with_name(content.name + end) for end in (".refs", ".lock")),
    ]
    return all(map(_is_small, notes))


def _is_small(path: Path) -> bool:
    """Whether this is a regular file of a reasonable size, or nothing."""
    try:
        told = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(told.st_mode) and told.st_size <= _NOTES_BYTES


def put_aside_plan(
    cache: Cache, files: Iterable[File], keep: Collection[File]
) -> tuple[tuple[File, ...], tuple[tuple[str, str], ...]]:
    """What moving a model to the trash would do: the files whose links go, and the blobs that nothing else uses.

    A blob that is itself a link (into the library's store of shared blobs) stays out: the library counts the names that
    lead there, so only the library may take one away. Removal then asks it to.
    """
    kept_links = {_place(each) for each in keep}
    kept_blobs = {(each.repo, each.etag) for each in keep}
    links, blobs = [], []
    for file in files:
        if not file.etag or (file.repo, file.etag) in kept_blobs or _place(file) in kept_links:
            continue
        with _snapshot(cache, file) as folder:
            entry = folder.lstat(_name(file)) if folder is not None else None
            led_to = _blob_behind(cache, file, folder) if folder is not None else None
        whole = _plain(cache.blob(file.repo, file.etag))
        if entry is None:
            whole = whole and file.fetched
        elif stat.S_ISREG(entry.st_mode):
            whole = True  # a file system without links: the file itself is in the snapshot
            links.append(file)
        elif whole and led_to == file.etag:
            links.append(file)
        if whole:
            blobs.append((file.repo, file.etag))
    free = []
    for repo in {file.repo for file in links} | {repo for repo, _ in blobs}:
        going = {(file.commit or "", *file.path.split("/")) for file in links if file.repo == repo}
        used = linked_blobs(cache, repo, going)
        free += [blob for blob in dict.fromkeys(blobs) if blob[0] == repo and blob[1] not in used]
    return tuple(links), tuple(free)


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def refs_of(cache: Cache, files: Iterable[File]) -> tuple[tuple[str, str, str], ...]:
    """The branches that point at these files' commits."""
    found = []
    commits = {(file.repo, file.commit) for file in files if file.commit}
    for repo in {repo for repo, _ in commits}:
        with contextlib.suppress(OSError), cache.home(repo) as home, home.enter("refs") as refs:
            for where, folder, names in refs.walk():
                for name in names:
                    commit = read_ref(folder, name)
                    with contextlib.suppress(BadIdentifier):
                        if commit and (repo, commit) in commits and not name.endswith(".tmp"):
                            found.append((repo, revision("/".join((*where, name))), commit))
    return tuple(sorted(found))


def has_ref(cache: Cache, repo: str, commit: str) -> bool:
    """Whether anything in `refs` is at a commit."""
    with contextlib.suppress(OSError), cache.home(repo) as home, home.enter("refs") as refs:
        return any(read_ref(folder, name) == commit for _, folder, names in refs.walk() for name in names)
    return False


def drop_own_refs(cache: Cache, repo: str, commits: Iterable[str]) -> None:
    """Remove the refs of our own kind to commits of which no model here is any more."""
    for commit in commits:
        with contextlib.suppress(OSError), cache.home(repo) as home, home.enter("refs", OWN_REFS) as refs:
            if read_ref(refs, commit) == commit:
                refs.unlink(commit)


def read_ref(folder: Folder, name: str) -> str | None:
    """The commit that a branch is at, as a file in `refs` says; None if it does not."""
    try:
        said = folder.read(name, _REF_BYTES).decode().strip()
    except (OSError, ValueError):
        return None
    return said if is_commit(said) else None


def put_aside(cache: Cache, files: Iterable[File], blobs: Iterable[tuple[str, str]]) -> None:
    """Take links away and rename blobs that nothing links to any more, so that only the trash knows them.

    Links go first: a link that leads nowhere makes a scan give up on the whole repo, a blob without links is harmless.

    Raises:
        OSError: Something could not be moved; calling again goes on where it ended.
    """
    blobs = dict.fromkeys(blobs)

    def take_link(file: File) -> None:
        with _snapshot(cache, file) as folder:
            if folder is None or not file.etag:
                return
            if folder.is_plain(_name(file)) and (file.repo, file.etag) in blobs:
                (cache.repo_dir(file.repo) / "blobs").mkdir(exist_ok=True)
                same = _same_blob(cache, file, folder.lstat(_name(file)))
                os.replace(_name(file), cache.trashed(file.repo, file.etag), src_dir_fd=folder.fd)
                if same is not None:
                    cache.blob(file.repo, same).unlink(missing_ok=True)
            elif _blob_behind(cache, file, folder) is not None:
                folder.unlink(_name(file))

    abreast(take_link, files)
    for repo in {repo for repo, _ in blobs}:
        used = linked_blobs(cache, repo)

        def take_blob(etag: str, repo: str = repo) -> None:
            if os.path.lexists(cache.blob(repo, etag)):
                # A folder of that name is not ours: then the blob stays, and goes for good.
                with cache.library_lock(repo, etag), contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    cache.blob(repo, etag).replace(cache.trashed(repo, etag))

        abreast(take_blob, [etag for owner, etag in blobs if owner == repo and etag not in used])
        sync_dir(cache.repo_dir(repo) / "blobs")


def tidy(cache: Cache, repo: str) -> None:
    """Drop what is empty now: snapshot folders, refs to them, at last the repo's own folder and its locks.

    Where another service is at work in a repo, only what belongs to no commit of its goes.
    """
    with cache.claims.alone(), contextlib.suppress(OSError):
        shared, commits = cache.claims.others_in(repo)
        if shared and not commits:
            return
        with cache.home(repo) as home:
            _sweep_home(home)
            # Before the snapshots: a scan calls a repo corrupt when a ref names a snapshot that is not there.
            _clear(home, "refs", lambda folder, name, _: not _is_needed(home, read_ref(folder, name), commits))
            _clear(home, "snapshots", lambda *_: False, itself=False, spare=commits)
            if not shared:
                _clear_home(home)
        if not shared:
            with Folder.at(cache.root) as root:
                if root.rmdir(folder_name(repo)):
                    with root.enter(".locks") as locks:
                        _clear(
                            locks,
                            folder_name(repo),
                            lambda folder, name, _where: name.endswith(".lock") and folder.is_plain(name),
                        )


def _clear_home(home: Folder) -> None:
    """Drop a repo's folders, and the library's notes about it, if nothing else is left."""
    home.rmdir("blobs")
    if home.lstat("blobs") is None and not _holds_any(home, "snapshots"):
        _clear(home, "trees", lambda folder, name, where: not where and _is_tree(name) and folder.is_plain(name))
        _clear(
            home,
            ".no_exist",
            lambda folder, name, where: bool(where) and is_commit(where[0]) and _is_mark(folder, name),
        )
        home.rmdir("snapshots")


def sweep(cache: Cache) -> None:
    """Remove temporary files that killed processes of ours left anywhere in the cache.

    Raises:
        OSError: The cache cannot be looked at.
    """
    try:
        with Folder.at(cache.root) as root:
            folders, _ = root.names()
            for name in folders:
                if repo_of(name) is not None:
                    with contextlib.suppress(OSError), root.enter(name) as home:
                        _sweep_home(home)
    except FileNotFoundError:
        pass


def _sweep_home(home: Folder) -> None:
    _sweep_in(home, home.names()[1], _TEMPORARY)
    with contextlib.suppress(OSError), home.enter("refs") as refs:
        for _, folder, names in refs.walk():
            _sweep_in(folder, names, _OLD_REF)
    with contextlib.suppress(OSError), home.enter("blobs") as blobs:
        _sweep_in(blobs, blobs.names()[1], _NEW_MAP)
    with contextlib.suppress(OSError), home.enter("snapshots") as snapshots:
        for _, folder, names in snapshots.walk():
            _sweep_in(folder, names, _TEMPORARY)


def _sweep_in(folder: Folder, names: Iterable[str], ours: re.Pattern[str]) -> None:
    """Each of these exists for a moment only: what is older than that has lost whoever made it."""
    for name in filter(ours.match, names):
        told = folder.lstat(name)
        if told is not None and not stat.S_ISDIR(told.st_mode) and time.time() - told.st_mtime > _MOMENT_S:
            with contextlib.suppress(OSError):
                folder.unlink(name)


def _is_needed(home: Folder, commit: str | None, claimed: Collection[str]) -> bool:
    """Whether a ref stays: it holds no commit, or one of which there are files here, or another service's."""
    return commit is None or commit in claimed or _holds_any(home, "snapshots", commit)


def _holds_any(home: Folder, *names: str) -> bool:
    """Whether there is anything but folders in this folder, or below it; also if nobody can say."""
    try:
        with home.enter(*names) as top:
            return any(others for _, _, others in top.walk())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _is_tree(name: str) -> bool:
    return name.endswith(".json") and is_commit(name.removesuffix(".json"))


def _is_mark(folder: Folder, name: str) -> bool:
    told = folder.lstat(name)
    return told is not None and stat.S_ISREG(told.st_mode) and told.st_size == 0


def _clear(
    home: Folder,
    name: str,
    ours: Callable[[Folder, str, tuple[str, ...]], bool],
    *,
    itself: bool = True,
    spare: Collection[str] = (),
) -> None:
    """Remove from a folder and those below it what is ours, and the folders that are empty then.

    Args:
        ours: Told the open folder, a name in it, and the names of the folders on the way there.
        itself: Whether the folder itself goes, too.
        spare: Folders in it that stay, empty or not.
    """
    with contextlib.suppress(OSError):
        with home.enter(name) as top:
            folders = []
            for where, folder, others in top.walk():
                folders.append(where)
                abreast(folder.unlink, [each for each in others if ours(folder, each, where)])
            with Way(top) as way:
                for where in reversed([each for each in folders[1:] if each[0] not in spare]):
                    with contextlib.suppress(OSError):
                        way.to(where[:-1]).rmdir(where[-1])
        if itself:
            home.rmdir(name)
