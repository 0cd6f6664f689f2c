"""Cards are drawn exactly as wide as asked, whatever the text, and say what their state needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from modelhub_tui.domain import HubStats, Model, ModelState, Phase, Placement, Transfer
from modelhub_tui.states import Fit, FitKind
from modelhub_tui.untrusted import clean
from modelhub_tui.widgets.card import LOW, TALL, draw_card
from modelhub_tui.widgets.card_parts import Card, Look, bar_cells
from modelhub_tui.widgets.cells import clip, clip_middle, take, wrap
from modelhub_tui.widgets.glyphs import ASCII, UNICODE, choose_glyphs

LOOK = Look(**{role: Style() for role in Look.roles()})
WIDE = st.text(st.sampled_from("ab -./日本語한글éßא́界…"), max_size=60).map(clean)
HOSTILE = st.one_of(st.text(max_size=80).map(clean), WIDE)
SIZES = st.one_of(st.none(), st.integers(0, 10**14))


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Any model a router could describe."""
    state = draw(st.sampled_from(list(ModelState)))
    transfer = st.builds(
        Transfer,
        node=HOSTILE,
        phase=st.sampled_from(list(Phase)),
        bytes_done=st.integers(0, 10**13),
        bytes_total=SIZES,
        bytes_per_s=st.one_of(st.none(), st.floats(0, 1e12)),
        eta_s=st.one_of(st.none(), st.floats(0, 1e9)),
        attempt=st.integers(0, 9),
        max_attempts=st.integers(0, 9),
        retry_in_s=st.one_of(st.none(), st.floats(0, 1e4)),
        error=st.one_of(st.none(), HOSTILE),
    )
    placement = st.builds(Placement, node=HOSTILE, path=st.one_of(st.none(), HOSTILE), disk_bytes=SIZES)
    return Model(
        key="k",
        name=draw(HOSTILE),
        title=draw(HOSTILE),
        description=draw(HOSTILE),
        repo=draw(HOSTILE),
        file=draw(st.one_of(st.none(), HOSTILE)),
        state=state,
        reason=draw(HOSTILE),
        size_bytes=draw(SIZES),
        required_memory_bytes=draw(SIZES),
        quantization=draw(HOSTILE),
        parameters=draw(HOSTILE),
        context_length=draw(st.one_of(st.none(), st.integers(0, 10**8))),
        gated=draw(st.booleans()),
        tags=tuple(draw(st.lists(HOSTILE, max_size=4))),
        transfers=tuple(draw(st.lists(transfer, max_size=2))),
        placements=tuple(draw(st.lists(placement, max_size=3))),
        stats=draw(st.one_of(st.none(), st.builds(HubStats, SIZES, SIZES, st.booleans()))),
    )


def card(model: Model, width: int = 78, **how: object) -> Card:
    """Draw with plain styles."""
    how.setdefault("nodes_fit", Fit(FitKind.GPU))
    return draw_card(model, width=width, look=LOOK, glyphs=how.pop("glyphs", UNICODE), **how)  # type: ignore[arg-type]


def texts(drawn: Card) -> list[str]:
    """The lines, without styles."""
    return ["".join(each.text for each in line) for line in drawn.lines]


def sample(state: ModelState = ModelState.AVAILABLE, **more: object) -> Model:
    """A model as in the catalog."""
    what: dict[str, object] = {
        "key": "k",
        "name": "q/q",
        "title": "Qwen2.5 7B Instruct",
        "description": "Multilingual instruct model.",
        "repo": "q/q",
        "file": "q.gguf",
        "size_bytes": 4_700_000_000,
        "required_memory_bytes": 6_900_000_000,
        "quantization": "Q4_K_M",
        "parameters": "7B",
        "context_length": 32768,
        "tags": ("chat", "coding"),
        "stats": HubStats(1_200_000, 345),
    }
    return Model(state=state, **(what | more))  # type: ignore[arg-type]


def moving(phase: Phase = Phase.FETCHING, **more: object) -> tuple[Transfer, ...]:
    """One transfer at 38 %."""
    what: dict[str, object] = {"bytes_done": 2_204_000_000, "bytes_total": 5_800_000_000}
    return (Transfer(node="gpu-01", phase=phase, **(what | more)),)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(
    models(),
    st.integers(1, 200),
    st.sampled_from([LOW, TALL]),
    st.sampled_from(["hub", "local"]),
    st.sampled_from([UNICODE, ASCII]),
    st.sampled_from([Fit(kind, 5) for kind in FitKind]),
    st.booleans(),
    st.booleans(),
)
def test_every_line_is_exactly_as_wide_as_asked(model, width, height, layout, glyphs, nodes_fit, mark, dimmed):
    drawn = card(
        model,
        width,
        height=height,
        layout=layout,
        glyphs=glyphs,
        nodes_fit=nodes_fit,
        cursor=mark,
        selected=mark,
        dimmed=dimmed,
    )
    assert len(drawn.lines) == height
    for line in drawn.lines:
        assert sum(cell_len(each.text) for each in line) == width
        assert not any("\n" in each.text or "\x1b" in each.text for each in line)
    for span in drawn.spans:
        assert 0 <= span.start < span.end <= width
        assert 0 <= span.line < height


