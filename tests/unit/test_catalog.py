"""The built-in catalog, the checks on anybody's own, and the short way in that the first frame takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelhub_tui import catalog as catalog_module
from modelhub_tui import catalog_schema, catalog_yaml
from modelhub_tui.catalog import catalog_path, check_catalog, load_catalog
from modelhub_tui.domain import CatalogEntry, CatalogFile
from modelhub_tui.errors import BadCatalog
from modelhub_tui.identifiers import safe_repo_path
from modelhub_tui.states import model_key
from modelhub_tui.untrusted import clean

ROOT = Path(__file__).parents[2]

# What the upstream router supports: (repo, file). Its users must find all of it here.
UPSTREAM = """
Qwen/QwQ-32B-GGUF                                  qwq-32b-q4_k_m.gguf
Qwen/Qwen2.5-0.5B-Instruct-GGUF                    qwen2.5-0.5b-instruct-q4_k_m.gguf
bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF        DeepSeek-R1-Distill-Llama-8B-Q4_K_M.gguf
bartowski/Llama-3.2-3B-Instruct-GGUF               Llama-3.2-3B-Instruct-Q4_K_M.gguf
bartowski/Mistral-7B-Instruct-v0.3-GGUF            Mistral-7B-Instruct-v0.3-Q4_K_M.gguf
bartowski/Mistral-Nemo-Instruct-2407-GGUF          Mistral-Nemo-Instruct-2407-Q4_K_M.gguf
bartowski/Phi-3-mini-4k-instruct-GGUF              Phi-3-mini-4k-instruct-Q4_K_M.gguf
bartowski/Qwen2.5-7B-Instruct-GGUF                 Qwen2.5-7B-Instruct-Q4_K_M.gguf
bartowski/Qwen_Qwen3-0.6B-GGUF                     Qwen_Qwen3-0.6B-Q4_K_M.gguf
bartowski/SmolLM2-1.7B-Instruct-GGUF               SmolLM2-1.7B-Instruct-Q4_K_S.gguf
bartowski/gemma-2-9b-it-GGUF                       gemma-2-9b-it-Q4_K_M.gguf
bartowski/ibm-granite_granite-4.0-h-micro-GGUF     ibm-granite_granite-4.0-h-micro-Q4_K_M.gguf
bartowski/ibm-granite_granite-4.0-h-small-GGUF     ibm-granite_granite-4.0-h-small-Q4_K_M.gguf
bartowski/ibm-granite_granite-4.0-h-tiny-GGUF      ibm-granite_granite-4.0-h-tiny-Q4_K_M.gguf
bartowski/mistralai_Magistral-Small-2507-GGUF      mistralai_Magistral-Small-2507-Q4_K_M.gguf
bartowski/mistralai_Ministral-3-3B-Instruct-2512-GGUF  mistralai_Ministral-3-3B-Instruct-2512-Q4_K_M.gguf
bartowski/phi-4-GGUF                               phi-4-Q4_K_M.gguf
ggml-org/gemma-3-4b-it-GGUF                        gemma-3-4b-it-Q4_K_M.gguf
ibm-granite/granite-4.0-micro-GGUF                 granite-4.0-micro-Q4_K_M.gguf
mistralai/Devstral-Small-2507_gguf                 Devstral-Small-2507-Q4_K_M.gguf
openai/gpt-oss-120b                                model.safetensors.index.json
openai/gpt-oss-20b                                 model.safetensors.index.json
shb777/Llama-3.3-8B-Instruct-128K-GGUF             llama-3.3-8b-instruct-q4_k_m.gguf
unsloth/Llama-3.1-8B-Instruct-GGUF                 Llama-3.1-8B-Instruct-Q4_K_M.gguf
unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF          Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf
"""

Write = Callable[[str], Path]

MINIMAL = """\
schema: 1
models:
  - id: mine
    name: My Model
    repo: someone/My-Model-GGUF
    file: My-Model-Q4_K_M.gguf
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a catalog and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def built_in() -> tuple[CatalogEntry, ...]:
    return load_catalog()


def with_line(extra: str) -> str:
    """The minimal catalog and one more line, number 7, in its entry."""
    return f"{MINIMAL}    {extra}\n"


