"""Safe deletion: frees exactly one model's bytes.

Never touched: a blob another revision or another placed model uses, a file of the user's own that a snapshot links to,
anything outside the repo's folder. The plan is `huggingface_hub`'s (it knows its cache best); the guards are ours,
because the library removes the first hop of a link wherever it leads.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from modelhub_tui.service.node.cache import Cache, sync_dir
from modelhub_tui.service.node.hub import quiet_library
from modelhub_tui.service.node.manifest import File

log = logging.getLogger(__name__)


def remove_files(cache: Cache, files: Iterable[File], keep: Collection[File] = ()) -> None:
    """Remove a model's files, parts included.

    Args:
        files: What the model consists of.
        keep: Files of all other models we hold or fetch; what they need stays.

    Raises:
        OSError: Something could not be removed; calling again goes on where it ended.
    """
    files = tuple(files)
    kept_links = {cache.path_of(each) for each in keep}
    kept_etags = {(each.repo, each.etag) for each in keep if each.etag}
    for file in files:
        if file.etag and (file.repo, file.etag) not in kept_etags:
            cache.drop_part(file.repo, file.etag)
    for repo in {file.repo for file in files}:
        links = {cache.path_of(each) for each in files if each.repo == repo and each.commit}
        links = {each for each in links if os.path.lexists(each)}
        spare_blobs = {cache.blob(repo, etag) for owner, etag in kept_etags if owner == repo}
        _remove_links(cache, repo, {each for each in links - kept_links if _is_ours(cache, repo, each)}, spare_blobs)
        # A blob may be there without its link: published, and the process killed before the link was made.
        for file in files:
            if file.repo == repo and file.etag and file.fetched and (repo, file.etag) not in kept_etags:
                _remove_unlinked_blob(cache, repo, cache.blob(repo, file.etag))
        tidy(cache, repo)


def _is_ours(cache: Cache, repo: str, link: Path) -> bool:
    """Whether a snapshot entry is the cache's own: a link into this repo's blobs, or the file itself."""
    if not link.is_symlink():
        return link.is_file()
    return _first_hop(link).parent == _blobs(cache, repo)


def _first_hop(link: Path) -> Path:
    return Path(os.path.normpath(link.parent / link.readlink()))


def _blobs(cache: Cache, repo: str) -> Path:
    return Path(os.path.normpath(cache.repo_dir(repo))) / "blobs"


def _remove_links(cache: Cache, repo: str, links: set[Path], spare_blobs: set[Path]) -> None:
    if not links:
        return
    quiet_library()
    from huggingface_hub import scan_cache_dir

    wanted = {Path(os.path.normpath(each)) for each in links}
    info = scan_cache_dir(cache.root)
    selected = [
        file
        for cached in info.repos
        if cached.repo_id == repo and cached.repo_type == "model"
        for revision in cached.revisions
        for file in revision.files
        if Path(os.path.normpath(file.file_path)) in wanted
    ]
    plan = info.delete_files(*selected) if selected else None
    if plan is not None and {Path(os.path.normpath(each)) for each in plan.blobs}.isdisjoint(spare_blobs):
        plan.execute()
    # What the library does not list (one broken link, and it gives up on the whole repo), or must not free whole.
    for link in links:
        if link.is_symlink():
            blob = _first_hop(link)
            link.unlink(missing_ok=True)
            if blob not in spare_blobs:
                _remove_unlinked_blob(cache, repo, blob)
        else:
            link.unlink(missing_ok=True)


def _remove_unlinked_blob(cache: Cache, repo: str, blob: Path) -> None:
    """Remove a blob of this repo unless any snapshot still links to it."""
    blob = Path(os.path.normpath(blob))
    if blob.parent == _blobs(cache, repo) and not is_linked(cache, repo, blob):
        blob.unlink(missing_ok=True)


def is_linked(cache: Cache, repo: str, blob: Path, besides: Collection[Path] = ()) -> bool:
    """Whether any snapshot of this repo links to a blob, apart from the links in `besides`."""
    blob = Path(os.path.normpath(blob))
    for folder, _, names in os.walk(cache.repo_dir(repo) / "snapshots"):
        for name in names:
            link = Path(folder) / name
            if link not in besides and link.is_symlink() and _first_hop(link) == blob:
                return True
    return False


def put_aside_plan(
    cache: Cache, files: Iterable[File], keep: Collection[File]
) -> tuple[tuple[tuple[File, Path], ...], tuple[tuple[str, str], ...]]:
    """What moving a model to the trash would do: the links that go, and the blobs that nothing else uses.

    A blob that is itself a link (into the library's store of shared blobs) stays out: the library counts the names that
    lead there, so only the library may take one away. Removal then asks it to.
    """
    kept_links = {cache.path_of(each) for each in keep}
    kept_blobs = {(each.repo, each.etag) for each in keep}
    links, blobs = [], []
    for file in files:
        if not file.etag or (file.repo, file.etag) in kept_blobs or cache.path_of(file) in kept_links:
            continue
        blob = cache.blob(file.repo, file.etag)
        link = cache.path_of(file) if file.commit else None
        if link is not None and link.is_symlink():
            if Path(os.path.normpath(link.parent / link.readlink())) == Path(os.path.normpath(blob)) and _plain(blob):
                links.append((file, link))
        elif link is not None and _plain(link):
            links.append((file, link))  # a file system without links: the file itself is in the snapshot
            blobs.append((file.repo, file.etag))
            continue
        elif not file.fetched:
            continue
        if _plain(blob):
            blobs.append((file.repo, file.etag))
    going = {link for _, link in links}
    free = [blob for blob in dict.fromkeys(blobs) if not is_linked(cache, blob[0], cache.blob(*blob), going)]
    return tuple(links), tuple(free)


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def refs_of(cache: Cache, files: Iterable[File]) -> tuple[tuple[str, str, str], ...]:
    """The branches that point at these files' commits."""
    found = []
    for repo, commit in {(file.repo, file.commit) for file in files if file.commit}:
        folder = cache.repo_dir(repo) / "refs"
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError, ValueError):
                if path.is_file() and path.suffix != ".tmp" and path.read_text().strip() == commit:
                    found.append((repo, path.relative_to(folder).as_posix(), commit))
    return tuple(sorted(found))


