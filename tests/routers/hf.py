"""A tiny HuggingFace as the router sees it, and the router's rules from a repo's text to a model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

HF_URL = "https://huggingface.co"
_HOSTS = ("huggingface.co", "www.huggingface.co")
_PREFIXES = tuple(f"{scheme}://{host}/" for scheme in ("https", "http") for host in _HOSTS)
_FILE_IN_URL = re.compile(r"/(?:resolve|blob|raw)/[^/]+/(.+)$")
_SHARD = re.compile(r"^(.*)-\d{5}-of-\d{5}\.safetensors$")


class Invalid(Exception):
    """The router's own "Validation error"; carries its sentence without the prefix."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Unanswered(Exception):
    """HuggingFace cannot be reached."""


@dataclass
class Repo:
    """One repo: sizes by path. `sizes` says whether the listing tells them (it normally does not)."""

    id: str
    files: dict[str, int]
    sizes: bool = False
    status: int = 200
    downloads: int | None = 1000
    likes: int | None = 10
    chat_template: str | None = None
    architecture: str = "LlamaForCausalLM"
    tags: list[str] = field(default_factory=lambda: ["gguf"])


class HuggingFace:
    """The repos there are. `down` makes it unreachable; a repo's `status` makes it refuse."""

    def __init__(self, repos: Iterable[Repo] = (), *, url: str = HF_URL) -> None:
        self.repos: dict[str, Repo] = {}
        self.url = url
        """`HF_BASE_URL`: where manifests point to."""
        self.down = False
        for each in (*_standard(), *repos):
            self.add(each)

    def add(self, repo: Repo) -> Repo:
        """Serve a repo."""
        self.repos[repo.id.lower()] = repo
        return repo

    def add_all(self, listing: Mapping[str, Mapping[str, int]]) -> None:
        """Serve repos given as sizes by path, by id."""
        for name, files in listing.items():
            self.add(Repo(name, dict(files)))

    def listing(self, repo_id: str) -> Repo:
        """`GET /api/models/{repo}?expand=siblings`.

        Raises:
            Invalid: Any answer but 2xx.
            Unanswered: No answer.
        """
        if self.down:
            raise Unanswered
        repo = self.repos.get(repo_id.lower())
        if repo is None or repo.status >= 300:
            raise Invalid("Failed to fetch specified repository")
        return repo

    def stats(self, repo_id: str) -> dict[str, int] | None:
        """`hf_info`; None if the hub could not be asked."""
        repo = self.repos.get(repo_id.lower())
        if self.down or repo is None or repo.status >= 300:
            return None
        told = {"downloads": repo.downloads, "likes": repo.likes}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class Builtin:
    """One of the five models compiled into G1 and G2."""

    id: str
    name: str
    description: str
    repo: str
    size: int
    params: str
    tags: tuple[str, ...]

    @property
    def memory(self) -> int:
        return self.size * 3 // 2

    @property
    def file(self) -> str:
        """The recommended file."""
        return self.repo.split("/")[1].removesuffix("-GGUF") + "-Q4_K_M.gguf"


BUILTIN = (
    Builtin(
        "qwen2.5-7b-instruct",
        "Qwen2.5 7B Instruct",
        "Instruction-tuned multilingual model",
        "bartowski/Qwen2.5-7B-Instruct-GGUF",
        4920000000,
        "7B",
        ("chat", "multilingual", "coding"),
    ),
    Builtin(
        "llama3.2-3b-instruct",
        "Llama 3.2 3B Instruct",
        "Small and quick",
        "bartowski/Llama-3.2-3B-Instruct-GGUF",
        2020000000,
        "3B",
        ("chat", "lightweight"),
    ),
    Builtin(
        "mistral-7b-instruct",
        "Mistral 7B Instruct",
        "Efficient instruction model",
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
        4370000000,
        "7B",
        ("chat", "efficient"),
    ),
    Builtin(
        "phi-3-mini",
        "Phi-3 Mini",
        "Compact model for reasoning and code",
        "bartowski/Phi-3-mini-4k-instruct-GGUF",
        2390000000,
        "3.8B",
        ("chat", "coding", "compact"),
    ),
    Builtin(
        "gemma-2-9b",
        "Gemma 2 9B",
        "Good across many tasks",
        "bartowski/gemma-2-9b-it-GGUF",
        5760000000,
        "9B",
        ("chat", "multilingual"),
    ),
)


def _standard() -> list[Repo]:
    safetensors = {"config.json": 900, "tokenizer.json": 9000, "README.md": 100}
    index = {"model.safetensors.index.json": 5000}
    return [
        *(
            Repo(each.repo, {each.file: each.size, each.file.replace("Q4_K_M", "Q8_0"): each.size * 2})
            for each in BUILTIN
        ),
        Repo(
            "openai/gpt-oss-20b", {**safetensors, "model.safetensors": 13_000_000_000}, architecture="GptOssForCausalLM"
        ),
        Repo(
            "acme/sharded",
            {**safetensors, **index, **{f"model-{n:05}-of-00002.safetensors": 5_000_000 for n in (1, 2)}},
        ),
        Repo("acme/two-files-GGUF", {"two-Q4_K_M.gguf": 4_000_000, "two-Q8_0.gguf": 8_000_000}),
        Repo("acme/mixed", {**safetensors, "model.safetensors": 9_000_000, "mixed.gguf": 4_000_000}),
        Repo("acme/bare-safetensors", {"model.safetensors": 9_000_000}),
        Repo("acme/sized-GGUF", {"sized-Q4_K_M.gguf": 8_200_000_001}, sizes=True),
        Repo("acme/no-weights", {"README.md": 10}),
        Repo("acme/gated-GGUF", {"gated.gguf": 10}, status=401),
    ]


