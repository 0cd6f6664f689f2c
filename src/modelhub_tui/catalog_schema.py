"""The full check of a catalog: YAML in, entries and problems out. Loaded only when no checked form is at hand.

YAML is read event by event into plain values with a line number for each, instead of through a loader: that gives every
problem its line, and neither aliases nor deep nesting can make a small file expensive (libyaml's composer recurses in C
and crashes the process at 50,000 brackets). pydantic then checks each entry; its errors are worded for the author.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from modelhub_tui.domain import CatalogEntry, CatalogFile
from modelhub_tui.errors import BadReference
from modelhub_tui.hub_refs import check_revision, parse_hub_ref
from modelhub_tui.untrusted import clean, safe_repo_path

SCHEMA = 1
_LIMIT_BYTES = 5_000_000
_MAX_DEPTH = 8
"""A catalog has five levels: the file, its models, an entry, its files, a file."""
_MAX_PROBLEMS = 200

Where = tuple[str | int, ...]
"""Place of a value in the file: keys and positions from the top."""


def read_catalog(path: Path) -> tuple[tuple[CatalogEntry, ...], tuple[str, ...]]:
    """Read and check a catalog.

    Returns:
        The entries that are right, and all problems as `file:line: ...`; to be used only if there are none.
    """
    report = _Report(clean(path, 200))
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT_BYTES + 1)
        if len(raw) > _LIMIT_BYTES:
            report.add(
                1, f"is larger than {_LIMIT_BYTES // 1_000_000} MB; a catalog lists models, it does not hold them"
            )
            return (), report.lines
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        report.add(raw.count(b"\n", 0, error.start) + 1, "is not UTF-8 text; save it in that encoding")
        return (), report.lines
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a usable name"
        report.add(1, f"cannot be read ({why}); check the name and its permissions")
        return (), report.lines
    tree = _Tree(report)
    document = tree.read(text)
    if report.lines:
        # A file that is broken as YAML would only produce misleading problems further down.
        return (), report.lines
    return _check(document, tree, report), report.lines


@dataclass
class _Report:
    """The problems found so far."""

    file: str
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, problem: str) -> None:
        self.found.append((line, problem))

    @property
    def lines(self) -> tuple[str, ...]:
        """In the order of the file, so that a person can work through them."""
        ordered = sorted(self.found, key=lambda each: each[0])
        lines = [f"{self.file}:{line}: {problem}" for line, problem in ordered[:_MAX_PROBLEMS]]
        if len(ordered) > _MAX_PROBLEMS:
            lines.append(f"{self.file}:{ordered[_MAX_PROBLEMS][0]}: and {len(ordered) - _MAX_PROBLEMS} more problems")
        return tuple(lines)


class _Stop(Exception):  # noqa: N818 - not an error: the rest of the file makes no sense, and that has been reported
    """Reading cannot go on."""


class _Tree:
    """YAML as plain values, with the line of each."""

    def __init__(self, report: _Report) -> None:
        self._report = report
        self._resolver, self._construct = Resolver(), SafeConstructor()
        self._lines: dict[Where, int] = {}

    def line(self, where: Where) -> int:
        """1-based line of a value, or of the nearest thing around it that is in the file."""
        while where and where not in self._lines:
            where = where[:-1]
        return self._lines.get(where, 1)

    def read(self, text: str) -> object:
        """The first document's value; None, with a problem, if it is no YAML."""
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            self._events = iter(yaml.parse(text, Loader=loader))
            next(self._events)  # the stream begins
            if isinstance(next(self._events), yaml.StreamEndEvent):
                return None
            value = self._value(next(self._events), ())
            next(self._events)  # the document ends
            after = next(self._events)
            if not isinstance(after, yaml.StreamEndEvent):
                self._report.add(after.start_mark.line + 1, "a second document begins; put all models into the first")
        except _Stop:
            return None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            why = clean(getattr(error, "problem", None) or getattr(error, "reason", None) or "no valid text", 120)
            self._report.add(
                mark.line + 1 if mark else 1, f"is not valid YAML ({why}); check quotes, colons and indentation"
            )
            return None
        return value

    def _value(self, event: Any, where: Where) -> object:
        line = event.start_mark.line + 1
        self._lines.setdefault(where, line)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            self._stop(line, "uses a YAML anchor or alias; write the value out")
        if len(where) > _MAX_DEPTH:
            self._stop(line, "is nested too deeply; models: is a list of entries with plain fields")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(where)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(where)
        return self._scalar(event, line)

    def _sequence(self, where: Where) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*where, len(values))))
        return values

    def _mapping(self, where: Where) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(line, "has a list, a mapping or an alias where a field's name should be")
            name = clean(event.value, 60)
            if name in values:
                first = self.line((*where, name))
                self._report.add(line, f"{name}: is given twice (first in line {first}); keep one")
                self._value(next(self._events), (*where, name, "again"))
                continue
            self._lines[(*where, name)] = line
            values[name] = self._value(next(self._events), (*where, name))
        return values

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> object:
        text: str = event.value
        if event.tag not in (None, "!"):
            self._stop(line, f"has the YAML tag {clean(event.tag, 40)}; write plain values")
        tag = self._resolver.resolve(yaml.ScalarNode, text, event.implicit).rsplit(":", 1)[-1]
        node = yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", text)
        if tag == "null":
            return None
        if tag == "bool":
            return self._construct.construct_yaml_bool(node)
        # A number longer than this is none that a field takes, and Python would not print it.
        if tag in ("int", "float") and len(text) <= 40:
            return (
                self._construct.construct_yaml_int(node) if tag == "int" else self._construct.construct_yaml_float(node)
            )
        return text

    def _stop(self, line: int, problem: str) -> None:
        self._report.add(line, problem)
        raise _Stop


