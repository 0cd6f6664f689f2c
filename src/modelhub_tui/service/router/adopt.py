"""What nodes found on their disks, as registrations that could be made of it: nobody asks the hub.

A found model is joined to the catalog entry whose files it holds, with the companions that the entry wants beside them;
an entry of which only a part is there is no found model (pulling it fetches the rest).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from modelhub_tui.domain import CatalogEntry, CatalogFile, Placement
from modelhub_tui.errors import BadReference
from modelhub_tui.hub_refs import parse_hub_ref
from modelhub_tui.identifiers import commit, safe_repo_path
from modelhub_tui.service.router.artefact import Choice, RepoFile, choose, quantization
from modelhub_tui.service.router.bodies import FoundBody
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.fleet import Fleet, LiveNode
from modelhub_tui.service.router.records import ManifestFile, Registration
from modelhub_tui.service.router.registry import Registry
from modelhub_tui.service.router.resolve import MEMORY_FACTOR, kind_of
from modelhub_tui.service.router.supported import Supported
from modelhub_tui.values import dataclass

MAX_OFFERS = 500
_CONFIGS = ("config.json", "model_index.json", "params.json")


@dataclass(frozen=True, slots=True)
class Offer:
    """One model that could be adopted."""

    record: Registration
    """What adopting it registers."""
    entry: CatalogEntry | None
    placements: tuple[tuple[str, str, Placement], ...]
    """(node id, node name, placement)"""


@dataclass(frozen=True, slots=True)
class _Part:
    """One group of files, as one node reported it and as we would register it."""

    files: tuple[ManifestFile, ...]
    paths: tuple[str, ...]
    """Where they are on the node, in the same order; empty if it does not tell."""


class Offers:
    """Keeps what could be adopted, and makes it anew only when nodes or registrations have changed."""

    def __init__(
        self, registry: Registry, fleet: Fleet, supported: Supported, endpoint: str = "https://huggingface.co"
    ) -> None:
        self._registry, self._fleet, self._supported, self._endpoint = registry, fleet, supported, endpoint
        self._made_of: tuple[list[tuple[str, tuple[FoundBody, ...]]], list[tuple[str, str]]] = ([], [])
        self._offers: dict[str, Offer] = {}

    def current(self) -> dict[str, Offer]:
        """Offers by the name that adopting gives them."""
        found = [(node.id, node.found) for node in self._fleet.nodes.values() if node.found]
        registered = [(record.name, record.filename) for record in self._registry.records.values()]
        before, names = self._made_of
        same = [each for each, _ in found] == [each for each, _ in before] and all(
            new is old for (_, new), (_, old) in zip(found, before, strict=True)
        )
        if not same or registered != names:
            self._made_of = (found, registered)
            self._offers = self._make() if found else {}
        return self._offers

    def deleted(self, body: FoundBody) -> Registration | None:
        """The registration of a deleted model that a node still has and nobody else remembers; None if it is none."""
        part = _checked(body, self._endpoint)
        if part is None or body.deleted_as is None or body.registration is None:
            return None
        entry, choice = self._entry_of(part), _choice(part)
        if entry is None and choice is None:
            return None
        return replace(_registration(part, entry, choice), name=body.deleted_as, id=body.registration)

    def bytes_by_node(self) -> dict[str, int]:
        """What the models take that are listed as found on a node, by its id; nodes without any are left out.

        Every file counts once, and none that the node counts as its registered models'.
        """
        found: dict[str, dict[tuple[str, str | None], int]] = {}
        for offer in self.current().values():
            files = {_blob(file): file.size or 0 for file in offer.record.files}
            for node_id, _, _ in offer.placements:
                found.setdefault(node_id, {}).update(files)
        return {
            node_id: sum(files[blob] for blob in files.keys() - self._held(self._fleet.nodes[node_id]))
            for node_id, files in found.items()
            if node_id in self._fleet.nodes
        }

    def _held(self, node: LiveNode) -> set[tuple[str, str | None]]:
        records = self._registry.records
        names = (*node.placements, *node.transfers)
        return {_blob(file) for name in names if name in records for file in records[name].files}

    def _make(self) -> dict[str, Offer]:
        offers: dict[tuple[str, str], Offer] = {}
        for node in self._fleet.nodes.values():
            for record, entry, placement in self._of_node(node):
                key = (record.repo.lower(), record.filename)
                where = (node.id, node.name, placement)
                known = offers.get(key)
                if known is None:
                    offers[key] = Offer(record, entry, (where,))
                elif known.record.files == record.files:
                    offers[key] = replace(known, placements=(*known.placements, where))
        named: dict[str, Offer] = {}
        in_order = sorted(offers.items(), key=lambda item: (item[1].entry is None, item[0]))
        for (repo, file), offer in in_order[:MAX_OFFERS]:
            curated = offer.entry is not None
            quant = offer.record.quantization
            name = (
                self._registry.name_for(repo, file, quant, self._supported)
                if curated
                else self._free_name(offer.record, named)
            )
            if name not in self._registry.records and name not in named:
                named[name] = replace(offer, record=replace(offer.record, name=name))
        return named

    def _free_name(self, record: Registration, taken: Iterable[str]) -> str:
        return self._registry.new_name(record.repo, record.filename, record.quantization, taken, self._supported)

    def _of_node(self, node: LiveNode) -> Iterator[tuple[Registration, CatalogEntry | None, Placement]]:
        parts = [part for body in node.found if (part := _checked(body, self._endpoint)) is not None]
        anywhere = {
            (file.repo.lower(), file.path): _one(part, at) for part in parts for at, file in enumerate(part.files)
        }
        for part in parts:
            entry = self._entry_of(part)
            choice = _choice(part)
            if entry is None and (choice is None or not _is_model(choice, part)):
                continue
            if entry is not None:
                whole = _with_companions(entry, part, anywhere)
                if whole is None:
                    continue
                part = whole
            record = _registration(part, entry, choice)
            if self._registry.find(record.repo, record.filename) is None:
                disk = sum({_blob(file): file.size or 0 for file in part.files}.values())
                first = part.paths[0] if part.paths else None
                bare = [at for at, file in enumerate(part.files) if not (file.sha256 or file.blob_id)]
                # What has a checksum is compared with it when somebody adopts the model.
                verified = False if bare else None
                unverified = tuple(part.paths[at] for at in bare) if part.paths else ()
                yield record, entry, Placement(node.name, first, part.paths, disk, "", verified, unverified)

    def _entry_of(self, part: _Part) -> CatalogEntry | None:
        """The catalog entry whose own files these are. The most demanding one, when one's files are all another's."""
        there = {file.path for file in part.files}
        matching = [
            entry
            for entry in self._supported.entries_of(part.files[0].repo)
            if entry.files[0].repo in (None, entry.repo)
            and {file.path for file in entry.files if file.repo in (None, entry.repo)} <= there
        ]
        return max(matching, key=lambda entry: len(entry.files), default=None)


def _blob(file: ManifestFile) -> tuple[str, str | None]:
    """What two files have in common that are one on the disk."""
    return file.repo.lower(), file.sha256 or file.blob_id or file.path


def _checked(body: FoundBody, endpoint: str) -> _Part | None:
    """A node's word on one model, or None where it could not be a hub's: names that no repo has."""
    try:
        if parse_hub_ref(body.repo, endpoint).repo != body.repo:
            return None
        commit(body.revision)
        files = tuple(
            ManifestFile(safe_repo_path(each.path), body.repo, body.revision, each.size, each.sha256, each.blob_id)
            for each in body.files
        )
    except (BadReference, ValueError):
        return None
    if len({file.path for file in files}) != len(files):
        return None
    return _Part(files, tuple(body.paths) if len(body.paths) == len(files) else ())


def _with_companions(entry: CatalogEntry, part: _Part, anywhere: dict[tuple[str, str], _Part]) -> _Part | None:
    """The entry's files and companions; None when something it wants is not there, or is not what the catalog says."""
    own = {file.path: file for file in part.files}
    others: list[CatalogFile] = []
    for wanted in (*entry.files, *entry.companions):
        there = own.get(wanted.path) if wanted.repo in (None, entry.repo) else None
        if there is None:
            others.append(wanted)
        elif _damaged(wanted, there, wanted.revision or entry.revision):
            return None
        else:
            own[wanted.path] = _pinned(wanted, there, wanted.revision or entry.revision)
    files, paths = list(own.values()), list(part.paths)
    for wanted in others:
        found = anywhere.get(((wanted.repo or entry.repo).lower(), wanted.path))
        revision = wanted.revision or (entry.revision if wanted.repo in (None, entry.repo) else None)
        if found is None or _damaged(wanted, found.files[0], revision):
            return None
        files.append(_pinned(wanted, found.files[0], revision))
        paths += found.paths
    return _Part(tuple(files), tuple(paths) if len(paths) == len(files) else ())


