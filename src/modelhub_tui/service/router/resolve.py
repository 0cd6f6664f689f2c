"""Turn a register request into a registration: parse, ask the hub, choose the files, describe the model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace

from modelhub_tui.domain import CatalogEntry, CatalogFile
from modelhub_tui.errors import BadReference
from modelhub_tui.hub_refs import HubRef, check_revision, parse_hub_ref
from modelhub_tui.identifiers import is_commit, safe_repo_path
from modelhub_tui.service.router.artefact import Choice, RepoFile, choose, quantization
from modelhub_tui.service.router.blocking import run_blocking
from modelhub_tui.service.router.bodies import RegisterBody
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.hub import Hub, RepoFacts
from modelhub_tui.service.router.records import ManifestFile, Registration
from modelhub_tui.service.router.registry import Registry, Taken
from modelhub_tui.service.router.supported import Supported
from modelhub_tui.units import human_count
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

DEADLINE_S = 50.0
"""Longest that a registration may take, all attempts together; upstream advises its clients to wait 60 s."""
MEMORY_FACTOR = 1.5
_OUTAGE = frozenset({"hub_unreachable", "hub_failed"})
_PIPELINES = {
    "feature-extraction": "embedding",
    "sentence-similarity": "embedding",
    "automatic-speech-recognition": "speech_to_text",
    "text-to-speech": "text_to_speech",
    "text-to-image": "image_generation",
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A registration to be stored, and what the person should know about it."""

    record: Registration
    warnings: tuple[str, ...] = ()


