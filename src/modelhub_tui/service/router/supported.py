"""The models of one catalog, as the router looks them up; and the catalogs that our own programs name."""

from __future__ import annotations

import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar

from modelhub_tui.catalog import catalog_version, load_catalog
from modelhub_tui.domain import CatalogEntry
from modelhub_tui.errors import BadCatalog, explain
from modelhub_tui.service.router.blocking import run_blocking
from modelhub_tui.service.router.errors import Refused

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_CATALOGS = 8
"""Held at once, beside the service's own; the one that was asked for longest ago goes."""
_UNNAMEABLE = re.compile(r"[^a-z0-9._-]+")
_MAX_SLUG = 90
"""With the longest repo before it a name stays below what nodes and clients take for one."""


class Supported:
    """The entries of one catalog, by what a request may name, and the names that registering them gives."""

    def __init__(self, entries: Iterable[CatalogEntry]) -> None:
        self.entries = tuple(entries)
        self._by_file: dict[tuple[str, str], CatalogEntry] = {}
        self._first_of_repo: dict[str, CatalogEntry] = {}
        for entry in self.entries:
            self._first_of_repo.setdefault(entry.repo.lower(), entry)
            for file in entry.files:
                self._by_file.setdefault((entry.repo.lower(), file.path), entry)
        self._names = self._curated_names()

    def entry_for(self, repo: str, file: str | None) -> CatalogEntry | None:
        """The entry that a repo and file name; without a file, the repo's first entry."""
        if file is None:
            return self._first_of_repo.get(repo.lower())
        return self._by_file.get((repo.lower(), file))

    def entries_of(self, repo: str) -> list[CatalogEntry]:
        """The entries of a repo."""
        return [entry for entry in self.entries if entry.repo.lower() == repo.lower()]

    def names_of(self, repo: str) -> Mapping[str, str]:
        """The names of a repo's entries, by their ids: whatever was registered first, they are the same."""
        return self._names.get(repo.lower(), {})

    def _curated_names(self) -> dict[str, dict[str, str]]:
        """Names by `lower(repo)` and id: the first entry of a repo goes by the bare name."""
        names: dict[str, dict[str, str]] = {}
        quants = Counter((entry.repo.lower(), entry.quantization.lower()) for entry in self.entries)
        for entry in self.entries:
            base = entry.repo.lower()
            there = names.setdefault(base, {})
            # Several files of one quantization (whisper's sizes): only the file's own name tells them apart.
            telling = entry.quantization if quants[base, entry.quantization.lower()] == 1 else ""
            free = (name for name in suffixed(base, entry.file, telling) if name not in there.values())
            there[entry.id] = next(free) if there else base
        return names


def suffixed(base: str, file: str, quantization: str) -> Iterator[str]:
    """Names for a further file of a repo, in order of preference, without end."""
    if quantization:
        yield f"{base}:{_slug(quantization)}"
    stem = _slug(file.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    yield f"{base}:{stem}"
    yield from (f"{base}:{stem}-{number}" for number in count(2))


def _slug(text: str) -> str:
    return _UNNAMEABLE.sub("-", text.lower())[:_MAX_SLUG].strip("-.") or "file"


class Catalogs(Generic[T]):
    """What is made of the catalogs that programs of this user name by path, each made anew when its file has changed.

    Args:
        cache_dir: Where their checked forms are kept; None reads the YAML each time it has changed.
    """

    def __init__(self, make: Callable[[Supported], T], cache_dir: Path | None = None) -> None:
        self._make, self._cache_dir = make, cache_dir
        self._held: OrderedDict[Path, tuple[object, T]] = OrderedDict()

    @property
    def held(self) -> list[T]:
        """What is in memory."""
        return [made for _, made in self._held.values()]

    async def at(self, path: Path) -> T:
        """For the catalog in this file as it is now; as it was last, while it cannot be used.

        Raises:
            Refused: `bad_catalog`: it cannot be used, and never could.
        """
        known = self._held.get(path)
        found = await run_blocking(lambda: self._read(path, known), "catalog")
        self._held[path] = found
        self._held.move_to_end(path)
        while len(self._held) > MOST_CATALOGS:
            self._held.popitem(last=False)
        return found[1]

    def _read(self, path: Path, known: tuple[object, T] | None) -> tuple[object, T]:
        version = catalog_version(path)
        if known is not None and known[0] == version:
            return known
        try:
            return version, self._make(Supported(load_catalog(path, self._cache_dir)))
        except BadCatalog as error:
            if known is None:
                raise Refused("bad_catalog", str(explain(error))) from error
            log.warning("%s What it said before is used.", explain(error).what)
            return version, known[1]
