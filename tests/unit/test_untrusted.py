"""Nothing that reaches a terminal or a file system through these functions can do more than be read."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelhub_tui.identifiers import safe_repo_path
from modelhub_tui.untrusted import clean, clean_block, escaped, printable

# Plain `st.text()` rarely meets what matters here.
NASTY = "\x00\x07\x1b\x7f\x85\x9b\xa0\xad\u0301\u0489\u061c\u1160\u200b\u200d\u200e\u2028\u202e\u2066\u2800\u3164\ufe0f"
HOSTILE = st.text(
    st.one_of(st.characters(), st.characters(categories=["Mn", "Me", "Cf", "Cc", "Co", "Zs"]), st.sampled_from(NASTY)),
    max_size=120,
)


def stacks(text: str) -> int:
    """Length of the longest pile of combining marks."""
    longest = run = 0
    for char in text:
        run = run + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        longest = max(longest, run)
    return longest


class TestClean:
    @given(HOSTILE, st.integers(1, 80))
    @example("a\u0301\u200b" * 20, 80)
    @example("\ud800", 5)
    @example("a b", 2)
    def test_what_comes_out(self, text: str, limit: int) -> None:
        out = clean(text, limit)
        assert not {unicodedata.category(char) for char in out} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert len(out) <= limit
        assert out == out.strip() and "  " not in out
        assert stacks(out) <= 4
        assert clean(out, limit) == out
        assert clean_block(out, limit) == out
        out.encode()  # no lone surrogate

    @given(st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), max_size=100))
    def test_plain_text_is_left_alone(self, text: str) -> None:
        assert clean(text) == text

    @pytest.mark.parametrize(
        ("text", "safe"),
        [
            ("\x1b[31mred\x1b[0m", "[31mred[0m"),
            ("\x1b]52;c;ZXZpbA==\x07", "]52;c;ZXZpbA=="),
            ("\x9b2J", "2J"),
            ("gnp.\u202egpj", "gnp.gpj"),
            ("a\u2066b\u2069c\u200fd\u061ce", "abcde"),
            ("pay\u200bpal\u200d\ufeff\u00ad", "paypal"),
            ("one\r\ntwo\tthree\x0bfour", "one two three four"),
            ("  wide\u3000open\u00a0space\u2003 ", "wide open space"),
            ("line\u2028break\u2029here", "line break here"),
            ("\u3164\u2800\uffa0", ""),
            ("blank\u3164name", "blank name"),
            ("\U000e0041\U000e0042tag", "tag"),
            ("\ue000private", "private"),
            ("\ud83d lone", "lone"),
            ("Z" + "\u0301" * 50, "Z" + "\u0301" * 4),
            ("e\u0301te\u0301", "e\u0301te\u0301"),
            ("日本語 Ünïcödé 👍", "日本語 Ünïcödé 👍"),
            ("[bold]markup[/]", "[bold]markup[/]"),
            (None, ""),
            (42, "42"),
            (b"\x1b", "b'\\x1b'"),
            ("", ""),
        ],
    )
    def test_examples(self, text: object, safe: str) -> None:
        assert clean(text) == safe

    def test_a_dropped_character_does_not_hide_a_pile_of_marks(self) -> None:
        for hidden in "\u200b\x00\ue000":
            assert stacks(clean(f"a\u0301\u0302{hidden}" * 1 + f"\u0303\u0304{hidden}" * 40)) == 4

    def test_what_is_cut_ends_in_an_ellipsis(self) -> None:
        assert clean("abcdef", 6) == "abcdef"
        assert clean("abcdefg", 6) == "abcde…"
        assert clean("abcd  efg", 6) == "abcd…"
        assert len(clean("x" * 10_000_000)) == 300

    def test_a_number_python_will_not_print(self) -> None:
        assert clean(1 << 100_000) == "a huge number"


class TestCleanBlock:
    @given(HOSTILE, st.integers(1, 80))
    @example("a\r\n\r\nb", 80)
    @example("ab\n\n\n\nc", 4)
    def test_what_comes_out(self, text: str, limit: int) -> None:
        out = clean_block(text, limit)
        categories = {unicodedata.category(char) for char in out.replace("\n", "")}
        assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert len(out) <= limit
        assert not out.startswith("\n")
        assert clean_block(out, limit) == out

    def test_lines_are_kept(self) -> None:
        assert clean_block("\n\none  \x1b[1mtwo\r\n\r\n three\rfour\n") == "one [1mtwo\n\nthree\nfour"

    def test_no_text(self) -> None:
        assert clean_block(None) == ""
        assert clean_block(5) == "5"

    def test_it_is_cut(self) -> None:
        assert clean_block("ab\ncd\nef", 6) == "ab\ncd…"


GOOD_PATHS = [
    "model.gguf",
    "Q4_K_M/GLM-4.5-Air-Q4_K_M-00001-of-00002.gguf",
    "onnx/model.onnx",
    ".gitattributes",
    "a/.hidden/..b/c..d",
    "name with spaces.bin",
    "日本語/モデル.gguf",
    "console/nullable/auxiliary.txt",
    "com10",
    "ab:c",
    "-rf",
    "%2e%2e/x",
    "a" * 255,
]
BAD_PATHS = [
    "",
    ".",
    "..",
    "...",
    "../x",
    "a/../../x",
    "a/..",
    "a/./b",
    "./a",
    "a//b",
    "a/",
    "/a",
    "//server/share",
    "/etc/passwd",
    "~/x",
    "~root/x",
    "..\\x",
    "a\\..\\b",
    "\\\\server\\share",
    "C:/x",
    "c:x",
    "C:\\x",
    "a/ ../b",
    "a/.. /b",
    "a/. ./b",
    "a/ /b",
    " a",
    "a ",
    "a\nb",
    "a\x00b",
    "a\x1b[31m",
    "a\u202eb",
    "a\u200b/../b",
    "\ud800",
    "CON",
    "a/nul",
    "aux.gguf",
    "a/Com1.bin/b",
    "lpt9",
    "com¹",
    "a" * 256,
    "é" * 128,
    "a/" * 600 + "a",
]


class TestSafeRepoPath:
    @pytest.mark.parametrize("path", GOOD_PATHS, ids=lambda path: ascii(path)[:30])
    def test_usable(self, path: str) -> None:
        assert safe_repo_path(path) == path

    @pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: ascii(path)[:30])
    def test_refused(self, path: str) -> None:
        with pytest.raises(ValueError) as caught:
            safe_repo_path(path)
        assert clean(caught.value) == str(caught.value)

    @given(
        st.one_of(
            HOSTILE,
            st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "C:", "~", " ", "\x00", "nul", "\u202e"])).map(
                "/".join
            ),
            st.lists(st.sampled_from(["..", ".", "/", "a", " ", "\\"])).map("".join),
        )
    )
    def test_what_is_let_through_stays_inside(self, path: str) -> None:
        try:
            safe = safe_repo_path(path)
        except ValueError:
            return
        assert safe == path
        assert os.path.normpath(f"/base/{safe}") == f"/base/{safe}"
        assert os.path.commonpath(["/base", os.path.normpath(os.path.join("/base", safe))]) == "/base"
        assert "\x00" not in safe and "\\" not in safe


def test_json_says_the_same_without_raw_characters() -> None:
    said = {"a": "x\x00\x1b\x7f\x9b\u202e\u2028\u200b\ud800\U000e0001 é漢 ok\n", "b": ["\u00a0"]}
    for indent in (None, 2):
        text = escaped(json.dumps(said, ensure_ascii=False, indent=indent))
        assert json.loads(text) == said
        assert text.replace("\n", "").isprintable() and "é漢 ok" in text


def test_what_is_printed_keeps_its_layout() -> None:
    assert printable("a   b\n  c") == "a   b\n  c"
    assert printable("a\x1b[2J\u202e  b\r\nc\x9b") == "a[2J  b \nc"
