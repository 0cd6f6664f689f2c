"""Which commits of the cache have a name, for the library's sake.

`hf cache prune` removes every snapshot that nothing in `refs` is at, and with `HF_HUB_OFFLINE` the library finds the
files of `main` only through `refs/main`. So every whole model's commit has a ref: `main` where the hub says that it is
there, else one of our own kind, `refs/modelhub/<commit>`, which goes with the model. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable

from modelhub_tui.identifiers import is_commit
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.removal import OWN_REFS, drop_own_refs, has_ref, read_ref

log = logging.getLogger(__name__)


class Refs:
    """The refs of one cache. From any thread, one at a time for each model."""

    def __init__(self, cache: Cache, hub: Hub) -> None:
        self._cache, self._hub = cache, hub
        self._asked: set[tuple[str, str]] = set()
        """(repo, commit) of which the hub has said whether `main` is there."""

    def complete(self, files: Iterable[File], stopped: Callable[[], bool] = lambda: False) -> None:
        """Note that `main` is at the commit of these whole files, where it is.

        The hub is asked once for each commit, and again the next time if it did not answer or the disk was full.
        Whoever fetched the files that we adopted has asked: adopting asks the hub nothing.
        """
        for (repo, commit), path in _commits(each for each in files if each.fetched).items():
            if stopped():
                return
            if (repo, commit) in self._asked or self._main(repo) == commit:
                continue
            try:
                at = self._hub.find(repo, "main", path).commit
            except faults.Fault as fault:
                if fault.passing or fault.code == "hub_unreachable":
                    return  # nor would it answer for the others
                at = ""  # no such file there: another commit
            if stopped():
                return
            try:
                if at == commit:
                    self._cache.write_ref(repo, "main", commit)
                    drop_own_refs(self._cache, repo, [commit])
            except OSError as error:
                log.warning("refs/main of %s cannot be written yet: %s", repo, error)
                continue
            self._asked.add((repo, commit))

    def keep(self, files: Iterable[File]) -> None:
        """See to it that something is at each commit of these whole files."""
        for repo, commit in _commits(files):
            if not has_ref(self._cache, repo, commit):
                try:
                    with self._cache.home(repo) as home:
                        home.enter("snapshots", commit).close()  # a ref to what is not there spoils a scan
                    self._cache.write_ref(repo, f"{OWN_REFS}/{commit}", commit)
                except OSError as error:
                    log.info("%s has no ref at %s yet: %s", repo, commit, error)

    def _main(self, repo: str) -> str | None:
        with contextlib.suppress(OSError), self._cache.home(repo) as home, home.enter("refs") as refs:
            return read_ref(refs, "main")
        return None


def _commits(files: Iterable[File]) -> dict[tuple[str, str], str]:
    """A path of each (repo, commit)."""
    found: dict[tuple[str, str], str] = {}
    for file in files:
        if file.commit and is_commit(file.commit):
            found.setdefault((file.repo, file.commit), file.path)
    return found