@pytest.mark.parametrize("height", [LOW, TALL])
@pytest.mark.parametrize("width", [28, 40, 56, 80, 120])
@pytest.mark.parametrize(
    ("state", "key", "action"),
    [
        (ModelState.AVAILABLE, "[p]", "pull"),
        (ModelState.QUEUED, "[x]", "cancel"),
        (ModelState.DOWNLOADING, "[x]", "cancel"),
        (ModelState.PAUSED, "[P]", "resume"),
        (ModelState.FAILED, "[R]", "retry"),
        (ModelState.DOWNLOADED, "[d]", "delete"),
    ],
)
@pytest.mark.parametrize("layout", ["hub", "local"])
def test_every_state_offers_its_action_where_it_says(state, key, action, width, height, layout):
    drawn = card(sample(state, transfers=moving()), width, height=height, layout=layout)
    (span,) = drawn.spans
    assert span.action == action
    line = "".join(
        text if cell_len(text) == 1 else text + "\0" * (cell_len(text) - 1) for text in texts(drawn)[span.line]
    )
    assert line[span.start : span.end].startswith(key)


def test_a_model_being_deleted_offers_nothing():
    drawn = card(sample(ModelState.DELETING, placements=(Placement("gpu-01"),)))
    assert drawn.spans == ()
    assert "being removed from gpu-01" in texts(drawn)[-1]


@pytest.mark.parametrize("layout", ["hub", "local"])
@pytest.mark.parametrize("verified", [True, False, None])
def test_a_card_says_when_nobody_can_verify_a_model(layout, verified):
    place = Placement("gpu-01", "/m/q.gguf", disk_bytes=4_700_000_000, verified=verified)
    drawn = card(sample(ModelState.DOWNLOADED, placements=(place,)), layout=layout)
    assert ("not verifiable" in "".join(texts(drawn))) == (verified is False)
    marks = [each.style for line in drawn.lines for each in line if "not verifiable" in each.text]
    assert all(style == LOOK.muted for style in marks)


@pytest.mark.parametrize("width", range(28, 120))
def test_name_badge_and_verdict_stay_on_narrow_cards(width):
    lines = texts(card(sample(), width))
    assert "Qwen2.5" in lines[0]
    assert "○" in lines[0]
    assert "fits" in "".join(lines) or width < 34
    assert ("available" in lines[0]) or width < 30


def test_a_download_shows_bar_percent_bytes_speed_and_time():
    lines = texts(card(sample(ModelState.DOWNLOADING, transfers=moving(bytes_per_s=112e6, eta_s=32.0))))
    assert lines[-1].split("  ", 1)[0].count("━") > 5
    for word in ("38%", "2.2 / 5.8 GB", "112 MB/s", "0:32", "[x] Cancel"):
        assert word in lines[-1]


def test_a_percentage_is_never_rounded_up_to_all_of_it():
    lines = texts(card(sample(ModelState.DOWNLOADING, transfers=moving(bytes_done=999_999, bytes_total=1_000_000))))
    assert "99%" in lines[-1]


def test_retrying_says_why_and_when():
    transfers = moving(Phase.RETRYING, attempt=2, max_attempts=6, retry_in_s=4.0, error="connection reset")
    assert (
        "retrying (2/6) in 4 s: connection reset"
        in texts(card(sample(ModelState.DOWNLOADING, transfers=transfers), 90))[-1]
    )


@pytest.mark.parametrize("height", [LOW, TALL])
def test_a_failure_says_why(height):
    reason = "Not enough disk space on gpu-01: needs 10.4 GB, 3.1 GB free."
    lines = texts(card(sample(ModelState.FAILED, reason=reason), 58 if height == TALL else 90, height=height))
    assert reason in " ".join("\n".join(line[2:] for line in lines[-2:]).split()).replace(" [R] Retry", "")


def test_what_does_not_fit_says_by_how_much_and_which_memory():
    lines = texts(card(sample(), nodes_fit=Fit(FitKind.TOO_BIG, 600_000_000), memory="RAM"))
    assert "6.9 GB RAM ✗ needs 600 MB more" in lines[2]


def test_unknown_popularity_is_left_out():
    assert "♥" in texts(card(sample()))[2]
    assert "♥" not in texts(card(sample(stats=HubStats(5, None))))[2]
    assert "↓" not in texts(card(sample(stats=None)))[2]


