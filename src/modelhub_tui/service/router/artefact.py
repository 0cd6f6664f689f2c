"""Which files of a repo make one usable model. Pure: decides from a listing, asks nobody."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Sequence

from modelhub_tui.domain import MAX_MODEL_FILES
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

_GGUF_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf\Z", re.IGNORECASE)
_WEIGHT_SHARD = re.compile(r"(?P<stem>.+)-[0-9]{5}-of-[0-9]{5}\.safetensors\Z")
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:IQ[1-8]|TQ[12]|Q[1-8])(?:_(?:K|[01]))?(?:_(?:XXS|XS|XL|S|M|L|NL))?(?:_4_[48]|_8_8)?|BF16|FP?16|FP?32|MXFP4)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# Most useful first: the usual compromise, then better, then smaller, then the unquantized ones.
_LIKED = (
    "Q4_K_M",
    "Q5_K_M",
    "Q4_K_S",
    "MXFP4",
    "IQ4_XS",
    "Q6_K",
    "Q8_0",
    "Q5_K_S",
    "Q4_K_L",
    "Q4_0",
    "Q4_1",
    "IQ4_NL",
    "Q3_K_M",
    "Q3_K_L",
    "IQ3_M",
    "Q3_K_S",
    "IQ3_XS",
    "Q2_K",
    "IQ2_M",
    "Q5_0",
    "Q5_1",
    "BF16",
    "F16",
    "F32",
)
_NOT_A_MODEL = re.compile(r"(^|[-_./])(mmproj|imatrix)", re.IGNORECASE)
_SUPPORT = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab", ".bpe", ".py", ".spm")
_WEIGHTS = (".gguf", ".safetensors")
_LEAST_BYTES = 1024
"""No weights in git itself have fewer; a git-lfs pointer has some 130."""
_ONNX_DATA = (".onnx_data", ".onnx.data", ".onnx_data_1", ".data")


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file as the hub lists it."""

    path: str
    size: int | None = None
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one model."""

    format: str
    """`gguf`, `safetensors` or `onnx`"""
    filename: str
    files: tuple[RepoFile, ...]
    quantization: str = ""


def choose(listing: Iterable[RepoFile], wanted: str | None) -> Choice:
    """Choose what to fetch.

    Args:
        listing: All files of the repo, by names that were checked where they came from.
        wanted: The file somebody named; None lets the repo decide, if it leaves no doubt.

    Raises:
        Refused: `no_such_file`, `several_files` or `unsupported`.
    """
    choice = _chosen({each.path: each for each in listing}, wanted)
    for each in choice.files:
        plain = each.sha256 is None and each.blob_id is not None  # in git itself, and not in its large-file storage
        least = _LEAST_BYTES if plain else 1
        if each.path.lower().endswith(_WEIGHTS) and each.size is not None and each.size < least:
            size = "is empty" if not each.size else f"has {each.size} bytes"
            what = f"{clean(each.path, 120)} {size} and is no model: the repo may hold a git-lfs pointer in its place"
            raise Refused("unsupported", f"{what}; choose another file or repo.")
    if len(choice.files) > MAX_MODEL_FILES:
        what = f"This model would have {len(choice.files)} files, and no more than {MAX_MODEL_FILES} are supported"
        raise Refused("unsupported", f"{what}; name one of its files to get that one alone.")
    return choice


def _chosen(files: dict[str, RepoFile], wanted: str | None) -> Choice:
    if wanted is not None:
        return _named(files, wanted)
    ggufs = _gguf_models(files)
    weights = [path for path in files if path.endswith(".safetensors")]
    if len(ggufs) > 1:
        raise Refused("several_files", "Multiple GGUF files found; specify filename", candidates=tuple(ggufs))
    if ggufs and weights:
        candidates = (*ggufs, *_weight_names(files, weights))
        raise Refused("several_files", "Multiple artifact types found; specify filename", candidates=candidates)
    if ggufs:
        return _gguf(files, ggufs[0])
    if weights:
        return _weights(files, weights, None)
    graphs = [path for path in files if path.endswith(".onnx")]
    if graphs:
        return _onnx(files, graphs)
    raise Refused("unsupported", "No supported model artifacts found (safetensors/gguf)")


def quantization(path: str) -> str:
    """The quantization that a file name tells, such as `Q4_K_M`; empty if it tells none."""
    found = _QUANT.findall(path.rsplit("/", 1)[-1])
    return found[-1].upper() if found else ""


def by_use(paths: Iterable[str]) -> list[str]:
    """File names, the most useful quantization first."""

    def rank(path: str) -> tuple[int, int, str]:
        quant = quantization(path).removeprefix("UD-").replace("FP", "F")
        return (_LIKED.index(quant) if quant in _LIKED else len(_LIKED), path.count("/"), path.lower())

    return sorted(paths, key=rank)


def shards(path: str, among: Iterable[str]) -> tuple[str, ...]:
    """All shards of the GGUF that `path` is one of, in order; just `path` if it is not split.

    Raises:
        Refused: A shard is missing from the repo.
    """
    match = _GGUF_SHARD.match(path)
    if match is None:
        return (path,)
    there = set(among)
    count = int(match["count"])
    if not 1 <= count <= 1000:
        raise Refused("unsupported", f"{path} claims {count} shards; choose another file.")
    suffix = path[-5:]
    wanted = tuple(f"{match['stem']}-{number:05}-of-{match['count']}{suffix}" for number in range(1, count + 1))
    missing = [each for each in wanted if each not in there]
    if missing:
        raise Refused("no_such_file", f"The repo lacks {missing[0]}, a part of this model; choose another file.")
    return wanted


def _named(files: dict[str, RepoFile], wanted: str) -> Choice:
    if wanted not in files:
        every = (*_gguf_models(files), *_weight_names(files, [path for path in files if path.endswith(".safetensors")]))
        raise Refused("no_such_file", f"Specified file not found in repository: {clean(wanted, 120)}", candidates=every)
    lower = wanted.lower()
    if lower.endswith(".gguf"):
        return _gguf(files, wanted)
    if lower.endswith((".safetensors", ".safetensors.index.json")):
        return _weights(files, [path for path in files if path.endswith(".safetensors")], wanted)
    if lower.endswith(".onnx"):
        return _onnx(files, [wanted])
    raise Refused(
        "unsupported", "filename must be a .gguf, .safetensors or .onnx file", candidates=tuple(_gguf_models(files))
    )


def _gguf(files: dict[str, RepoFile], path: str) -> Choice:
    parts = shards(path, files)
    return Choice("gguf", parts[0], tuple(files[each] for each in parts), quantization(parts[0]))


def _gguf_models(files: Iterable[str]) -> list[str]:
    """The GGUF models of a repo, each by its first shard, most useful first; projectors are no models."""
    found = []
    for path in files:
        match = _GGUF_SHARD.match(path)
        first_or_whole = match is None or int(match["number"]) == 1
        if path.lower().endswith(".gguf") and first_or_whole and not _NOT_A_MODEL.search(path.rsplit("/", 1)[-1]):
            found.append(path)
    return by_use(found)


def _weight_names(files: dict[str, RepoFile], weights: Sequence[str]) -> tuple[str, ...]:
    """The names by which a person may choose among safetensors: indexes, then whole files."""
    indexes = [path for path in files if path.endswith(".safetensors.index.json")]
    return (*indexes, *(path for path in weights if not _WEIGHT_SHARD.match(path)))


def _weights(files: dict[str, RepoFile], weights: Sequence[str], wanted: str | None) -> Choice:
    """A safetensors model: its shards by their common stem, and what is needed to load them."""
    if wanted is None and "model_index.json" not in files:
        # A second copy in another layout ("consolidated", an onnx or original folder) is not part of the model.
        top = [path for path in weights if "/" not in path] or list(weights)
        sharded = [path for path in top if _WEIGHT_SHARD.match(path)]
        main = sharded or [path for path in top if path == "model.safetensors"] or top
        indexes = [
            path for path in files if path.endswith(".safetensors.index.json") and _folder(path) == _folder(main[0])
        ]
        wanted = indexes[0] if sharded and indexes else None
        chosen = [
            path for path in main if wanted is None or path.startswith(wanted.removesuffix(".safetensors.index.json"))
        ] or main
    elif wanted is None:
        chosen = list(weights)
    elif wanted.endswith(".index.json"):
        stem = wanted.removesuffix(".safetensors.index.json")
        chosen = [path for path in weights if path.startswith(f"{stem}-")] or [
            path for path in weights if _folder(path) == _folder(wanted)
        ]
    else:
        match = _WEIGHT_SHARD.match(wanted)
        chosen = [path for path in weights if match and path.startswith(f"{match['stem']}-")] or [wanted]
        index = f"{match['stem']}.safetensors.index.json" if match else ""
        wanted = index if index in files else wanted
    if not chosen:
        raise Refused("no_such_file", f"The repo has no safetensors for {wanted}; choose another file.")
    filename = wanted or chosen[0]
    # A checkpoint beside a pipeline of folders holds all of it: the folders' configurations are not its own.
    whole = wanted is not None and "model_index.json" in files and not _folder(wanted)
    support = [] if whole else _support(files, chosen)
    everything = dict.fromkeys([*support, *([filename] if filename in files else []), *chosen])
    return Choice("safetensors", filename, tuple(files[path] for path in everything), quantization(filename))


def _onnx(files: dict[str, RepoFile], graphs: Sequence[str]) -> Choice:
    first = by_use(sorted(graphs, key=len))[0] if len(graphs) > 1 else graphs[0]
    first = next((path for path in graphs if path.endswith("model.onnx")), first)
    stems = [path.removesuffix(".onnx") for path in graphs]
    data = starting_with((path for path in files if path.endswith(_ONNX_DATA)), stems)
    everything = dict.fromkeys([*_support(files, graphs), *sorted(graphs), *sorted(data)])
    return Choice("onnx", first, tuple(files[path] for path in everything), quantization(first))


def starting_with(paths: Iterable[str], stems: Iterable[str]) -> list[str]:
    """Those of `paths` that start with any of `stems`; takes n log n steps, whatever there is of both."""
    least: list[str] = []
    for stem in sorted(stems):
        if not (least and stem.startswith(least[-1])):
            least.append(stem)
    # None of these starts with another: only the last one that sorts before a path can be what it starts with.
    return [path for path in paths if (at := bisect(least, path)) and path.startswith(least[at - 1])]


def _support(files: Iterable[str], weights: Sequence[str]) -> list[str]:
    """Configuration and tokenizer files: at the top, and beside the weights."""
    folders = {"", *(_folder(path) for path in weights)}
    if "model_index.json" in files:
        folders |= {_folder(path) for path in files if path.endswith(".json")}
    wanted = [path for path in files if _folder(path) in folders and path.lower().endswith(_SUPPORT)]
    return sorted(path for path in wanted if not path.endswith((".index.json", "README.txt", "requirements.txt")))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