class Resolver:
    """Resolves register requests against the hub.

    Args:
        clock: Wall clock, for the record's time.
    """

    def __init__(self, registry: Registry, hub: Hub, *, clock: Callable[[], float] = time.time) -> None:
        self._registry, self._hub, self._clock = registry, hub, clock

    async def resolve(self, body: RegisterBody, supported: Supported | None = None) -> Resolved:
        """Find out everything that nodes need.

        Args:
            supported: The catalog to go by; None for the service's own.

        Raises:
            Refused: With a code and a sentence that says what to do.
            Taken: It is registered already; known without asking the hub where the request names it fully.
        """
        ref = self._parse(body)
        supported = supported or self._registry.supported
        entry = supported.entry_for(ref.repo, ref.file)
        if entry is not None and ref.revision == entry.revision:
            # A pull names the commit that the catalog lists: that is the entry, companions and all.
            ref = replace(ref, revision=None)
        elif ref.revision is not None:
            entry = None
        curated = supported.entries_of(ref.repo) if ref.file is None else []
        if len(curated) > 1:
            files = tuple(each.file for each in curated)
            raise Refused(
                "several_files", "Several supported models share this repo; specify filename", candidates=files
            )
        file = ref.file or (entry.file if entry else None)
        there = self._registry.find(ref.repo, file) if file else None
        if there is not None:
            raise Taken(there.name)
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await run_blocking(lambda: self._blocking(ref, entry, body, supported), "resolve")
        except TimeoutError:
            what = f"The hub at {self._hub.endpoint} does not answer in time; try again later."
            error = Refused("hub_unreachable", what)
            if (told := self._offline(entry, body, error)) is None:
                raise error from None
            return told

    def _parse(self, body: RegisterBody) -> HubRef:
        if not body.repo.strip():
            raise Refused("bad_reference", "repo is required")
        try:
            ref = parse_hub_ref(body.repo, self._hub.endpoint)
        except BadReference as error:
            raise Refused("bad_reference", error.reason) from error
        file, revision = body.filename, body.revision
        if file is not None:
            if not file.strip():
                raise Refused("bad_reference", "filename must not be empty")
            if file.startswith(("/", "\\")):
                raise Refused("bad_reference", "filename must be a relative path")
            try:
                safe_repo_path(file)
            except ValueError as error:
                raise Refused("bad_reference", "filename contains invalid path segment") from error
        if revision is not None:
            try:
                check_revision(revision)
            except BadReference as error:
                what = "That is no revision; give a branch, a tag or a commit, or leave it out."
                raise Refused("no_such_revision", what) from error
        revision = None if revision == "main" else revision
        return HubRef(ref.repo, revision or ref.revision, file or ref.file)

    def _blocking(self, ref: HubRef, entry: CatalogEntry | None, body: RegisterBody, supported: Supported) -> Resolved:
        warnings: list[str] = []
        try:
            facts = self._facts(ref.repo, ref.revision, entry.revision if entry else None, warnings)
        except Refused as error:
            if (told := self._offline(entry, body, error)) is None:
                raise
            return told
        if facts.gated:
            self._hub.check_access(facts.repo)
        # A renamed repo may be in the catalog under its present name.
        if entry is None and ref.revision is None and facts.repo.lower() != ref.repo.lower():
            entry = supported.entry_for(facts.repo, ref.file)
        if entry is not None:
            choice, files = self._curated(entry, facts, warnings)
        else:
            choice = choose(facts.files, ref.file)
            files = self._pinned(facts, choice.files)
        return Resolved(self._record(facts, entry, choice, files, body), tuple(warnings))

    def _offline(self, entry: CatalogEntry | None, body: RegisterBody, error: Refused) -> Resolved | None:
        """What the catalog alone says of a model while the hub does not answer; None if that is not enough.

        A GGUF of which the catalog tells commit, sizes and checksums is all that nodes need: they wait for the hub.
        """
        files = _catalog_files(entry) if entry is not None and error.code in _OUTAGE else None
        if entry is None or entry.revision is None or files is None:
            return None
        facts = RepoFacts(entry.repo, entry.revision, (), gated=entry.gated)
        choice = Choice(entry.format, entry.file, (), entry.quantization or quantization(entry.file))
        said = f"{error.reason} It is registered as the catalog lists it, and fetched when the hub answers."
        return Resolved(self._record(facts, entry, choice, files, body), (said,))

    def _record(
        self,
        facts: RepoFacts,
        entry: CatalogEntry | None,
        choice: Choice,
        files: list[ManifestFile],
        body: RegisterBody,
    ) -> Registration:
        size = sum(each.size or 0 for each in files)
        kind = kind_of(choice)
        return Registration(
            name="",
            repo=entry.repo if entry else facts.repo,
            filename=entry.file if entry else choice.filename,
            revision=facts.commit,
            files=tuple(files),
            format=choice.format,
            title=body.display_name or (entry.name if entry else facts.repo.rsplit("/", 1)[-1]),
            description=(entry.description if entry else "") or body.display_name or facts.repo,
            size=size,
            required_memory=(entry.required_memory_bytes if entry else None) or math.ceil(size * MEMORY_FACTOR),
            tags=entry.tags if entry else (choice.format, *(each for each in facts.tags if each != choice.format))[:12],
            capabilities=entry.capabilities if entry else (_PIPELINES.get(facts.pipeline, kind),),
            quantization=entry.quantization if entry else choice.quantization,
            parameter_count=entry.parameters if entry else human_count(facts.parameters).upper().replace("G", "B"),
            context_length=entry.context_length if entry else facts.context_length,
            license=entry.license if entry else facts.license,
            gated=facts.gated,
            chat_template=body.chat_template if body.chat_template is not None else facts.chat_template,
            catalog_id=entry.id if entry else None,
            registered_at=self._clock(),
        )

    def _facts(self, repo: str, asked: str | None, curated: str | None, warnings: list[str]) -> RepoFacts:
        """The repo at the revision that was asked for; the catalog's own revision may have gone, then the newest.

        Raises:
            Refused: Among others `changed_upstream`: a commit was asked for, and the hub answers with another.
        """
        wanted = asked or curated
        try:
            facts = self._hub.facts(repo, wanted)
            if is_commit(wanted) and facts.commit != wanted:
                said = f"the {'request' if asked else 'catalog'} says commit {wanted}"
                raise _changed(repo, said, f"the hub says {clean(facts.commit, 64)}")
            return facts
        except Refused as error:
            if error.code != "no_such_revision" or asked is not None or curated is None:
                raise
        warnings.append(f"The catalog's revision {curated[:12]} of {repo} is gone; the newest is used.")
        return self._hub.facts(repo, None)

    def _curated(self, entry: CatalogEntry, facts: RepoFacts, warnings: list[str]) -> tuple[Choice, list[ManifestFile]]:
        """A catalog entry's own files, shards and companions, at their commits."""
        listing = {each.path: each for each in facts.files}
        weights = [file for file in entry.files if file.repo in (None, entry.repo)]
        missing = [file.path for file in weights if file.path not in listing]
        if missing:
            # The repo was rearranged upstream: say what is there instead, most useful first.
            try:
                choose(facts.files, missing[0])
            except Refused as error:
                candidates = error.candidates
            else:
                candidates = ()
            raise Refused(
                "no_such_file", f"{facts.repo} no longer has {missing[0]}; choose another file.", candidates=candidates
            )
        files = self._agreed(weights, self._pinned(facts, [listing[file.path] for file in weights]))
        if entry.format in ("safetensors", "onnx"):
            # The catalog may list the weights alone; a loader also wants the configuration beside them.
            own = {file.path for file in files}
            extra = [each for each in choose(facts.files, entry.file).files if each.path not in own]
            files += self._pinned(facts, [each for each in extra if not each.path.endswith((".safetensors", ".onnx"))])
        known: dict[str, RepoFacts] = {facts.repo.lower(): facts, entry.repo.lower(): facts}
        others = [file for file in entry.files if file not in weights]
        for file in (*others, *entry.companions):
            found = self._companion(file, entry, known, warnings)
            if found is not None and (found.repo, found.path) not in {(each.repo, each.path) for each in files}:
                files.append(found)
        return Choice(entry.format, entry.file, (), entry.quantization or quantization(entry.file)), files

    def _companion(
        self, file: CatalogFile, entry: CatalogEntry, known: dict[str, RepoFacts], warnings: list[str]
    ) -> ManifestFile | None:
        repo = file.repo or entry.repo
        facts = known.get(repo.lower())
        if facts is None:
            facts = known[repo.lower()] = self._facts(repo, None, file.revision, warnings)
            if facts.gated:
                self._hub.check_access(facts.repo)
        found = next((each for each in facts.files if each.path == file.path), None)
        if found is None:
            warnings.append(f"{repo} no longer has {file.path}; the model is registered without it.")
            return None
        return self._agreed([file], self._pinned(facts, [found]))[0]

    def _agreed(self, wanted: list[CatalogFile], files: list[ManifestFile]) -> list[ManifestFile]:
        """The files with what the catalog knows of them and the hub left out.

        Raises:
            Refused: `changed_upstream`: the two contradict each other.
        """
        out = []
        for ours, theirs in zip(wanted, files, strict=True):
            what = f"{theirs.path} in {theirs.repo}"
            if None not in (ours.sha256, theirs.sha256) and ours.sha256 != theirs.sha256:
                raise _changed(what, f"the catalog says sha256 {ours.sha256}", f"the hub says {theirs.sha256}")
            if None not in (ours.size_bytes, theirs.size) and ours.size_bytes != theirs.size:
                raise _changed(what, f"the catalog says {ours.size_bytes} bytes", f"the hub says {theirs.size}")
            size = ours.size_bytes if theirs.size is None else theirs.size
            out.append(replace(theirs, sha256=theirs.sha256 or ours.sha256, size=size))
        return out

    def _pinned(self, facts: RepoFacts, files: list[RepoFile] | tuple[RepoFile, ...]) -> list[ManifestFile]:
        """Files at the facts' commit, with sizes; the hub is asked again for those that its listing left out."""
        unsized = [each.path for each in files if each.size is None]
        told = self._hub.sizes(facts.repo, facts.commit, unsized) if unsized else {}
        full = [replace(told[each.path], path=each.path) if each.path in told else each for each in files]
        return [
            ManifestFile(each.path, facts.repo, facts.commit, each.size, each.sha256, each.blob_id) for each in full
        ]


def _changed(what: str, ours: str, theirs: str) -> Refused:
    """Registering this would give people something else than what was looked at when it was chosen."""
    todo = "check which is right, then correct the catalog or name another commit"
    return Refused("changed_upstream", f"{what} has changed upstream: {ours}, {theirs}; {todo}.")


def _catalog_files(entry: CatalogEntry) -> list[ManifestFile] | None:
    """All files of an entry, pinned, as the catalog lists them; None if it leaves anything to be asked of the hub."""
    files = []
    for each in (*entry.files, *entry.companions):
        elsewhere = each.repo not in (None, entry.repo)
        commit = each.revision if elsewhere else entry.revision
        if entry.format != "gguf" or commit is None or not (is_commit(commit) and each.size_bytes and each.sha256):
            return None
        files.append(ManifestFile(each.path, each.repo or entry.repo, commit, each.size_bytes, each.sha256))
    return files


def kind_of(choice: Choice) -> str:
    """What a model can do, as far as its file name tells."""
    name = choice.filename.lower()
    return "embedding" if choice.format == "gguf" and ("embed" in name or "bge-" in name) else "text_generation"
