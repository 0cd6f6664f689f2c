"""What the demo serves: the built-in catalog's models, each scaled down to some MB, and a catalog that says so."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelhub_tui.domain import CatalogEntry, CatalogFile
from tests.hub.blobs import Generated, Source
from tests.hub.content import gguf_bytes, gguf_of_size, readme, safetensors_head
from tests.hub.repos import HubRepo

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
_QUANTIZATION = re.compile(r"Q\d(_K(_[SML])?|_\d)|IQ\d_\w+|MXFP4|BF16|F16", re.I)
UNKNOWN_SIZE = 2_000_000_000
"""Taken as the real size where the catalog states none, in bytes."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What `build` made."""

    repos: tuple[HubRepo, ...]
    catalog: dict[str, Any]
    """The demo's catalog, as YAML would hold it."""
    gated: CatalogEntry
    """Its repo refuses everybody without the right token."""
    flaky: CatalogEntry
    """Its line is to break now and then."""


def demo_size(real_bytes: int) -> int:
    """Bytes the demo serves for a file: 24 MB for one of 4.7 GB, and less than in proportion for bigger ones."""
    return max(int(24e6 * (real_bytes / 4.7e9) ** 0.4), 4096)


def choose(entries: Sequence[CatalogEntry], count: int) -> tuple[CatalogEntry, ...]:
    """About `count` entries from all over the catalog, in its order: 0 means all of them.

    One with shards and one with companions are among them: they show what a transfer of several files looks like.
    """
    if not 0 < count < len(entries):
        return tuple(entries)
    wanted = {index * len(entries) // count for index in range(count)}
    for special in (lambda each: len(each.files) > 1, lambda each: each.companions):
        if not any(special(entries[index]) for index in wanted):
            wanted |= {index for index, each in enumerate(entries) if special(each) and each.format == "gguf"}
    return tuple(entries[index] for index in sorted(wanted))


def build(entries: Sequence[CatalogEntry]) -> Demo:
    """Make the repos of these entries, and the catalog with their true sizes, checksums and commits.

    Everything is the same in every run. Names, texts and the memory a model needs stay the real model's.
    """
    contents: dict[str, dict[str, Source]] = {}
    tags: dict[str, CatalogEntry] = {}
    for entry in entries:
        tags.setdefault(entry.repo, entry)
        for file in (*entry.files, *entry.companions):
            files = contents.setdefault(file.repo or entry.repo, {})
            files.setdefault(file.path, _content(file, entry))
    plain = [each for each in entries if each.format == "gguf" and len(contents[each.repo]) == 1]
    gated, flaky = plain[-(len(plain) // 3) - 1], plain[len(plain) // 5]
    repos = []
    for id, files in contents.items():
        about = tags.get(id)
        more = _neighbours(files) if about else {}
        repos.append(
            HubRepo(
                id,
                {**files, **more, "README.md": readme(about.name if about else id)},
                gated="manual" if id == gated.repo else False,
                downloads=downloads(id),
                likes=likes(id),
                tags=("gguf", *(about.tags if about else ())) if any(p.endswith(".gguf") for p in files) else (),
                pipeline_tag="text-generation",
            )
        )
    repos += _extra_repos()
    served = {repo.id: repo for repo in repos}
    with ThreadPoolExecutor(4) as pool:
        # Hashing is the one slow step; the library releases the lock while it works.
        list(pool.map(lambda at: served[at[0]][at[1]].sha256, [(id, path) for id in contents for path in contents[id]]))
    models = [_entry(entry, served, gated=entry.repo == gated.repo) for entry in entries]
    return Demo(tuple(repos), {"schema": 1, "models": models}, gated, flaky)


def write_catalog(demo: Demo, path: Path) -> None:
    """Write the demo's catalog as YAML."""
    path.write_text(yaml.safe_dump(demo.catalog, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")


def downloads(repo: str) -> int:
    """A believable number for a repo: most have thousands, few have millions."""
    return int(10 ** (2.8 + 3.6 * fraction(f"downloads {repo}") ** 1.3))


def likes(repo: str) -> int:
    """A believable number that goes with `downloads`."""
    return int(downloads(repo) ** 0.55 * (0.3 + fraction(f"likes {repo}")))


def fraction(text: str) -> float:
    """0..1, evenly spread over texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _content(file: CatalogFile, entry: CatalogEntry) -> Source:
    """A small file in the place of a big one, valid where its format makes that cheap."""
    if file.path.endswith(".json"):
        return json.dumps({"model_type": entry.id, "note": "served by the demo"}, indent=2)
    known = entry.total_bytes // len(entry.files) if entry.total_bytes else UNKNOWN_SIZE
    size = demo_size(file.size_bytes or known)
    seed = int(fraction(f"{entry.repo} {file.path}") * 2**31)
    if file.path.endswith(".gguf"):
        shard = _SHARD.search(file.path)
        split = (int(shard[1]) - 1, int(shard[2])) if shard else None
        arch = "clip" if "mmproj" in file.path.lower() else "llama"
        return gguf_of_size(size, seed, name=entry.name, arch=arch, split=split)
    if file.path.endswith(".safetensors"):
        return Generated(size, seed, safetensors_head(size))
    return Generated(size, seed)


def _neighbours(files: dict[str, Source]) -> dict[str, Source]:
    """Other quantizations beside a repo's only GGUF, so that there is something to choose from."""
    weights = [path for path in files if path.endswith(".gguf") and "mmproj" not in path and not _SHARD.search(path)]
    if len(weights) != 1 or not (found := _QUANTIZATION.search(weights[0])):
        return {}
    source = files[weights[0]]
    assert isinstance(source, Generated)
    made: dict[str, Source] = {}
    for kind, factor in (("Q3_K_M", 0.8), ("Q5_K_M", 1.2), ("Q6_K", 1.4), ("Q8_0", 1.8)):
        path = weights[0][: found.start()] + kind + weights[0][found.end() :]
        if path not in files:
            made[path] = gguf_of_size(int(source.size * factor), source.seed + len(made) + 1)
    return made


def _extra_repos() -> list[HubRepo]:
    """Repos outside the catalog, to register by hand."""
    sizes = {"Q4_K_M": 4_000_000, "Q8_0": 7_000_000}
    return [
        HubRepo(
            "demo/Tiny-Stories-GGUF",
            {"tiny-stories.Q8_0.gguf": gguf_bytes("Tiny Stories", 3), "README.md": readme("Tiny Stories")},
            downloads=downloads("demo/Tiny-Stories-GGUF"),
            likes=likes("demo/Tiny-Stories-GGUF"),
            tags=("gguf",),
        ),
        HubRepo(
            "demo/Choose-One-GGUF",
            {f"choose-one.{kind}.gguf": gguf_of_size(size, size) for kind, size in sizes.items()},
            downloads=downloads("demo/Choose-One-GGUF"),
            likes=likes("demo/Choose-One-GGUF"),
            tags=("gguf",),
        ),
        HubRepo("demo/Private-GGUF", {"private.Q4_K_M.gguf": gguf_bytes("Private", 4)}, private=True),
        HubRepo("demo/No-Weights", {"README.md": readme("Nothing to run here")}, downloads=3, likes=0),
    ]


def _entry(entry: CatalogEntry, served: dict[str, HubRepo], *, gated: bool) -> dict[str, Any]:
    """One entry for the catalog file."""
    made: dict[str, Any] = {
        "id": entry.id,
        "name": entry.name,
        "description": entry.description,
        "repo": entry.repo,
        "revision": served[entry.repo].sha,
        "files": [_file(file, served[entry.repo]) for file in entry.files],
        "companions": [
            {**_file(file, served[file.repo or entry.repo]), **_elsewhere(file, served)} for file in entry.companions
        ],
        "required_memory_bytes": entry.required_memory_bytes,
        "required_memory_rule": entry.required_memory_rule,
        "quantization": entry.quantization,
        "parameters": entry.parameters,
        "context_length": entry.context_length,
        "license": entry.license,
        "gated": gated,
        "languages": list(entry.languages),
        "tags": list(entry.tags),
        "capabilities": list(entry.capabilities),
        "format": entry.format,
    }
    return {name: value for name, value in made.items() if value not in (None, "", [])}


def _file(file: CatalogFile, repo: HubRepo) -> dict[str, Any]:
    blob = repo[file.path]
    return {"path": file.path, "size_bytes": blob.size} | ({"sha256": blob.sha256} if blob.lfs else {})


def _elsewhere(file: CatalogFile, served: dict[str, HubRepo]) -> dict[str, str]:
    return {"repo": file.repo, "revision": served[file.repo].sha} if file.repo else {}