def builtin_for(repo_id: str) -> Builtin | None:
    """The compiled-in model of a repo, compared without case."""
    return next((each for each in BUILTIN if each.repo.lower() == repo_id.lower()), None)


def parse_repo(text: str, base: str = HF_URL) -> tuple[str, str | None]:
    """Repo id and file from what was sent: not trimmed, and only four prefixes are known."""
    prefix = next((each for each in (*_PREFIXES, f"{base}/") if text.startswith(each)), None)
    repo = "/".join(text.removeprefix(prefix).split("/")[:2]) if prefix else text
    found = _FILE_IN_URL.search(text)
    return repo, found[1] if found else None


def model_name(repo_id: str) -> str:
    """The one name a repo gives, whatever the file."""
    name = repo_id.lower().strip("/")
    return "_latest" if not name or ".." in name or "\0" in name else name


def name_is_legal(name: str) -> bool:
    """What the manifest route accepts."""
    return bool(re.fullmatch(r"[a-z0-9._/-]+", name)) and ".." not in name and name == name.strip("/")


@dataclass(frozen=True)
class Artefact:
    """What was chosen in a repo."""

    file: str
    format: str
    size: int


def choose(repo: Repo, filename: str | None, *, shards_to_index: bool) -> Artefact:
    """Section 4.3.

    Raises:
        Invalid: Nothing usable, or more than one choice.
    """
    files = repo.files
    if filename is not None:
        _check_name(filename)
        if filename not in files:
            raise Invalid("Specified file not found in repository")
        file = filename
    else:
        file = _only(files)
    if file.endswith(".gguf"):
        return Artefact(file, "gguf", files[file] if repo.sizes else 0)
    if not file.endswith((".safetensors", ".safetensors.index.json")):
        raise Invalid("filename must be a .gguf or .safetensors file")
    if not {"config.json", "tokenizer.json"} <= files.keys():
        raise Invalid("config.json and tokenizer.json are required for safetensors models")
    shard = _SHARD.match(file)
    if shard and shards_to_index and f"{shard[1]}.safetensors.index.json" in files:
        file = f"{shard[1]}.safetensors.index.json"
    weights = sum(size for path, size in files.items() if path.endswith(".safetensors"))
    return Artefact(file, "safetensors", weights if repo.sizes else 0)


def _check_name(filename: str) -> None:
    if not filename:
        raise Invalid("filename must not be empty")
    if ".." in filename or "\0" in filename:
        raise Invalid("filename contains invalid path segment")
    if filename.startswith(("/", "\\")):
        raise Invalid("filename must be a relative path")


def _only(files: Mapping[str, int]) -> str:
    ggufs = [each for each in files if each.endswith(".gguf")]
    indexes = [each for each in files if each.endswith(".safetensors.index.json")]
    weights = [each for each in files if each.endswith(".safetensors")]
    if ggufs and (indexes or weights):
        raise Invalid("Multiple artifact types found; specify filename")
    if len(ggufs) > 1:
        raise Invalid("Multiple GGUF files found; specify filename")
    if len(indexes) > 1:
        raise Invalid("Multiple safetensors index files found; specify filename")
    if not indexes and len(weights) > 1:
        raise Invalid("Multiple safetensors files found; specify filename")
    found = ggufs or indexes or weights
    if not found:
        raise Invalid("No supported model artifacts found (safetensors/gguf)")
    return found[0]


def required_memory(size: int) -> int:
    """Bytes of memory the router thinks a model needs."""
    return math.ceil(size * 1.5)


def manifest_files(
    base: str, repo: Repo, file: str, format: str, *, generic_runtime: list[str] | None
) -> list[dict[str, Any]]:
    """The `files` of section 2.5. Revision is always main; no sizes, no digests."""
    url = f"{base}/{repo.id}/resolve/main"
    if format == "gguf":
        return [{"name": "model.gguf", "runtimes": ["llama_cpp"], "url": f"{url}/{file}"}]
    known = {"GptOssForCausalLM": ["gptoss_cpp"], "NemotronForCausalLM": ["nemotron_cpp"]}
    runtimes = known.get(repo.architecture, generic_runtime)
    chosen = [(name, 10) for name in ("config.json", "tokenizer.json")]
    if file.endswith(".index.json"):
        chosen += [(file, 5), *((each, 0) for each in sorted(repo.files) if each.endswith(".safetensors"))]
    else:
        chosen.append((file, 0))
    metal = next((each for each in ("model.metal.bin", "metal/model.bin") if each in repo.files), None)
    told = []
    for name, priority in chosen:
        told.append(
            {"name": name}
            | ({"priority": priority} if priority else {})
            | ({"runtimes": runtimes} if runtimes else {})
            | {"url": f"{url}/{name}"}
        )
    if metal:
        told.append({"name": "model.metal.bin", "priority": 5, "url": f"{url}/{metal}"})
    return told
