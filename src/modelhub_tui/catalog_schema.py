"""The full check of a catalog: a file in, entries and problems out. Loaded only when no checked form is at hand.

pydantic checks each entry by itself, so that one mistake hides no other; its errors are worded for the file's author.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from modelhub_tui.catalog_yaml import MAX_PROBLEMS, Report, Tree, Unreadable, Where, read_yaml
from modelhub_tui.domain import CatalogEntry, CatalogFile
from modelhub_tui.errors import BadReference
from modelhub_tui.hub_refs import check_revision, parse_hub_ref
from modelhub_tui.identifiers import safe_repo_path
from modelhub_tui.untrusted import clean

SCHEMA = 1
"""The one version of the layout there is."""


def read_catalog(path: Path) -> tuple[tuple[CatalogEntry, ...], tuple[str, ...]]:
    """Read and check a catalog.

    Returns:
        The entries, to be used only if there are no problems; and all problems, as `file:line: ...`.
    """
    report = Report(clean(path, 200))
    try:
        tree = read_yaml(path, report)
    except Unreadable:
        return (), report.lines
    return _check(tree, report), report.lines


def _say(check: Callable[[str], object], what: str) -> Callable[[str], str]:
    """A pydantic validator from a function that raises ValueError with a reason."""

    def validate(text: str) -> str:
        try:
            check(text)
        except BadReference as error:
            raise ValueError(f"{what}: {error.reason.rstrip('.')}") from error
        except ValueError as error:
            raise ValueError(f"{error}; {what}") from error
        return text

    return validate


def _matching(pattern: str, wrong: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def validate(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"is {clean(text, 60)!r}; {wrong}")
        return text

    return validate


def _repo(text: str) -> None:
    if parse_hub_ref(text).repo != text:
        raise BadReference("it is more than a repo; write owner/name only")


def _cleaned(text: str) -> str:
    line = clean(text, 5_000)
    if not line:
        raise ValueError("is empty; give it a value or leave the field out")
    return line


Capability = Literal["text_generation", "vision", "embedding", "speech_to_text", "text_to_speech", "image_generation"]

_Id = Annotated[
    str,
    Field(max_length=100),
    AfterValidator(_matching(r"[a-z0-9][a-z0-9._-]*", "use lower-case letters, digits, dots and dashes")),
]
_Name = Annotated[str, AfterValidator(_cleaned), Field(max_length=120)]
_Word = Annotated[str, AfterValidator(_cleaned), Field(max_length=60)]
_Description = Annotated[str, AfterValidator(_cleaned), Field(max_length=1_000)]
_RepoName = Annotated[str, AfterValidator(_say(_repo, "is no repo"))]
_Revision = Annotated[
    str, AfterValidator(_say(check_revision, "is no revision; write a branch, a tag or, best, a commit"))
]
_FilePath = Annotated[str, AfterValidator(_say(safe_repo_path, "write the path as the repo's file list shows it"))]
_Sha256 = Annotated[
    str,
    AfterValidator(
        _matching(r"[0-9a-fA-F]{64}", "a sha256 has 64 hexadecimal digits; leave it out where it is unknown")
    ),
    AfterValidator(str.lower),
]
# The limits only catch slips, such as a size in the wrong unit: 100 TB, and a hundred million tokens.
_Bytes = Annotated[int, Field(ge=1, le=100_000_000_000_000)]
_Tokens = Annotated[int, Field(ge=1, le=100_000_000)]
_Words = Annotated[list[_Word], Field(max_length=64)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _FileSpec(_Checked):
    path: _FilePath
    size_bytes: _Bytes | None = None
    sha256: _Sha256 | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        """A plain path is enough for a file of which nothing else is known."""
        return {"path": value} if isinstance(value, str) else value


class _CompanionSpec(_FileSpec):
    repo: _RepoName | None = None
    revision: _Revision | None = None


class _EntrySpec(_Checked):
    id: _Id
    name: _Name
    description: _Description | None = None
    repo: _RepoName
    revision: _Revision | None = None
    file: _FilePath | None = None
    files: Annotated[list[_FileSpec], Field(max_length=500)] | None = None
    companions: Annotated[list[_CompanionSpec], Field(max_length=50)] | None = None
    total_bytes: _Bytes | None = None
    required_memory_bytes: _Bytes | None = None
    required_memory_rule: _Name | None = None
    quantization: _Word | None = None
    parameters: _Word | None = None
    context_length: _Tokens | None = None
    license: _Word | None = None
    gated: bool | None = None
    languages: _Words | None = None
    tags: _Words | None = None
    capabilities: Annotated[list[Capability], Field(max_length=16)] | None = None
    format: _Word | None = None


def _check(tree: Tree, report: Report) -> tuple[CatalogEntry, ...]:
    """Check the whole file."""
    document = tree.value
    if not isinstance(document, dict):
        report.add(tree.line(()), "is no catalog; it starts with `schema: 1` and `models:`")
        return ()
    for name in document:
        if name not in ("schema", "models"):
            report.add(tree.line((name,)), f"{name}: unknown field; {_suggest(name, ('schema', 'models'))}")
    schema, models = document.get("schema"), document.get("models")
    if "schema" not in document:
        report.add(1, f"schema: is missing; add `schema: {SCHEMA}` as the first line")
    elif type(schema) is not int or schema != SCHEMA:
        report.add(tree.line(("schema",)), f"schema: is {_shown(schema)}; this program reads schema {SCHEMA}")
    if not isinstance(models, list):
        report.add(
            tree.line(("models",)), f"models: must be a list of models, not {_shown(models)}; see docs/catalog.md"
        )
        return ()
    for where, line in tree.repeated:
        in_entry = len(where) > 2 and where[0] == "models"
        label = f"{_label(models[int(where[1])], int(where[1]))}: " if in_entry else ""
        field = _field(where[2:] if in_entry else where)
        report.add(line, f"{label}{field}: is given twice (first in line {tree.line(where)}); keep one")
    entries: list[CatalogEntry] = []
    ids: dict[str, int] = {}
    places: dict[tuple[str, str], str] = {}
    for index, value in enumerate(models):
        if report.full:
            break
        line = tree.line(("models", index))
        if not isinstance(value, dict):
            report.add(line, f"entry {index + 1}: must be a mapping with id, name and repo, not {_shown(value)}")
            continue
        label = _label(value, index)
        entry = _check_entry(value, index, label, tree, report)
        said = value.get("id")
        if isinstance(said, str) and ids.setdefault(said, line) != line:
            report.add(
                tree.line(("models", index, "id")),
                f"{label}: id: is taken by the entry in line {ids[said]}; choose another",
            )
        if entry is None:
            continue
        place = (entry.repo.lower(), entry.file)
        if places.setdefault(place, entry.id) != entry.id:
            report.add(
                line, f"{label}: files: {entry.file} is what entry {places[place]!r} lists already; keep one of them"
            )
        entries.append(entry)
    return tuple(entries)


def _label(value: object, index: int) -> str:
    """`entry 'its-id'`, or its place in the list while it has none."""
    said = value.get("id") if isinstance(value, dict) else None
    return f"entry {clean(said, 60)!r}" if isinstance(said, str) else f"entry {index + 1}"


def _check_entry(value: dict[str, object], index: int, label: str, tree: Tree, report: Report) -> CatalogEntry | None:
    """One entry, with its problems reported; None if it cannot even be compared with the others."""
    at: Where = ("models", index)
    has_file = value.get("file") is not None or bool(value.get("files"))
    if not has_file:
        what = "is missing; name what to download, such as `file: model-Q4_K_M.gguf`"
        report.add(tree.line(at), f"{label}: files: {what}")
    elif value.get("file") is not None and value.get("files") is not None:
        report.add(tree.line((*at, "file")), f"{label}: file: is given beside files; keep one of them")
    try:
        spec = _EntrySpec.model_validate(value)
    except ValidationError as error:
        for each in islice(error.errors(include_url=False), MAX_PROBLEMS + 1):
            where = (*at, *each["loc"])
            report.add(tree.line(where), f"{label}: {_field(each['loc'])}: {_worded(each)}")
        return None
    if not has_file:
        return None
    entry = _entry(spec)
    for where, problem in _contradictions(spec, entry):
        report.add(tree.line((*at, *where)), f"{label}: {_field(where)}: {problem}")
    return entry


def _contradictions(spec: _EntrySpec, entry: CatalogEntry) -> Iterable[tuple[Where, str]]:
    """What no single field shows."""
    seen: set[tuple[str, str]] = set()
    for name, files in (("files", entry.files), ("companions", entry.companions)):
        for index, each in enumerate(files):
            place = ((each.repo or entry.repo).lower(), each.path)
            if place in seen:
                yield (name, index, "path"), f"{each.path} is listed twice; keep one"
            seen.add(place)
    if spec.total_bytes is not None:
        sizes = [each.size_bytes for each in entry.files]
        known = sum(size or 0 for size in sizes)
        if None not in sizes:
            yield ("total_bytes",), "the files' own sizes are all given; leave it out"
        elif known > spec.total_bytes:
            yield ("total_bytes",), f"is less than the files add up to ({known}); correct one of them"


def _field(where: Where) -> str:
    """`files[1].sha256`, counted from 1 as people count."""
    text = ""
    for part in where:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "entry"


def _worded(error: Any) -> str:
    """One pydantic error, for the author of the file: what is wrong; what to do."""
    kind, shown, limits = error["type"], _shown(error["input"]), error.get("ctx", {})
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return f"unknown field; {_suggest(str(error['loc'][-1]), _fields_at(error['loc']))}"
    if kind == "value_error":
        return str(limits["error"])
    if kind == "literal_error":
        return f"is {shown}; {_suggest(str(error['input']), get_args(Capability))}"
    if error["input"] is None:
        return "is empty; give it a value or leave the field out"
    match kind:
        case "string_type":
            return f"must be text, not {shown}; put it in quotes"
        case "int_type":
            return f"must be a whole number, not {shown}; write only digits, without a unit or quotes"
        case "bool_type":
            return f"must be true or false, not {shown}; write one of them without quotes"
        case "list_type":
            return f"must be a list, not {shown}; write it as [one, two]"
        case "model_type" | "model_attributes_type":
            return f"must be a path, or a mapping with path, size_bytes and sha256, not {shown}; see docs/catalog.md"
        case "greater_than_equal":
            return f"is {shown}; it must be at least {limits['ge']}, or be left out where it is unknown"
        case "less_than_equal":
            return f"is {shown}; it must be at most {limits['le']}"
        case "string_too_long" | "too_long" if isinstance(error["input"], str):
            return f"is too long; shorten it to {limits['max_length']} characters"
        case "too_long":
            return f"has too many items; {limits['max_length']} are allowed"
        case _:
            return f"is {shown}; write it as docs/catalog.md shows"


def _fields_at(where: Where) -> tuple[str, ...]:
    """The fields known at a place in an entry."""
    specs: dict[str | int, type[_Checked]] = {"files": _FileSpec, "companions": _CompanionSpec}
    spec = specs.get(where[0], _EntrySpec) if len(where) > 1 else _EntrySpec
    return tuple(spec.model_fields)


def _suggest(said: str, known: tuple[str, ...]) -> str:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", said).lower().replace("-", "_")  # TextGeneration -> text_generation
    close = get_close_matches(plain, known, 1, 0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _shown(value: object) -> str:
    """A value as its author would recognise it, short and safe."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    return repr(clean(value, 40)) if isinstance(value, str) else clean(value, 40)


