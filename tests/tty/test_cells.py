"""The cell copy: after any run of pictures the terminal shows what painting the last one in full would show."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub_tui.terminal import rows as known
from modelhub_tui.terminal.cells import Canvas
from modelhub_tui.terminal.instant import is_safe
from modelhub_tui.terminal.pictures import picture, read_picture
from modelhub_tui.terminal.rows import Doubt, Row, cells_of, is_fragile
from modelhub_tui.terminal.styles import restyle
from tests.tty.emulator import Emulator, Look

WIDTH, HEIGHT = 24, 8
STYLES = ("", "1", "2;3", "7", "31", "38;5;200;44", "38;2;1;2;3;48;2;4;5;6", "1;38;2;9;9;9", "48;2;4;5;6", "4;97;100")
TEXTS = ("word", "a", "    ", "──", "模型", "한", "é", "e\u0301", "🙂", "👩‍💻", "✅", "│", "ok.")

pieces = st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(STYLES)), max_size=12)


def row_of(parts: list[tuple[str, str]]) -> Row:
    row = cells_of("", "")
    for text, style in parts:
        cells = cells_of(text, style)
        if len(row) + len(cells) <= WIDTH:
            row += cells
    return row + cells_of(" " * (WIDTH - len(row)), "")


class Terminal:
    """An emulator that is sent what a canvas says."""

    def __init__(self) -> None:
        self.emulator = Emulator(WIDTH, HEIGHT)
        self.emulator.feed(b"\x1b[?7l")
        self.canvas = Canvas(WIDTH, HEIGHT, erases=True)
        self.sent = 0

    def paint(self, rows: dict[int, Row]) -> str:
        sequence = self.canvas.paint(rows)
        self.sent += len(sequence.encode())
        self.emulator.feed(sequence.encode())
        return sequence

    def looks(self) -> list[list[Look]]:
        return self.emulator.looks()


def painted_in_full(rows: list[Row]) -> list[list[Look]]:
    fresh = Terminal()
    fresh.paint(dict(enumerate(rows)))
    return fresh.looks()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_differences_add_up_to_the_full_picture(data: st.DataObject) -> None:
    terminal = Terminal()
    rows = [row_of(data.draw(pieces)) for _ in range(HEIGHT)]
    terminal.paint(dict(enumerate(rows)))
    for _ in range(data.draw(st.integers(1, 4))):
        match data.draw(st.sampled_from(("edit", "scroll", "piece", "forget", "all"))):
            case "edit":
                y = data.draw(st.integers(0, HEIGHT - 1))
                rows[y] = row_of(data.draw(pieces))
                terminal.paint({y: rows[y]})
            case "scroll":
                distance = data.draw(st.integers(-3, 3))
                fresh = [row_of(data.draw(pieces)) for _ in range(abs(distance))]
                body = rows[1:-1]
                body = body[distance:] + fresh if distance > 0 else fresh + body[: len(body) + distance]
                rows = [rows[0], *body, rows[-1]]
                terminal.paint(dict(enumerate(rows)))
            case "piece":
                y, x = data.draw(st.integers(0, HEIGHT - 1)), data.draw(st.integers(0, WIDTH - 1))
                rows[y] = terminal.canvas.with_piece(y, x, cells_of("xy模", "1"))
                terminal.paint({y: rows[y]})
                rows[y] = terminal.canvas.rows[y]  # halves of wide characters became blanks
            case "forget":
                terminal.canvas.forget()
                terminal.paint(dict(enumerate(rows)))
            case "all":
                rows = [row_of(data.draw(pieces)) for _ in range(HEIGHT)]
                terminal.paint(dict(enumerate(rows)))
        assert terminal.looks() == painted_in_full(rows)
        assert terminal.canvas.known


@given(st.lists(st.sampled_from(STYLES), min_size=1, max_size=6))
def test_a_style_is_the_same_whatever_came_before(styles: list[str]) -> None:
    emulator, old = Emulator(4, 1), ""
    for style in styles:
        emulator.feed(restyle(old, style).encode())
        old = style
    emulator.feed(b"x")
    fresh = Emulator(4, 1)
    fresh.feed(f"\x1b[{styles[-1]}mx".encode())
    assert emulator.looks()[0][0] == fresh.looks()[0][0]


def test_nothing_is_written_when_nothing_differs() -> None:
    terminal = Terminal()
    rows = {y: row_of([("word", "31"), ("模型", "1")]) for y in range(HEIGHT)}
    terminal.paint(rows)
    assert terminal.paint(rows) == ""


def test_lines_that_moved_are_moved_by_the_terminal() -> None:
    terminal = Terminal()
    rows = [row_of([(f"line {y} of many words", "38;2;1;2;3")]) for y in range(HEIGHT + 1)]
    terminal.paint(dict(enumerate(rows[:HEIGHT])))
    sequence = terminal.paint(dict(enumerate(rows[1:])))
    assert f"line {HEIGHT} of" in sequence
    assert "line 1 of" not in sequence
    assert terminal.looks() == painted_in_full(rows[1:])


def test_one_changed_cell_costs_a_few_bytes() -> None:
    terminal = Terminal()
    terminal.paint({0: row_of([("word word word", "38;2;1;2;3;48;2;4;5;6")])})
    sequence = terminal.paint({0: row_of([("word ward word", "38;2;1;2;3;48;2;4;5;6")])})
    assert len(sequence) < 60
    assert "word" not in sequence


def test_half_of_a_wide_character_is_never_left() -> None:
    terminal = Terminal()
    terminal.paint({0: row_of([("模模模模", "")])})
    terminal.paint({0: terminal.canvas.with_piece(0, 1, cells_of("ab", "31"))})
    assert terminal.emulator.text().splitlines()[0].startswith(" ab 模模")
    assert [text for text, _ in terminal.canvas.rows[0][:5].cells()] == [" ", "a", "b", " ", "模"]


def test_a_control_character_is_doubted() -> None:
    for text in ("a\x1b[2J", "\t", "\x7f", "\x9b31m", "\r"):
        with pytest.raises(Doubt):
            cells_of(text, "")


def test_more_styles_than_can_be_told_apart_are_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_MOST", len(known.styles) + 1)
    assert cells_of("a", "38;5;201").cells() == [("a", "38;5;201")]
    for _ in range(2):
        with pytest.raises(Doubt):
            cells_of("a", "38;5;202")
    assert cells_of("b", "38;5;201").cells() == [("b", "38;5;201")]


def test_more_characters_than_can_be_told_apart_are_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    cells_of("Ж", "")
    monkeypatch.setattr(known, "_MOST", 0)
    assert cells_of("Ж", "").cells() == [("Ж", "")]
    for _ in range(2):
        with pytest.raises(Doubt):
            cells_of("Щ", "")


def test_only_what_differs_is_written_when_there_are_more_characters_than_a_byte_tells_apart() -> None:
    cells_of("".join(map(chr, range(0x1400, 0x1400 + 200))), "")
    text = "".join(map(chr, range(0x1500, 0x1500 + WIDTH)))
    terminal = Terminal()
    terminal.paint({0: cells_of(text, "31")})
    assert not terminal.canvas.rows[0].text.encode("latin-1", "ignore")
    other = cells_of(f"{text[:4]}Z{text[5:]}", "31")
    sequence = terminal.paint({0: other})
    assert "Z" in sequence
    assert not set(text) & set(sequence)
    rest = terminal.canvas.rows[1:]
    terminal.paint({y: cells_of(" " * WIDTH, "") for y in range(1, 1 + len(rest))})
    assert terminal.looks() == painted_in_full(terminal.canvas.rows)


def test_unknown_cells_are_told() -> None:
    canvas = Canvas(3, 2)
    assert not canvas.known
    canvas.paint({0: cells_of("abc", ""), 1: cells_of("def", "")})
    assert canvas.known
    assert canvas.rows[0].cells() == [("a", ""), ("b", ""), ("c", "")]
    canvas.forget()
    assert not canvas.known


@settings(max_examples=40, deadline=None)
@given(st.lists(pieces, min_size=HEIGHT, max_size=HEIGHT))
def test_a_picture_reads_back_as_the_cells_it_was_made_of(parts: list[list[tuple[str, str]]]) -> None:
    # Joiners are format characters, which never come past `untrusted`; a picture with one would not be shown.
    rows = [row_of([piece for piece in each if "\u200d" not in piece[0]]) for each in parts]
    text = picture(rows)
    assert is_safe(text)
    assert read_picture(text, WIDTH, HEIGHT) == rows
    emulator = Emulator(WIDTH, HEIGHT)
    emulator.feed(b"\x1b[?7l" + text.encode())
    assert emulator.looks() == painted_in_full(rows)


def test_a_picture_leaves_hyperlinks_out() -> None:
    rows = [cells_of("link", "1\nid=7;http://x/")]
    assert picture(rows) == "\x1b[1;1H\x1b[0;1mlink"


def test_a_picture_for_another_size_is_refused() -> None:
    rows = [cells_of("abcdef", ""), cells_of("abcdef", "")]
    assert read_picture(picture(rows), 5, 2) is None
    assert read_picture(picture(rows), 6, 1) is None
    assert read_picture("\x1b[1;1", 6, 1) is None


def test_fragile_text_is_what_terminals_disagree_about() -> None:
    texts = [shown for text in TEXTS for shown, _ in cells_of(text, "").cells()]
    assert [text for text in texts if is_fragile(text)] == ["e\u0301", "🙂", "👩‍💻", "✅"]