def _say(check: Callable[[str], object], what: str) -> Callable[[str], str]:
    """A pydantic validator from a function that raises ValueError with a reason."""

    def validate(text: str) -> str:
        try:
            check(text)
        except BadReference as error:
            raise ValueError(f"{what}: {error.reason}") from error
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
        raise BadReference("Type a repo as owner/name, without a file, revision or address.")


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
_Revision = Annotated[str, AfterValidator(_say(check_revision, "is no revision"))]
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
    capabilities: list[Capability] | None = None
    format: _Word | None = None


def _check(document: object, tree: _Tree, report: _Report) -> tuple[CatalogEntry, ...]:
    """Check the whole file; entries with problems are left out of the answer."""
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
    entries: list[CatalogEntry] = []
    ids: dict[str, int] = {}
    places: dict[tuple[str, str], str] = {}
    for index, value in enumerate(models):
        line = tree.line(("models", index))
        if not isinstance(value, dict):
            report.add(line, f"entry {index + 1}: must be a mapping with id, name and repo, not {_shown(value)}")
            continue
        label = f"entry {clean(value['id'], 60)!r}" if isinstance(value.get("id"), str) else f"entry {index + 1}"
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


def _check_entry(value: dict[str, object], index: int, label: str, tree: _Tree, report: _Report) -> CatalogEntry | None:
    """One entry, or None with its problems reported."""
    at: Where = ("models", index)
    before = len(report.found)
    if value.get("file") is None and not value.get("files"):
        report.add(
            tree.line(at), f"{label}: files: is missing; name what to download, such as `file: model-Q4_K_M.gguf`"
        )
    elif value.get("file") is not None and value.get("files") is not None:
        report.add(tree.line((*at, "file")), f"{label}: file: is given beside files; keep one of them")
    try:
        spec = _EntrySpec.model_validate(value)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            where = (*at, *each["loc"])
            report.add(tree.line(where), f"{label}: {_field(each['loc'])}: {_worded(each)}")
        return None
    if len(report.found) > before:
        return None
    entry = _entry(spec)
    for where, problem in _contradictions(spec, entry):
        report.add(tree.line((*at, *where)), f"{label}: {_field(where)}: {problem}")
    return entry if len(report.found) == before else None


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
        case "greater_than_equal":
            return f"is {shown}; it must be at least {limits['ge']}, or be left out where it is unknown"
        case "less_than_equal":
            return f"is {shown}; it must be at most {limits['le']}"
        case "string_too_long":
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


_SHARD = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>\d{5})(?P<suffix>\.[A-Za-z]+)")
_QUANTIZATION = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4))(?=[-.]|$)", re.I
)
_FORMATS = {".gguf": "gguf", ".safetensors": "safetensors", ".onnx": "onnx", ".bin": "ggml"}
_MOST_SHARDS = 500


def _entry(spec: _EntrySpec) -> CatalogEntry:
    """The domain's value, with what the author left out derived from what is there."""
    files = spec.files or [_FileSpec(path=spec.file or "")]
    weights = tuple(CatalogFile(each.path, each.size_bytes, each.sha256) for each in files)
    shard = _SHARD.fullmatch(weights[0].path) if len(weights) == 1 else None
    if shard and 1 < int(shard["count"]) <= _MOST_SHARDS:
        # Every runtime needs all shards, and their names leave nothing to guess.
        names = (
            f"{shard['stem']}-{n:05}-of-{shard['count']}{shard['suffix']}" for n in range(2, int(shard["count"]) + 1)
        )
        weights += tuple(CatalogFile(name) for name in names)
    first = weights[0].path
    companions = tuple(
        CatalogFile(each.path, each.size_bytes, each.sha256, each.repo, each.revision) for each in spec.companions or ()
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
        quantization=spec.quantization or (quantization[1].upper().replace("FP", "F") if quantization else ""),
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