def _damaged(wanted: CatalogFile, there: ManifestFile, revision: str | None) -> bool:
    """Whether a file is not the catalog's though it should be: at the catalog's commit, or by its checksum.

    Another checksum at another commit is another revision.
    """
    at_commit = there.revision == revision
    known = wanted.sha256 is not None and there.sha256 is not None
    if at_commit and known and wanted.sha256 != there.sha256:
        return True
    same = at_commit or (known and wanted.sha256 == there.sha256)
    return same and wanted.size_bytes is not None and wanted.size_bytes != there.size


def _pinned(wanted: CatalogFile, there: ManifestFile, revision: str | None) -> ManifestFile:
    """With the catalog's checksum, where the cache tells none and it is of the same commit."""
    bare = not (there.sha256 or there.blob_id)
    return replace(there, sha256=wanted.sha256) if bare and there.revision == revision else there


def _one(part: _Part, at: int) -> _Part:
    return _Part((part.files[at],), part.paths[at : at + 1])


def _is_model(choice: Choice, part: _Part) -> bool:
    """Whether the files can be used by themselves: tensors without a configuration are a part of something else."""
    names = {each.path.rpartition("/")[2] for each in part.files}
    return choice.format in ("gguf", "ggml") or not names.isdisjoint(_CONFIGS)


