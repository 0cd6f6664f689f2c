"""The curated models: read catalog.yaml once, keep the checked result, start from that ever after.

The first frame shows the catalog, so the usual way in is short: a JSON file in the cache folder that holds the entries
as they came out of the last full check, valid for exactly one version of one catalog file. Reading YAML and checking it
with pydantic costs a hundred times more; `modelhub_tui.catalog_schema` does that, imported only when the catalog has
changed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from itertools import chain, product
from pathlib import Path
from typing import Any

from modelhub_tui import __version__
from modelhub_tui.domain import CatalogEntry, CatalogFile
from modelhub_tui.errors import BadCatalog
from modelhub_tui.identifiers import safe_repo_path
from modelhub_tui.small_files import read_small

log = logging.getLogger(__name__)

_CACHE_LIMIT_BYTES = 8_000_000
_NONE = type(None)
# The types a stored row may have, position by position; the order is that of the dataclasses' fields, so that a row is
# their argument list. A JSON list stands for a tuple. As whole rows, because a single look-up is what makes this fast.
_FILE_ROWS = frozenset(product((str,), (int, _NONE), (str, _NONE), (str, _NONE), (str, _NONE)))
_ENTRY_ROWS = frozenset(
    product(
        *[(str,), (str,), (str,), (str,)],  # id, name, description, repo
        *[(list,), (list,)],  # files, companions
        *[(str, _NONE), (int, _NONE), (str,)],  # revision, required_memory_bytes, required_memory_rule
        *[(str,), (str,), (int, _NONE), (str,), (bool,)],  # quantization, parameters, context_length, license, gated
        *[(list,), (list,), (list,)],  # languages, tags, capabilities
        *[(str,), (int, _NONE)],  # format, total_bytes
    )
)
# What `json` writes for a character that `untrusted.clean` lets through: nothing but these two.
_ODD_ESCAPE = re.compile(r'\\[^"]')


def catalog_path(path: Path | None = None) -> Path:
    """Return where the catalog is: `path` if given, else the built-in one of this wheel or checkout."""
    if path is not None:
        return path
    installed = Path(__file__).with_name("catalog.yaml")
    return installed if installed.is_file() else Path(__file__).parents[2] / "catalog.yaml"


def load_catalog(path: Path | None = None, cache_dir: Path | None = None) -> tuple[CatalogEntry, ...]:
    """Return the catalog's entries, in its order.

    Args:
        path: A catalog of the user's own; None means the built-in one.
        cache_dir: Where the checked form is kept between runs; None reads the YAML anew.

    Raises:
        BadCatalog: With every problem, one line each.
    """
    source = catalog_path(path)
    key = catalog_version(source) if cache_dir is not None else None
    cached = cache_dir / f"catalog-{zlib.crc32(key[0].encode()):08x}.json" if cache_dir is not None and key else None
    if cached is not None:
        entries = _read_cache(cached, key)
        if entries is not None:
            return entries

    from modelhub_tui.catalog_schema import read_catalog

    entries, problems = read_catalog(source)
    if problems:
        raise BadCatalog(str(source), problems)
    if cached is not None:
        _write_cache(cached, key, entries)
    return entries


def check_catalog(path: Path | None = None) -> tuple[str, ...]:
    """Return every problem of a catalog, one line each: `file:line: entry 'id': field: what is wrong; what to do`."""
    from modelhub_tui.catalog_schema import read_catalog

    return read_catalog(catalog_path(path))[1]


def catalog_version(source: Path) -> list[str] | None:
    """What a catalog's checked form depends on; None when the file is not there (the full check will say so).

    Texts, because a list of them survives JSON and compares with `==`.
    """
    try:
        real = os.path.realpath(source)
        info = os.stat(real)  # noqa: PTH116 - half the price of Path.stat, before the first frame
    except (OSError, ValueError):
        return None
    # Installers may give a new file an old date; when it came here they cannot choose.
    changed = f"{info.st_mtime_ns} {info.st_ctime_ns} {info.st_size}"
    return [real, changed, __version__, _shape()]


def _shape() -> str:
    """The fields a cached row has, so that a program with other fields does not read it."""
    return ",".join((*CatalogEntry.__slots__, *CatalogFile.__slots__))


def _read_cache(cached: Path, key: list[str] | None) -> tuple[CatalogEntry, ...] | None:
    """The entries, or None when the cache is missing, of another version, damaged, or not our own."""
    try:
        raw = read_small(cached, _CACHE_LIMIT_BYTES, only_ours=True)
    except OSError:
        return None
    try:
        text = raw.decode()
        # `isprintable` and the escapes say of the whole file what `untrusted.clean` would say of each text in it.
        if not text.isprintable() or _ODD_ESCAPE.search(text.replace("\\\\", "")):
            return None
        stored = json.loads(text)
        if type(stored) is not dict or stored.get("key") != key or type(stored.get("entries")) is not list:
            return None
        return tuple([_entry(row) for row in stored["entries"]])
    except (ValueError, TypeError, RecursionError) as error:
        log.info("the cached catalog %s is damaged (%s); reading the YAML again", cached, type(error).__name__)
        return None


def _entry(row: Any) -> CatalogEntry:
    """One entry from its cached row.

    Raises:
        ValueError, TypeError: It is not what `_write_cache` writes.
    """
    if tuple(map(type, row)) not in _ENTRY_ROWS or not row[4]:
        raise ValueError("not an entry")
    row[4], row[5] = tuple(map(_file, row[4])), tuple(map(_file, row[5]))
    row[14:17] = words = tuple(map(tuple, row[14:17]))
    if not {str}.issuperset(map(type, chain(*words))):
        raise ValueError("not a list of words")
    return CatalogEntry(*row)


def _file(row: Any) -> CatalogFile:
    if tuple(map(type, row)) not in _FILE_ROWS:
        raise ValueError("not a file")
    safe_repo_path(row[0])
    return CatalogFile(*row)


def _write_cache(cached: Path, key: list[str] | None, entries: tuple[CatalogEntry, ...]) -> None:
    """Keep the checked entries for the next start. A folder that cannot be written only makes that start slower."""
    import tempfile
    from dataclasses import astuple

    text = json.dumps({"key": key, "entries": [astuple(each) for each in entries]}, ensure_ascii=False)
    temporary = None
    try:
        cached.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{cached.name}.", dir=cached.parent)  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        Path(temporary).replace(cached)
    except (OSError, UnicodeEncodeError) as error:
        log.info("cannot keep the checked catalog in %s (%s)", cached.parent, error)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