def test_cursor_and_selection_show_without_colour():
    plain, cursor = texts(card(sample())), texts(card(sample(), cursor=True))
    assert all(mine != theirs for mine, theirs in zip(plain, cursor, strict=True))
    assert texts(card(sample(), selected=True))[0] != plain[0]
    assert texts(card(sample(), cursor=True, glyphs=ASCII))[0].startswith(">")


def test_ascii_cards_hold_nothing_but_ascii():
    for state in ModelState:
        drawn = card(sample(state, transfers=moving(Phase.RETRYING), title="x" * 90), 60, glyphs=ASCII, cursor=True)
        assert "".join(texts(drawn)).isascii()


@given(st.one_of(st.none(), st.floats(0, 1)), st.integers(0, 80))
def test_a_bar_has_its_size_and_never_shrinks(fraction, size):
    done, rest = bar_cells(fraction, size, UNICODE)
    assert len(done) + len(rest) == size
    assert len(done) <= len(bar_cells(1.0, size, UNICODE)[0])
    assert "─" not in done and "━" not in rest


@given(HOSTILE, st.integers(0, 60))
def test_cutting_never_exceeds_and_never_invents(text, width):
    assert cell_len(take(text, width)) <= width
    assert text.startswith(take(text, width))
    assert cell_len(clip(text, width)) <= width
    assert cell_len(clip_middle(text, width)) <= width
    for lines in (1, 2, 3):
        wrapped = wrap(text, width, lines)
        assert len(wrapped) <= lines
        assert all(cell_len(each) <= max(width, 0) for each in wrapped)


def test_wrapping_breaks_at_words_and_marks_what_is_cut():
    assert wrap("one two three four", 9, 2) == ["one two", "three…"]
    assert wrap("one two", 9, 2) == ["one two"]
    assert wrap("日本語日本語", 5, 3) == ["日本", "語日", "本語"]


@pytest.mark.parametrize(
    ("env", "encoding", "wanted"),
    [
        ({"TERM": "xterm-256color", "LANG": "en_GB.UTF-8"}, "utf-8", UNICODE),
        ({"TERM": "linux", "LANG": "en_GB.UTF-8"}, "utf-8", ASCII),
        ({"TERM": "xterm", "LC_ALL": "C"}, "utf-8", ASCII),
        ({"TERM": "xterm", "LC_ALL": "C.UTF-8"}, "utf-8", UNICODE),
        ({"TERM": "xterm", "LANG": "de_DE.ISO-8859-1"}, None, ASCII),
        ({"TERM": "xterm"}, "ascii", ASCII),
        ({"TERM": "xterm"}, None, UNICODE),
    ],
)
def test_glyphs_follow_the_terminal(env, encoding, wanted):
    assert choose_glyphs(env, encoding) is wanted


def test_every_glyph_is_one_cell():
    for glyphs in (UNICODE, ASCII):
        for name in glyphs.__slots__:
            mark = getattr(glyphs, name)
            assert name == "name" or cell_len(mark) == 1 or (name == "bar_half" and mark == "")


@given(models(), models(), st.integers(20, 120), st.sampled_from(["hub", "local"]), st.sampled_from([4, 5]))
def test_what_was_drawn_before_changes_nothing(was: Model, other: Model, width: int, layout: str, height: int) -> None:
    how: dict[str, object] = {"layout": layout, "height": height}
    last = card(was, width, **how)
    for now in (other, replace(was, transfers=other.transfers), replace(was, reason="another reason")):
        assert card(now, width, last=last, **how) == card(now, width, **how)


@given(models(), st.integers(20, 120), st.sampled_from([4, 5]), st.lists(st.tuples(*[st.integers(0, 10**8)] * 3)))
def test_a_card_is_drawn_as_soon_as_its_figures_show_something_else(
    model: Model, width: int, height: int, steps: list[tuple[int, int, int]]
) -> None:
    model = replace(model, transfers=model.transfers[:1])
    last = card(model, width, height=height)
    for done, rate, eta in steps:
        moved = [
            replace(each, bytes_done=each.bytes_done + done, bytes_per_s=float(rate), eta_s=eta / 10**5)
            for each in model.transfers
        ]
        model = replace(model, transfers=tuple(moved))
        last = card(model, width, height=height, last=last)
        assert last == card(model, width, height=height)


def test_lines_about_the_model_are_taken_over_while_it_moves() -> None:
    was = sample(ModelState.DOWNLOADING, transfers=moving())
    now = replace(was, transfers=moving(bytes_done=2_900_000_000))
    last = card(was, height=5)
    drawn = card(now, height=5, last=last)
    assert [line is before for line, before in zip(drawn.lines, last.lines, strict=True)] == [True] * 3 + [False] * 2
    stalled = card(replace(was, transfers=moving(stalled_s=12.0)), height=5, last=last)
    assert not any(line is before for line, before in zip(stalled.lines, last.lines, strict=True))