_SHARD = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>[0-9]{5})(?P<suffix>\.[A-Za-z]+)")
_QUANTIZATION = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:I?Q[0-9](?:_[A-Z0-9]+)*|TQ[0-9]_[0-9]|BF16|FP?16|FP?32|MXFP4))(?=[-.]|$)", re.I
)
_FORMATS = {".gguf": "gguf", ".safetensors": "safetensors", ".onnx": "onnx", ".bin": "ggml"}
_MOST_SHARDS = 500


def _entry(spec: _EntrySpec) -> CatalogEntry:
    """The domain's value, with what the author left out derived from what is there."""
    files = spec.files or [_FileSpec(path=spec.file or "")]
    weights = tuple(CatalogFile(each.path, each.size_bytes, _lower(each.sha256)) for each in files)
    shard = _SHARD.fullmatch(weights[0].path) if len(weights) == 1 else None
    if shard and 1 < int(shard["count"]) <= _MOST_SHARDS:
        # Every runtime needs all shards, and their names leave nothing to guess.
        names = (
            f"{shard['stem']}-{n:05}-of-{shard['count']}{shard['suffix']}" for n in range(2, int(shard["count"]) + 1)
        )
        weights += tuple(CatalogFile(name) for name in names)
    first = weights[0].path
    companions = tuple(
        CatalogFile(each.path, each.size_bytes, _lower(each.sha256), each.repo, each.revision)
        for each in spec.companions or ()
    )
    quantization = _QUANTIZATION.search(first.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    suffix = ".safetensors" if ".safetensors" in first else first[first.rfind(".") :].lower()
    entry = CatalogEntry(
        id=spec.id,
        name=spec.name,
        description=spec.description or "",
        repo=spec.repo,
        files=weights,
        companions=companions,
        revision=spec.revision,
        required_memory_bytes=spec.required_memory_bytes,
        required_memory_rule=spec.required_memory_rule or "",
        quantization=spec.quantization or (quantization[1].upper() if quantization else ""),
        parameters=spec.parameters or "",
        context_length=spec.context_length,
        license=spec.license or "",
        gated=bool(spec.gated),
        languages=tuple(spec.languages or ()),
        tags=tuple(spec.tags or ()),
        capabilities=tuple(spec.capabilities or ()),
        format=spec.format or _FORMATS.get(suffix, ""),
        total_bytes=spec.total_bytes,
    )
    if entry.required_memory_bytes is None and entry.size_bytes is not None:
        rule = "1.5 x file size, companions included" if companions else "1.5 x file size"
        entry = replace(entry, required_memory_bytes=entry.size_bytes * 3 // 2, required_memory_rule=rule)
    return entry


def _lower(checksum: str | None) -> str | None:
    """As everybody else writes it: checksums are compared as text."""
    return checksum and checksum.lower()