def _choice(part: _Part) -> Choice | None:
    """Format and telling file of a model that is in no catalog; None if it is no model."""
    files = [RepoFile(each.path, each.size, each.sha256, each.blob_id) for each in part.files]
    try:
        return choose(files, None)
    except Refused:
        weights = [each.path for each in part.files if each.path.lower().endswith(".bin")]
    if not weights:
        return None
    kind = "ggml" if weights[0].rpartition("/")[2].startswith("ggml-") else "pytorch"
    return Choice(kind, weights[0], tuple(files), quantization(weights[0]))


def _registration(part: _Part, entry: CatalogEntry | None, choice: Choice | None) -> Registration:
    first = part.files[0]
    size = sum(each.size or 0 for each in part.files)
    if entry is not None:
        return Registration(
            name="",
            repo=entry.repo,
            filename=entry.file,
            revision=first.revision,
            files=part.files,
            format=entry.format,
            title=entry.name,
            description=entry.description,
            size=size,
            required_memory=entry.required_memory_bytes or math.ceil(size * MEMORY_FACTOR),
            tags=entry.tags,
            capabilities=entry.capabilities,
            quantization=entry.quantization or quantization(entry.file),
            parameter_count=entry.parameters,
            context_length=entry.context_length,
            license=entry.license,
            gated=entry.gated,
            catalog_id=entry.id,
        )
    assert choice is not None
    return Registration(
        name="",
        repo=first.repo,
        filename=choice.filename,
        revision=first.revision,
        files=part.files,
        format=choice.format,
        title=first.repo.rpartition("/")[2],
        description=first.repo,
        size=size,
        required_memory=math.ceil(size * MEMORY_FACTOR),
        tags=(choice.format,),
        capabilities=("speech_to_text",) if choice.format == "ggml" else (kind_of(choice),),
        quantization=choice.quantization,
    )