def put_aside(cache: Cache, links: Iterable[tuple[File, Path]], blobs: Iterable[tuple[str, str]]) -> None:
    """Take links away and rename blobs that nothing links to any more, so that only the trash knows them.

    Links go first: a link that leads nowhere makes a scan give up on the whole repo, a blob without links is harmless.

    Raises:
        OSError: Something could not be moved; calling again goes on where it ended.
    """
    blobs = tuple(blobs)
    for file, link in links:
        if not link.is_symlink() and file.etag and (file.repo, file.etag) in blobs:
            with contextlib.suppress(FileNotFoundError):
                link.replace(cache.trashed(file.repo, file.etag))
        link.unlink(missing_ok=True)
    for repo, etag in blobs:
        blob = cache.blob(repo, etag)
        if not is_linked(cache, repo, blob):
            with contextlib.suppress(FileNotFoundError):
                blob.replace(cache.trashed(repo, etag))
    for repo in {repo for repo, _ in blobs}:
        sync_dir(cache.repo_dir(repo) / "blobs")


def tidy(cache: Cache, repo: str) -> None:
    """Drop what is empty now: snapshot folders, refs to them, at last the repo's own folder and its locks."""
    home = cache.repo_dir(repo)
    # Before the snapshots: a scan calls a repo corrupt when a ref names a snapshot that is not there.
    for folder, _, names in os.walk(home / "refs", topdown=False):
        for name in names:
            ref = Path(folder) / name
            with contextlib.suppress(OSError, ValueError):
                commit = ref.read_text().strip()
                if commit and "/" not in commit and not _holds_files(home / "snapshots" / commit):
                    ref.unlink()
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    for folder, _, _ in os.walk(home / "snapshots", topdown=False):
        with contextlib.suppress(OSError):
            if Path(folder) != home / "snapshots":
                Path(folder).rmdir()
    with contextlib.suppress(OSError):
        (home / "blobs").rmdir()
    if not (home / "blobs").exists() and not any((home / "snapshots").glob("*")):
        # Left are the library's own notes about a repo of which nothing is here any more.
        for leftover in ("trees", ".no_exist"):
            _remove_notes(home / leftover)
        for empty in (home / "snapshots", home):
            with contextlib.suppress(OSError):
                empty.rmdir()
        locks = cache.root / ".locks" / home.name
        if not home.exists():
            _remove_notes(locks)


def _holds_files(folder: Path) -> bool:
    return any(names for _, _, names in os.walk(folder))


def _remove_notes(folder: Path) -> None:
    """Remove a folder of small bookkeeping files; links are never followed."""
    for inside, _, names in os.walk(folder, topdown=False):
        for name in names:
            with contextlib.suppress(OSError):
                (Path(inside) / name).unlink()
        with contextlib.suppress(OSError):
            Path(inside).rmdir()
