"""Which model a name means."""

from __future__ import annotations

import pytest

from modelhub_tui.cli.names import resolve, resolve_pull
from modelhub_tui.cli.output import Console, cell_width, cut
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.client.base import RegisterRequest
from modelhub_tui.domain import Model, ModelState
from modelhub_tui.errors import BadReference, NotFound

HUB = "https://huggingface.co"


def model(name: str, title: str = "", catalog_id: str | None = None, repo: str = "", file: str = "f.gguf") -> Model:
    return Model(
        key=name, name=name, title=title or name, description="", repo=repo or name, file=file, files=(file,),
        state=ModelState.AVAILABLE, catalog_id=catalog_id,
    )  # fmt: skip


QWEN = model("q/qwen-7b-gguf", "Qwen 7B", "qwen-7b", "Q/Qwen-7B-GGUF", "qwen-q4.gguf")
CODER = model("q/qwen-7b-coder-gguf", "Qwen 7B Coder", "qwen-7b-coder", "Q/Qwen-7B-Coder-GGUF")
SECOND = model("q/qwen-7b-gguf:q8_0", "Qwen 7B Q8", None, "Q/Qwen-7B-GGUF", "qwen-q8.gguf")
GEMMA = model("g/gemma", "Gemma 2", "gemma-2")
ALL = (QWEN, CODER, SECOND, GEMMA)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen-7b", QWEN),
        ("QWEN-7B", QWEN),
        ("qwen 7b", QWEN),
        ("q/qwen-7b-gguf", QWEN),
        ("q/qwen-7b-gguf:q8_0", SECOND),
        ("coder", CODER),
        (" gemma ", GEMMA),
        ("q8", SECOND),
    ],
)
def test_exact_beats_part_and_case_does_not_matter(name: str, expected: Model) -> None:
    assert resolve(ALL, name) is expected


def test_ambiguity_lists_at_most_ten() -> None:
    many = [model(f"a/m{number}", catalog_id=f"m{number}") for number in range(15)]
    with pytest.raises(BadUsage, match=r"m0, m1, .*m9 and 5 more") as caught:
        resolve(many, "a/m")
    assert "m10" not in caught.value.reason
    with pytest.raises(BadUsage, match="qwen-7b, qwen-7b-coder, q/qwen-7b-gguf:q8_0"):
        resolve(ALL, "qwen")


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_a_slip_of_the_caller(name: str) -> None:
    with pytest.raises(BadUsage, match="empty"):
        resolve(ALL, name)


@pytest.mark.parametrize("name", ["llama", "\x1b"])
def test_nobody_has_that_name(name: str) -> None:
    with pytest.raises(NotFound):
        resolve(ALL, name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen-7b", QWEN),
        (f"{HUB}/Q/Qwen-7B-GGUF/blob/main/qwen-q8.gguf", SECOND),
        ("hf.co/G/Gemma", GEMMA),
        ("Q/Qwen-7B-GGUF:other.gguf", RegisterRequest("Q/Qwen-7B-GGUF", "other.gguf")),
        (f"{HUB}/Q/Qwen-7B-GGUF/blob/v2/qwen-q8.gguf", RegisterRequest("Q/Qwen-7B-GGUF", "qwen-q8.gguf", "v2")),
        ("New/Repo", RegisterRequest("New/Repo")),
    ],
)
def test_a_pull_may_name_any_repo(name: str, expected: Model | RegisterRequest) -> None:
    assert resolve_pull(ALL, name, HUB) == expected


def test_what_is_no_repo_is_not_registered() -> None:
    with pytest.raises(NotFound):
        resolve_pull(ALL, "llama", HUB)
    with pytest.raises(NotFound):
        resolve_pull(ALL, "what/ever/../it", HUB)
    with pytest.raises(BadReference):
        resolve_pull(ALL, "https://evil.example/a/b", HUB)
    with pytest.raises(BadUsage):
        resolve_pull(ALL, f"{HUB}/Q/Qwen-7B-GGUF", HUB)


def test_text_is_cut_by_columns() -> None:
    assert cell_width("abc") == 3 and cell_width("日本") == 4 and cell_width("e\u0301") == 1
    assert cut("日本語", 5) == "日本…" and cut("日本語", 6) == "日本語" and cut("abcdef", 4) == "abc…"


def test_a_table_fits_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.width = 40
    head = ("STATE", "NAME", "EMPTY", "TITLE")
    rows = [("ok", "a" * 12, "", "日本語の長い名前" * 4), ("downloading", "b", "", "c")]
    console.table(head, rows, shrink=("TITLE",), drop=("TITLE",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("ok           aaaaaaaaaaaa  日本") and max(map(cell_width, lines)) <= 40
    console.width = 38
    console.table(head, rows, shrink=("TITLE",), drop=("TITLE",))
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["STATE", "NAME"],
        ["ok", "a" * 12],
        ["downloading", "b"],
    ]
    console.width = 0
    console.table(head, rows, shrink=("TITLE",), drop=("TITLE",))
    printed = capsys.readouterr().out
    assert "日本語の長い名前" * 4 in printed and "EMPTY" not in printed


MOON = model("ggml-org/moondream2-20250414-gguf", "Moondream 2")


@pytest.mark.parametrize(
    "name",
    [
        "org/m",
        "org/moondream2",
        "ml-org/moondream2",
        "ggml-org/moon",
        "ggml-org/m",
        "oon",
        "moon",
        "dream2",
        "2025",
        "gg",
    ],
)
def test_half_a_word_is_no_part(name: str) -> None:
    with pytest.raises(NotFound):
        resolve((MOON, GEMMA), name)
    if "/" in name:
        assert resolve_pull((MOON, GEMMA), name, HUB) == RegisterRequest(name)


@pytest.mark.parametrize(
    "name", ["moondream2", "moondream", "Moondream 2", "ggml-org/moondream2", "ggml-org", "20250414", "org"]
)
def test_whole_words_are_a_part(name: str) -> None:
    assert resolve((MOON, GEMMA), name) is MOON


@pytest.mark.parametrize("part", ["moondream", "moondream2", "ggml-org/moondream2", "gguf", "ggml-org"])
def test_what_is_destroyed_is_named_in_full(part: str) -> None:
    with pytest.raises(BadUsage) as caught:
        resolve((MOON, GEMMA), part, full=True)
    assert caught.value.reason == f"{part!r} is a part of a name; type it in full: {MOON.name}."
    with pytest.raises(NotFound):
        resolve((MOON, GEMMA), "org/m", full=True)
    for name in (MOON.name, MOON.name.upper(), "moondream 2", " gemma-2 "):
        assert resolve((MOON, GEMMA), name, full=True) in (MOON, GEMMA)
    with pytest.raises(BadUsage, match="qwen-7b or qwen-7b-coder or q/qwen-7b-gguf:q8_0"):
        resolve(ALL, "qwen", full=True)