class TestBuiltIn:
    def test_has_no_problem(self) -> None:
        assert check_catalog() == ()

    def test_is_the_one_at_the_top_of_the_checkout(self) -> None:
        assert catalog_path() == ROOT / "catalog.yaml"

    def test_is_large_enough_and_its_entries_are_distinct(self, built_in: tuple[CatalogEntry, ...]) -> None:
        assert len(built_in) >= 100
        assert len({each.id for each in built_in}) == len(built_in)
        assert len({model_key(each.repo, each.file) for each in built_in}) == len(built_in)
        assert len({each.name for each in built_in}) == len(built_in)

    @pytest.mark.parametrize("line", UPSTREAM.strip().splitlines())
    def test_has_everything_the_upstream_router_supports(self, line: str, built_in: tuple[CatalogEntry, ...]) -> None:
        repo, file = line.split()
        assert [each for each in built_in if (each.repo, each.file) == (repo, file)]

    def test_every_entry_can_be_drawn(self, built_in: tuple[CatalogEntry, ...]) -> None:
        for each in built_in:
            assert each.description and each.license and each.quantization and each.tags and each.capabilities, each.id
            assert each.size_bytes is not None and each.size_bytes > 10_000_000, each.id
            assert each.required_memory_bytes and each.required_memory_rule, each.id
            for text in (each.name, each.description, *each.tags):
                assert clean(text) == text

    def test_checksums_and_revisions_are_whole(self, built_in: tuple[CatalogEntry, ...]) -> None:
        for each in built_in:
            assert each.revision is None or re.fullmatch("[0-9a-f]{40}", each.revision), each.id
            for file in (*each.files, *each.companions):
                assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256), (each.id, file.path)
                assert file.size_bytes is None or file.size_bytes > 0
                assert safe_repo_path(file.path) == file.path
        sums = [file.sha256 for each in built_in for file in each.files if file.sha256]
        assert len(set(sums)) == len(sums), "one checksum was copied to two files"

    def test_required_memory_follows_the_rule_it_names(self, built_in: tuple[CatalogEntry, ...]) -> None:
        followed = 0
        for each in built_in:
            if each.required_memory_rule.startswith("1.5 x"):
                assert each.required_memory_bytes == pytest.approx(1.5 * (each.size_bytes or 0), abs=1), each.id
                assert each.required_memory_rule.endswith("companions included") == bool(each.companions), each.id
                followed += 1
        assert followed > 100

    def test_shards_come_with_their_sizes(self, built_in: tuple[CatalogEntry, ...]) -> None:
        entry = next(each for each in built_in if each.id == "qwen3-coder-next")
        assert [file.size_bytes for file in entry.files] == [15524827040, 14872168352, 14503294496, 3510702144]
        assert entry.size_bytes == 48410992032

    def test_a_total_stands_in_where_shards_are_not_known_one_by_one(self, built_in: tuple[CatalogEntry, ...]) -> None:
        entry = next(each for each in built_in if each.id == "gpt-oss-120b-safetensors")
        assert len(entry.files) == 16
        assert {file.size_bytes for file in entry.files} == {None}
        assert entry.size_bytes == 65248893184


