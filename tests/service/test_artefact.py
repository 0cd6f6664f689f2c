"""Which files make a model, and in what order they are offered."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui.service.router.artefact import RepoFile, by_use, choose, quantization, shards, starting_with
from modelhub_tui.service.router.errors import Refused


def listing(*paths: str) -> list[RepoFile]:
    return [RepoFile(path, 1) for path in paths]


def chosen(paths: list[str], wanted: str | None = None) -> tuple[str, list[str]]:
    choice = choose(listing(*paths), wanted)
    return choice.filename, [each.path for each in choice.files]


SHARDED = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"]
PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("model.q8_0.gguf", "Q8_0"),
        ("UD-Q4_K_XL/Model-UD-Q4_K_XL-00001-of-00002.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("m-IQ3_XXS.gguf", "IQ3_XXS"),
        ("m-f16.gguf", "F16"),
        ("m-BF16.gguf", "BF16"),
        ("Q-Model-7B.gguf", ""),
        ("model.gguf", ""),
    ],
)
def test_quantization_is_read_from_the_name(name: str, quant: str) -> None:
    assert quantization(name) == quant


def test_the_usual_compromise_is_offered_first() -> None:
    paths = [
        "m-F16.gguf",
        "m-Q2_K.gguf",
        "m-Q8_0.gguf",
        "m-odd.gguf",
        "m-Q4_K_M.gguf",
        "m-Q5_K_M.gguf",
        "m-IQ4_XS.gguf",
    ]
    wanted = [
        "m-Q4_K_M.gguf",
        "m-Q5_K_M.gguf",
        "m-IQ4_XS.gguf",
        "m-Q8_0.gguf",
        "m-Q2_K.gguf",
        "m-F16.gguf",
        "m-odd.gguf",
    ]
    assert by_use(paths) == wanted
    with pytest.raises(Refused) as caught:
        choose(listing(*paths), None)
    assert (caught.value.code, list(caught.value.candidates)) == ("several_files", wanted)


def test_one_split_model_is_one_candidate() -> None:
    parts = [f"m-Q4_K_M-0000{n}-of-00003.gguf" for n in (3, 1, 2)]
    assert chosen([*parts, "mmproj-m-f16.gguf", "imatrix.gguf"]) == (sorted(parts)[0], sorted(parts))
    assert chosen(parts, parts[0]) == (sorted(parts)[0], sorted(parts))


def test_a_projector_may_be_named() -> None:
    assert chosen(["m.gguf", "mmproj-f16.gguf"], "mmproj-f16.gguf") == ("mmproj-f16.gguf", ["mmproj-f16.gguf"])


def test_a_missing_or_absurd_shard_is_refused() -> None:
    with pytest.raises(Refused, match=r"m-00002-of-00002\.gguf"):
        choose(listing("m-00001-of-00002.gguf"), "m-00001-of-00002.gguf")
    with pytest.raises(Refused, match="99999 shards"):
        choose(listing("m-00001-of-99999.gguf"), None)


def test_sharded_safetensors_come_whole() -> None:
    everything = [
        *SHARDED,
        *PARTS,
        "README.md",
        ".gitattributes",
        "consolidated.safetensors",
        "onnx/model.onnx",
        "pytorch_model.bin",
    ]
    for wanted in (None, "model.safetensors.index.json", PARTS[1]):
        filename, files = chosen(everything, wanted)
        assert filename == "model.safetensors.index.json"
        assert sorted(files) == sorted([*SHARDED, *PARTS])


def test_one_safetensors_file_with_its_configuration() -> None:
    paths = ["config.json", "vocab.txt", "model.safetensors", "1_Pooling/config.json", "onnx/model.onnx"]
    assert chosen(paths) == ("model.safetensors", ["config.json", "vocab.txt", "model.safetensors"])


def test_a_pipeline_of_several_networks_comes_with_all_of_them() -> None:
    paths = [
        "model_index.json",
        "unet/config.json",
        "unet/w.safetensors",
        "vae/config.json",
        "vae/w.safetensors",
        "x.png",
    ]
    assert sorted(chosen(paths)[1]) == sorted(paths[:-1])


def test_a_checkpoint_beside_a_pipeline_is_whole_by_itself() -> None:
    paths = ["model_index.json", "unet/config.json", "unet/w.safetensors", "v1.safetensors"]
    assert chosen(paths, "v1.safetensors") == ("v1.safetensors", ["v1.safetensors"])


def test_an_onnx_repo_comes_whole() -> None:
    paths = ["config.json", "tokenizer.json", "model.onnx", "model.onnx_data", "README.md", "x.bin"]
    assert chosen(paths) == ("model.onnx", ["config.json", "tokenizer.json", "model.onnx", "model.onnx_data"])
    assert chosen([*paths, "model_q4.onnx"], "model_q4.onnx")[1] == ["config.json", "tokenizer.json", "model_q4.onnx"]


def test_two_kinds_without_a_name_are_a_question() -> None:
    with pytest.raises(Refused, match="Multiple artifact types") as caught:
        choose(listing("m-Q4_K_M.gguf", *SHARDED, *PARTS), None)
    assert caught.value.candidates == ("m-Q4_K_M.gguf", "model.safetensors.index.json")


_PIECES = st.sampled_from(
    ["model", "a/", "-Q4_K_M", "-00001-of-00002", ".gguf", ".safetensors", ".onnx", ".json", "_data"]
)


@given(st.lists(st.lists(_PIECES, min_size=1, max_size=5).map("".join), max_size=12), st.none() | st.text(max_size=30))
def test_any_listing_gives_a_choice_from_it_or_a_refusal(paths: list[str], wanted: str | None) -> None:
    try:
        choice = choose(listing(*paths), wanted)
    except Refused as error:
        assert error.code in ("no_such_file", "several_files", "unsupported")
    else:
        assert choice.files and {each.path for each in choice.files} <= {*paths}


@given(st.integers(1, 40), st.data())
def test_every_shard_names_the_same_model(count: int, data: st.DataObject) -> None:
    parts = [f"d/m-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
    assert list(shards(data.draw(st.sampled_from(parts)), parts)) == parts


@given(st.lists(st.text("ab/", max_size=6)), st.lists(st.text("ab/", max_size=4)))
def test_starting_with_any_of_many_is_what_asking_each_says(paths: list[str], stems: list[str]) -> None:
    assert starting_with(paths, stems) == [path for path in paths if path.startswith(tuple(stems))]


def _calls(work: Callable[[], object]) -> int:
    """How many functions are called meanwhile, those written in C too: work that no busy machine makes longer."""
    count = 0

    def seen(_frame: object, event: str, _what: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    except Refused:
        pass
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "form",
    [
        ("m-{}.onnx", "m-{}.onnx_data", "m-{}.json"),
        ("m-{}-Q4_K_M.gguf", "m-{}-00001-of-00002.gguf"),
        ("d{}/model.safetensors", "d{}/config.json", "m-{}.safetensors.index.json"),
        ("model_index.json", "d{}/m.safetensors", "d{}/config.json"),
    ],
)
@pytest.mark.parametrize("wanted", [None, "m-1.onnx", "m-1.safetensors.index.json", "nowhere.gguf"])
def test_a_repo_four_times_as_large_takes_four_times_the_work(form: tuple[str, ...], wanted: str | None) -> None:
    def work(count: int) -> int:
        files = listing(*dict.fromkeys(each.format(number) for number in range(count) for each in form))
        return _calls(lambda: choose(files, wanted))

    assert work(1600) < 5 * work(400)


def test_a_model_of_too_many_files_is_called_that() -> None:
    with pytest.raises(Refused, match="would have 20001 files") as caught:
        choose(listing(*(f"m-{number}.onnx" for number in range(20_001))), None)
    assert caught.value.code == "unsupported" and "name one of its files" in caught.value.reason
    assert len(choose(listing(*(f"m-{number}.onnx" for number in range(20_001))), "m-1.onnx").files) == 1