class TestPackage:
    def test_the_wheel_carries_the_catalog(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
        assert wheel["force-include"]["catalog.yaml"] == "modelhub_tui/catalog.yaml"

    def test_an_installed_package_finds_its_own(self, tmp_path: Path) -> None:
        package = tmp_path / "site" / "modelhub_tui"
        package.mkdir(parents=True)
        for each in (ROOT / "src/modelhub_tui").glob("*.py"):
            shutil.copy(each, package)
        shutil.copy(ROOT / "catalog.yaml", package / "catalog.yaml")
        code = "from modelhub_tui.catalog import *; print(catalog_path(), len(load_catalog()))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(package.parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        path, count = done.stdout.split()
        assert path == str(package / "catalog.yaml")
        assert int(count) >= 100


class TestOwnCatalog:
    def test_needs_only_four_fields_and_the_rest_is_derived(self, write: Write) -> None:
        assert load_catalog(write(MINIMAL)) == (
            CatalogEntry(
                id="mine",
                name="My Model",
                description="",
                repo="someone/My-Model-GGUF",
                files=(CatalogFile("My-Model-Q4_K_M.gguf"),),
                quantization="Q4_K_M",
                format="gguf",
            ),
        )

    def test_memory_is_derived_from_sizes(self, write: Write) -> None:
        (entry,) = load_catalog(
            write(MINIMAL.replace("file: My-Model-Q4_K_M.gguf", "files: [{path: a.gguf, size_bytes: 1001}]"))
        )
        assert (entry.required_memory_bytes, entry.required_memory_rule) == (1501, "1.5 x file size")
        (entry,) = load_catalog(
            write(
                MINIMAL.replace(
                    "file: My-Model-Q4_K_M.gguf",
                    "files: [{path: a.gguf, size_bytes: 1000}]\n    companions: [{path: b, size_bytes: 500}]",
                )
            )
        )
        assert entry.required_memory_rule == "1.5 x file size, companions included"
        assert entry.required_memory_bytes == 2250

    def test_what_is_said_is_not_derived(self, write: Write) -> None:
        text = with_line("quantization: custom\n    format: other\n    required_memory_bytes: 7")
        (entry,) = load_catalog(write(text))
        assert (entry.quantization, entry.format, entry.required_memory_bytes) == ("custom", "other", 7)

    @pytest.mark.parametrize(
        ("file", "quantization", "kind"),
        [
            ("M-Q8_0.gguf", "Q8_0", "gguf"),
            ("m-q4_k_m.gguf", "Q4_K_M", "gguf"),
            ("Q4_K_M/M-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", "gguf"),
            ("m-IQ2_XXS.gguf", "IQ2_XXS", "gguf"),
            ("m.fp16.gguf", "FP16", "gguf"),
            ("gpt-oss-MXFP4.gguf", "MXFP4", "gguf"),
            ("model.safetensors.index.json", "", "safetensors"),
            ("onnx/model.onnx", "", "onnx"),
            ("ggml-base.bin", "", "ggml"),
            ("weights.pth", "", ""),
            ("Q-learning.gguf", "", "gguf"),
        ],
    )
    def test_quantization_and_format_are_read_from_the_name(
        self, file: str, quantization: str, kind: str, write: Write
    ) -> None:
        (entry,) = load_catalog(write(MINIMAL.replace("My-Model-Q4_K_M.gguf", file)))
        assert (entry.quantization, entry.format) == (quantization, kind)

    def test_a_first_shard_brings_the_others(self, write: Write) -> None:
        (entry,) = load_catalog(write(MINIMAL.replace("My-Model-Q4_K_M.gguf", "q4/m-00001-of-00003.gguf")))
        assert [file.path for file in entry.files] == [f"q4/m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]

    def test_shards_that_are_spelt_out_or_absurd_are_left_alone(self, write: Write) -> None:
        listed = MINIMAL.replace("file: My-Model-Q4_K_M.gguf", "files: [m-00001-of-00003.gguf, b.gguf]")
        assert [each.path for each in load_catalog(write(listed))[0].files] == ["m-00001-of-00003.gguf", "b.gguf"]
        absurd = MINIMAL.replace("My-Model-Q4_K_M.gguf", "m-00001-of-99999.gguf")
        assert len(load_catalog(write(absurd))[0].files) == 1

    def test_text_is_cleaned_and_checksums_are_folded(self, write: Write) -> None:
        text = MINIMAL.replace("name: My Model", 'name: "\\e[31mRed\\u202e  Model\\n"').replace(
            "file: My-Model-Q4_K_M.gguf", f"files: [{{path: a.gguf, sha256: {'AB' * 32}}}]"
        )
        (entry,) = load_catalog(write(text))
        assert entry.name == "[31mRed Model"
        assert entry.files[0].sha256 == "ab" * 32

    def test_companions_may_live_elsewhere(self, write: Write) -> None:
        (entry,) = load_catalog(
            write(with_line("companions: [{path: vae.bin, repo: other/vae, revision: main, size_bytes: 5}]"))
        )
        assert entry.companions == (CatalogFile("vae.bin", 5, None, "other/vae", "main"),)

    def test_nulls_are_as_good_as_nothing(self, write: Write) -> None:
        nothing = "".join(f"\n    {name}: null" for name in ("revision", "companions", "tags", "gated", "license"))
        assert load_catalog(write(MINIMAL + nothing.strip("\n") + "\n")) == load_catalog(write(MINIMAL))

    def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(self, tmp_path: Path, write: Write) -> None:
        path = tmp_path / "windows.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
        assert load_catalog(path) == load_catalog(write(MINIMAL))

    def test_it_may_be_empty(self, write: Write) -> None:
        assert load_catalog(write("schema: 1\nmodels: []\n")) == ()


# Each: what is added to the minimal catalog as line 7, and what must be said about it.
IN_ENTRY = [
    ("quantisation: Q4", "7: entry 'mine': quantisation: unknown field; did you mean quantization?"),
    ("zzz: 1", "7: entry 'mine': zzz: unknown field; known are id, name, description,"),
    ("description: 5", "7: entry 'mine': description: must be text, not 5; put it in quotes"),
    ("parameters: 7", "7: entry 'mine': parameters: must be text, not 7; put it in quotes"),
    ("description: ''", "7: entry 'mine': description: is empty; give it a value or leave the field out"),
    ('license: "\\u200b"', "7: entry 'mine': license: is empty; give it a value"),
    (f"description: {'x' * 1001}", "7: entry 'mine': description: is too long; shorten it to 1000 characters"),
    ("revision: a b", "7: entry 'mine': revision: is no revision; write a branch, a tag or, best, a commit: 'a b'"),
    ("revision: ../..", "7: entry 'mine': revision: is no revision"),
    ("context_length: 4k", "7: entry 'mine': context_length: must be a whole number, not '4k'; write only digits"),
    ("context_length: 1.5", "7: entry 'mine': context_length: must be a whole number, not 1.5"),
    ("context_length: true", "7: entry 'mine': context_length: must be a whole number, not true"),
    ("context_length: 0", "7: entry 'mine': context_length: is 0; it must be at least 1, or be left out"),
    ("context_length: 100000001", "7: entry 'mine': context_length: is 100000001; it must be at most 100000000"),
    (f"context_length: 0x{'f' * 90}", "7: entry 'mine': context_length: must be a whole number, not '0xff"),
    ("required_memory_bytes: .nan", "7: entry 'mine': required_memory_bytes: must be a whole number, not nan"),
    ("required_memory_bytes: 1e30", "7: entry 'mine': required_memory_bytes: must be a whole number"),
    ("required_memory_bytes: 100000000000001", "7: entry 'mine': required_memory_bytes: is 100000000000001; it must"),
    ("gated: maybe", "7: entry 'mine': gated: must be true or false, not 'maybe'"),
    ("gated: 1", "7: entry 'mine': gated: must be true or false, not 1"),
    ("tags: chat", "7: entry 'mine': tags: must be a list, not 'chat'; write it as [one, two]"),
    ("tags: {a: b}", "7: entry 'mine': tags: must be a list, not a mapping"),
    ("tags: [chat, 5]", "7: entry 'mine': tags[2]: must be text, not 5; put it in quotes"),
    ("tags: [chat, ~]", "7: entry 'mine': tags[2]: is empty; give it a value"),
    (f"tags: [{', '.join('abcdefgh' * 9)}]", "7: entry 'mine': tags: has too many items; 64 are allowed"),
    ("languages: [no]", "7: entry 'mine': languages[1]: must be text, not false; put it in quotes"),
    ("capabilities: [TextGeneration]", "7: entry 'mine': capabilities[1]: is 'TextGeneration'; did you mean text_gen"),
    ("capabilities: [flying]", "7: entry 'mine': capabilities[1]: is 'flying'; known are text_generation, vision,"),
    ("companions: [../up]", "7: entry 'mine': companions[1].path: path leaves its folder: '../up'; write the path as"),
    ("companions: [{repo: a/b}]", "7: entry 'mine': companions[1].path: is missing; add it"),
    ("companions: [{path: x, repo: a}]", "7: entry 'mine': companions[1].repo: is no repo: a has no owner; type"),
    ("companions: [{path: x, size: 4}]", "7: entry 'mine': companions[1].size: unknown field; "),
    (
        "companions: [[x]]",
        "7: entry 'mine': companions[1]: must be a path, or a mapping with path, size_bytes and sha25",
    ),
    ("companions: [My-Model-Q4_K_M.gguf]", "7: entry 'mine': companions[1].path: My-Model-Q4_K_M.gguf is listed twice"),
    ("files: [a.gguf]", "6: entry 'mine': file: is given beside files; keep one of them"),
    ("name: Again", "7: entry 'mine': name: is given twice (first in line 4); keep one"),
    ("<<: {name: x}", "7: entry 'mine': <<: unknown field"),
]

# Each: a whole catalog, and what must be said about it.
WHOLE = [
    ("", "1: is no catalog; it starts with `schema: 1` and `models:`"),
    ("# nothing\n", "1: is no catalog"),
    ("- a\n", "1: is no catalog"),
    ("models: []\n", "1: schema: is missing; add `schema: 1` as the first line"),
    ("schema: 2\nmodels: []\n", "1: schema: is 2; this program reads schema 1"),
    ("schema: '1'\nmodels: []\n", "1: schema: is '1'; this program reads schema 1"),
    ("schema: true\nmodels: []\n", "1: schema: is true; this program reads schema 1"),
    ("schema: 1\n", "1: models: must be a list of models, not empty; see docs/catalog.md"),
    ("schema: 1\nmodels: {a: b}\n", "2: models: must be a list of models, not a mapping"),
    ("schema: 1\nmodels: []\nmodel: []\n", "3: model: unknown field; did you mean models?"),
    ("schema: 1\nschema: 1\nmodels: []\n", "2: schema: is given twice (first in line 1); keep one"),
    ("schema: 1\nmodels:\n- 7\n", "3: entry 1: must be a mapping with id, name and repo, not 7"),
    ("schema: 1\nmodels:\n- {}\n", "3: entry 1: id: is missing; add it"),
    ("schema: 1\nmodels:\n- {}\n", "3: entry 1: name: is missing; add it"),
    ("schema: 1\nmodels:\n- {}\n", "3: entry 1: repo: is missing; add it"),
    ("schema: 1\nmodels:\n- {}\n", "3: entry 1: files: is missing; name what to download, such as `file: model-Q4_K_M"),
    ("schema: 1\nmodels:\n- id: x\n  files: []\n", "3: entry 'x': files: is missing"),
    ("schema: 1\nmodels:\n- id: 5\n", "3: entry 1: id: must be text, not 5; put it in quotes"),
    ("schema: 1\nmodels:\n- id: ~\n", "3: entry 1: id: is empty; give it a value"),
    (
        "schema: 1\nmodels:\n- id: A B\n",
        "3: entry 'A B': id: is 'A B'; use lower-case letters, digits, dots and dashes",
    ),
    ("schema: 1\nmodels:\n- {id: x, id: y}\n", "3: entry 'x': id: is given twice (first in line 3); keep one"),
    ("schema: 1\nmodels: [", "2: is not valid YAML ("),
    ("schema: 1\nmodels:\n\t- x", "3: is not valid YAML ("),
    ("a: b: c\n", "1: is not valid YAML (mapping values are not allowed"),
    ("a: \x07\n", "1: is not valid YAML ("),
    ("schema: 1\nmodels: []\n---\nx\n", "3: a second document begins; put all models into the first"),
    ("schema: &x 1\nmodels: []\n", "1: uses a YAML anchor or alias; write the value out"),
    ("schema: 1\nmodels:\n- &a [*a]\n", "3: uses a YAML anchor or alias"),
    ("schema: 1\nmodels: !!python/object/apply:os.system [ls]\n", "2: has the YAML tag tag:yaml.org,2002:python/"),
    ("schema: 1\nmodels: !ruby x\n", "2: has the YAML tag !ruby; write plain values"),
    ("? [a]\n: b\n", "1: has a list, a mapping or an alias where a field's name should be"),
    ("[" * 20, "1: is nested too deeply"),
]

REPOS = [
    ("foo", "is no repo: foo has no owner; type the repo as owner/name"),
    ("https://huggingface.co/a/b", "is no repo: it is more than a repo; write owner/name only"),
    ("a/b:c.gguf", "is no repo: it is more than a repo"),
    ("../b", "is no repo: ../b is not a repo name"),
    ("a/b\\e", "is no repo: "),
]
PATHS = ["../x", "/etc/passwd", "a/../../b", "C:/x", "a\\\\b", "", "a//b", "con", "a/\\u202ex", "~/x"]


class TestProblems:
    """All of them have the form `file:line: entry 'id': field: what is wrong; what to do`."""

    @pytest.mark.parametrize(("line", "said"), IN_ENTRY, ids=[each[0][:40] for each in IN_ENTRY])
    def test_in_an_entry(self, line: str, said: str, write: Write) -> None:
        path = write(with_line(line))
        problems = check_catalog(path)
        assert len(problems) == 1, problems
        assert problems[0].startswith(f"{path}:{said}"), problems[0]

    @pytest.mark.parametrize(("text", "said"), WHOLE, ids=[repr(each[0])[:40] + str(n) for n, each in enumerate(WHOLE)])
    def test_in_the_whole(self, text: str, said: str, write: Write) -> None:
        path = write(text)
        problems = check_catalog(path)
        assert [each for each in problems if each.startswith(f"{path}:{said}")], problems

    @pytest.mark.parametrize(("repo", "said"), REPOS)
    def test_repo(self, repo: str, said: str, write: Write) -> None:
        path = write(MINIMAL.replace("someone/My-Model-GGUF", f'"{repo}"'))
        (problem,) = check_catalog(path)
        assert problem.startswith(f"{path}:5: entry 'mine': repo: {said}"), problem

    @pytest.mark.parametrize("bad", PATHS)
    def test_hostile_paths(self, bad: str, write: Write) -> None:
        path = write(MINIMAL.replace("My-Model-Q4_K_M.gguf", f'"{bad}"'))
        (problem,) = check_catalog(path)
        assert problem.startswith(f"{path}:6: entry 'mine': file: "), problem
        assert problem.endswith("; write the path as the repo's file list shows it")

    @pytest.mark.parametrize("bad", ["abc", "g" * 64, "a" * 63, "a" * 65])
    def test_checksums(self, bad: str, write: Write) -> None:
        path = write(MINIMAL.replace("file: My-Model-Q4_K_M.gguf", f"files:\n    - path: a\n      sha256: {bad}"))
        (problem,) = check_catalog(path)
        assert problem.startswith(f"{path}:8: entry 'mine': files[1].sha256: is '"), problem

    @pytest.mark.parametrize(
        ("sizes", "total", "said"),
        [
            ((5, 6), 11, "the files' own sizes are all given; leave it out"),
            ((5, None), 4, "is less than the files add up to (5); correct one of them"),
        ],
    )
    def test_totals(self, sizes: tuple[int | None, ...], total: int, said: str, write: Write) -> None:
        files = ", ".join(f"{{path: f{n}, size_bytes: {size or 'null'}}}" for n, size in enumerate(sizes))
        path = write(MINIMAL.replace("file: My-Model-Q4_K_M.gguf", f"files: [{files}]\n    total_bytes: {total}"))
        assert check_catalog(path) == (f"{path}:7: entry 'mine': total_bytes: {said}",)

    def test_duplicates_between_entries(self, write: Write) -> None:
        entry = MINIMAL.split("models:\n")[1]
        path = write(MINIMAL + entry + entry.replace("id: mine", "id: other").replace("someone", "SOMEONE"))
        assert check_catalog(path) == (
            f"{path}:7: entry 'mine': id: is taken by the entry in line 3; choose another",
            f"{path}:11: entry 'other': files: My-Model-Q4_K_M.gguf is what entry 'mine' lists already; "
            "keep one of them",
        )

    def test_all_are_reported_in_the_order_of_the_file(self, write: Write) -> None:
        text = "".join(f"    {line}\n" for line, _ in IN_ENTRY if line.split(":")[0] in ("gated", "tags", "zzz"))
        path = write("schema: 3\nextra: 1\n" + MINIMAL.split("\n", 1)[1] + text.replace("tags: chat", "tags: [~]"))
        lines = [int(each.removeprefix(f"{path}:").split(":")[0]) for each in check_catalog(path)]
        assert lines == sorted(lines)
        assert {1, 2, 8, 9} <= set(lines)

    def test_no_more_than_anybody_would_read(self, write: Write) -> None:
        problems = check_catalog(write("schema: 1\nmodels:\n" + "- 5\n" * 1000))
        assert len(problems) == catalog_yaml.MAX_PROBLEMS + 1
        assert problems[-1].endswith("there are more problems; mend these first")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        path = tmp_path / "none.yaml"
        with pytest.raises(BadCatalog) as caught:
            load_catalog(path, tmp_path / "cache")
        said = f"{path}:1: cannot be read (No such file or directory); check the name and its permissions"
        assert caught.value.problems == (said,) == check_catalog(path)

    def test_a_folder(self, tmp_path: Path) -> None:
        (problem,) = check_catalog(tmp_path)
        assert problem == f"{tmp_path}:1: cannot be read (it is no regular file); check the name and its permissions"

    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_what_never_ends(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "pipe" if kind == "pipe" else Path("/dev/zero")
        if kind == "pipe":
            os.mkfifo(path)
        (problem,) = check_catalog(path)
        assert problem == f"{path}:1: cannot be read (it is no regular file); check the name and its permissions"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_no_permission(self, write: Write) -> None:
        path = write(MINIMAL)
        path.chmod(0)
        (problem,) = check_catalog(path)
        assert problem == f"{path}:1: cannot be read (Permission denied); check the name and its permissions"

    def test_a_name_no_file_can_have(self) -> None:
        (problem,) = check_catalog(Path("a\0b"))
        assert problem == "ab:1: cannot be read (not a usable name); check the name and its permissions"
        with pytest.raises(BadCatalog):
            load_catalog(Path("a\0b"), Path("/nowhere"))

    def test_not_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "latin.yaml"
        path.write_bytes(b"schema: 1\n# caf\xe9\n")
        assert check_catalog(path) == (f"{path}:2: is not UTF-8 text; save it in that encoding",)

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "large.yaml"
        with path.open("wb") as file:
            file.truncate(5_000_001)
        (problem,) = check_catalog(path)
        assert (
            problem
            == f"{path}:1: cannot be read (it is larger than 5,000,000 bytes); check the name and its permissions"
        )

    @pytest.mark.parametrize(
        "text", ["[" * 1_000_000, "{a: " * 1_000_000, "- " * 1_000_000], ids=["list", "map", "block"]
    )
    def test_deep_nesting_neither_crashes_nor_hangs(self, text: str, write: Write) -> None:
        # libyaml's own composer overflows the C stack on this, which no `except` can catch.
        (problem,) = check_catalog(write(text))
        assert "is nested too deeply" in problem or "is not valid YAML" in problem

    def test_too_many_values(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalog_yaml, "_MAX_VALUES", 100)
        path = write("schema: 1\nmodels: [" + "x," * 200 + "]")
        assert check_catalog(path) == (
            f"{path}:2: has more than 100 values; a catalog only lists models, so shorten it",
        )

    def test_the_slower_parser_reports_the_same(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        import yaml

        path = write(with_line("tags: [chat, 5]\n    zzz: 1"))
        fast = check_catalog(path)
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
        assert check_catalog(path) == fast
        assert len(fast) == 2

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(max_size=80))
    @example(text="schema: 0x_")
    @example(text="schema: 1:0_:.")
    @example(text="? ")
    @example(text="a: |\n")
    @example(text="'")
    def test_nothing_anybody_types_breaks_it(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "fuzz.yaml"
        for whole in (text, with_line(text)):
            path.write_bytes(whole.encode("utf-8", "surrogatepass"))
            for problem in check_catalog(path):
                assert clean(problem, 5_000) == problem
                assert re.match(re.escape(str(path)) + r":\d+: .", problem)

    def test_a_problem_shows_no_escape_sequence(self, write: Write) -> None:
        path = write(with_line('"\\e[2J\\u202e": "\\e]52;c;x\\a"\n    gated: "\\e[31m"\n    tags: ["\\e[0m", 4]'))
        problems = check_catalog(path)
        assert len(problems) == 3
        assert all(clean(each, 5_000) == each for each in problems)


class TestCache:
    def test_the_second_start_gives_the_same_without_reading_yaml(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_in: tuple[CatalogEntry, ...]
    ) -> None:
        assert load_catalog(cache_dir=tmp_path / "cache") == built_in
        monkeypatch.setattr(catalog_schema, "read_catalog", lambda path: pytest.fail("read the YAML again"))
        again = load_catalog(cache_dir=tmp_path / "cache")
        assert again == built_in
        for each in again:
            for name, kind in typing.get_type_hints(CatalogEntry).items():
                if typing.get_origin(kind) is tuple:
                    assert type(getattr(each, name)) is tuple, name  # a list would be equal to nothing and unhashable

    def test_the_short_way_imports_neither_yaml_nor_pydantic(self, tmp_path: Path) -> None:
        load_catalog(cache_dir=tmp_path)
        code = (
            "import sys; from pathlib import Path; from modelhub_tui.catalog import load_catalog;"
            "n = len(load_catalog(cache_dir=Path(sys.argv[1])));"
            "print(n, *sorted({name.split('.')[0] for name in sys.modules}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=90, check=True
        )
        count, *modules = done.stdout.split()
        assert int(count) >= 100
        assert not {"yaml", "pydantic", "pydantic_core", "tempfile", "dataclasses_json", "httpx"} & set(modules)

    def test_it_is_private(self, tmp_path: Path) -> None:
        load_catalog(cache_dir=tmp_path / "a" / "b")
        (cached,) = (tmp_path / "a" / "b").iterdir()
        assert stat.S_IMODE(cached.stat().st_mode) == 0o600
        assert stat.S_IMODE(cached.parent.stat().st_mode) == 0o700

    def test_an_edit_counts_at_once(self, tmp_path: Path, write: Write) -> None:
        path, cache = write(MINIMAL), tmp_path / "cache"
        assert load_catalog(path, cache)[0].name == "My Model"
        before = path.stat()
        write(MINIMAL.replace("My Model", "MY MODEL"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert load_catalog(path, cache)[0].name == "MY MODEL"

    def test_a_broken_edit_is_refused_though_a_good_one_is_cached(self, tmp_path: Path, write: Write) -> None:
        load_catalog(write(MINIMAL), tmp_path / "cache")
        with pytest.raises(BadCatalog):
            load_catalog(write(with_line("gated: maybe")), tmp_path / "cache")

    def test_another_version_of_the_program_reads_anew(
        self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(MINIMAL)
        load_catalog(path, tmp_path / "cache")
        monkeypatch.setattr(catalog_module, "__version__", "99")
        read = []
        original = catalog_schema.read_catalog
        monkeypatch.setattr(catalog_schema, "read_catalog", lambda path: read.append(path) or original(path))
        load_catalog(path, tmp_path / "cache")
        load_catalog(path, tmp_path / "cache")
        assert len(read) == 1

    def test_two_catalogs_do_not_push_each_other_out(
        self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, cache = write(MINIMAL), tmp_path / "cache"
        mine, built_in = load_catalog(path, cache), load_catalog(None, cache)
        monkeypatch.setattr(catalog_schema, "read_catalog", lambda path: pytest.fail("read the YAML again"))
        assert (load_catalog(path, cache), load_catalog(None, cache)) == (mine, built_in)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: b"",
            lambda raw: raw[: len(raw) // 2],
            lambda raw: b"\xff" + raw,
            lambda raw: b"null",
            lambda raw: b"[]",
            lambda raw: b"[" * 100_000,
            lambda raw: b"{}",
            lambda raw: raw.replace(b"My Model", b"My \x1b[2J"),
            lambda raw: raw.replace(b"My Model", b"My \\u001b[2J"),
            lambda raw: raw.replace(b"My Model", b"My \\u202eModel"),
            lambda raw: raw.replace(b"My Model", b"My \\nModel"),
            lambda raw: raw.replace(b"My Model", "My \u202eModel".encode()),
            lambda raw: raw.replace(b'"My Model"', b"5"),
            lambda raw: raw.replace(b'"My Model"', b"NaN"),
            lambda raw: raw.replace(b'"My Model"', b'["My Model"]'),
            lambda raw: raw.replace(b"My-Model-Q4_K_M.gguf", b"../../etc/passwd"),
            lambda raw: raw.replace(b'[["My-Model-Q4_K_M.gguf", null, null, null, null]]', b"[]"),
            lambda raw: raw.replace(b'"My-Model-Q4_K_M.gguf", null', b'"My-Model-Q4_K_M.gguf", 1.5'),
            lambda raw: raw.replace(b'["tag"]', b"[7]"),
            lambda raw: raw.replace(b'["tag"]', b'[["tag"]]'),
            lambda raw: raw.replace(b'["tag"]', b'"tag"'),
            lambda raw: raw.replace(b"false", b"0"),
            lambda raw: raw.replace(b'"entries": [', b'"entries": {"a": [').replace(b"]}", b"]}}"),
            lambda raw: raw.replace(b'"entries": [[', b'"entries": [7, ['),
        ],
    )
    def test_a_damaged_or_forged_one_is_rebuilt(
        self, damage: Callable[[bytes], bytes], tmp_path: Path, write: Write
    ) -> None:
        path, cache = write(with_line("tags: [tag]")), tmp_path / "cache"
        good = load_catalog(path, cache)
        (cached,) = cache.iterdir()
        raw = cached.read_bytes()
        damaged = damage(raw)
        assert damaged != raw, "this damages nothing"
        cached.write_bytes(damaged)
        assert load_catalog(path, cache) == good
        assert cached.read_bytes() == raw
        assert [each.name for each in cache.iterdir()] == [cached.name]

    def test_quotes_backslashes_and_other_scripts_survive_it(self, tmp_path: Path, write: Write) -> None:
        path = write(MINIMAL.replace("My Model", '"\\"q\\" \\\\n \\\\u001b C:\\\\x 日本語 e\\u0301 👍"'))
        first = load_catalog(path, tmp_path / "cache")
        assert first[0].name == '"q" \\n \\u001b C:\\x 日本語 e\u0301 👍'
        (cached,) = (tmp_path / "cache").iterdir()
        before = cached.stat().st_mtime_ns
        assert load_catalog(path, tmp_path / "cache") == first
        assert cached.stat().st_mtime_ns == before, "it was rebuilt, so it had not been usable"

    def test_a_link_in_its_place_is_not_followed(self, tmp_path: Path, write: Write) -> None:
        path, cache = write(MINIMAL), tmp_path / "cache"
        load_catalog(path, cache)
        (cached,) = cache.iterdir()
        elsewhere = tmp_path / "elsewhere.json"
        elsewhere.write_bytes(cached.read_bytes().replace(b"My Model", b"Forged"))
        cached.unlink()
        cached.symlink_to(elsewhere)
        assert load_catalog(path, cache)[0].name == "My Model"
        assert not cached.is_symlink()
        assert b"Forged" in elsewhere.read_bytes()

    def test_a_pipe_in_its_place_does_not_hang(self, tmp_path: Path, write: Write) -> None:
        path, cache = write(MINIMAL), tmp_path / "cache"
        load_catalog(path, cache)
        (cached,) = cache.iterdir()
        cached.unlink()
        os.mkfifo(cached)
        assert load_catalog(path, cache)[0].name == "My Model"

    def test_somebody_elses_is_not_read(self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        path, cache = write(MINIMAL), tmp_path / "cache"
        load_catalog(path, cache)
        (cached,) = cache.iterdir()
        stored = json.loads(cached.read_text())
        stored["entries"][0][1] = "Forged"
        cached.write_text(json.dumps(stored))
        assert load_catalog(path, cache)[0].name == "Forged"  # a well-formed one of our own is believed
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        assert load_catalog(path, cache)[0].name == "My Model"

    def test_a_folder_that_cannot_be_written_costs_only_time(self, tmp_path: Path, write: Write) -> None:
        (tmp_path / "file").write_text("in the way")
        assert load_catalog(write(MINIMAL), tmp_path / "file" / "cache")[0].id == "mine"


class TestDocs:
    TEXT = (ROOT / "docs/catalog.md").read_text(encoding="utf-8")

    def test_its_examples_are_right(self, write: Write, built_in: tuple[CatalogEntry, ...]) -> None:
        examples = re.findall(r"```yaml\n(.*?)```", self.TEXT, re.DOTALL)
        assert len(examples) == 2
        smallest, full = (load_catalog(write(each))[0] for each in examples)
        assert smallest.id == "my-model"
        real = next(each for each in built_in if each.id == full.id)
        assert (full.files, full.companions, full.revision) == (real.files, real.companions, real.revision)
        assert full.required_memory_bytes == real.required_memory_bytes

    def test_it_names_every_field(self) -> None:
        model, file = self.TEXT.split("### A model")[1].split("### A file")
        fields = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
        assert set(fields.findall(model)) == set(catalog_schema._EntrySpec.model_fields)
        assert set(fields.findall(file.split("### ")[0])) == set(catalog_schema._CompanionSpec.model_fields)
