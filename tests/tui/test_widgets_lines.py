"""The lines around the list and the details: what they say, at which width, and that they are silent otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual import on
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.widget import Widget

from modelhub_tui.domain import (
    Connection,
    Fleet,
    Gpu,
    Link,
    Model,
    ModelState,
    Node,
    NodeStatus,
    Phase,
    Placement,
    RouterInfo,
    Transfer,
)
from modelhub_tui.untrusted import clean
from modelhub_tui.widgets.details import DetailsPane, usage
from modelhub_tui.widgets.glyphs import ASCII
from modelhub_tui.widgets.status_line import StatusLine
from modelhub_tui.widgets.tab_bar import Tab, TabBar
from modelhub_tui.widgets.transfers import TransfersStrip

GB = 1_000_000_000
CARD = Node(
    "1", "gpu-01", NodeStatus.ONLINE, gpus=(Gpu("RTX 4090", 24 * GB),), ram_bytes=64 * GB, disk_free_bytes=312 * GB
)
LIVE = Connection(Link.LIVE, heard_at=100.0)


def model(at: int = 0, state: ModelState = ModelState.AVAILABLE, **more: Any) -> Model:
    """A model as in the catalog."""
    what: dict[str, Any] = {
        "title": f"Model {at}",
        "description": "A model.",
        "repo": f"Owner/Model-{at}-GGUF",
        "file": "m.Q4_K_M.gguf",
        "quantization": "Q4_K_M",
        "format": "gguf",
        "capabilities": ("text_generation",),
    }
    return Model(key=f"k{at}", name=f"owner/model-{at}-gguf", state=state, **(what | more))


def moving(at: int, phase: Phase = Phase.FETCHING, done: int = GB, **more: Any) -> Model:
    """A model on its way."""
    transfer = Transfer("gpu-01", phase, done, 4 * GB, bytes_per_s=1e8, eta_s=30.0, **more)
    return model(at, ModelState.DOWNLOADING, transfers=(transfer,))


class Shell(App[None]):
    """One widget; counts how often it is asked to repaint."""

    def __init__(self, widget: Widget) -> None:
        super().__init__()
        self.widget, self.repaints, self.told = widget, 0, []  # type: ignore[var-annotated]
        original = widget.refresh

        def refresh(*regions: Any, **how: Any) -> Any:
            self.repaints += 1
            return original(*regions, **how)

        widget.refresh = refresh  # type: ignore[method-assign]

    def compose(self) -> ComposeResult:
        yield self.widget

    @on(TabBar.Activated)
    def _note(self, message: TabBar.Activated) -> None:
        self.told.append((message.control, message.tab))


def text_of(widget: Widget) -> list[str]:
    """What a widget shows, line by line."""
    return widget.render().plain.split("\n")  # type: ignore[union-attr]


# TransfersStrip


def lines_of(strip: TransfersStrip) -> list[str]:
    """What it draws."""
    return [each.text for each in strip.render_lines(Region(0, 0, *strip.size))]


async def test_transfers_show_what_moves_and_how_much_more():
    strip = TransfersStrip(limit=3)
    async with Shell(strip).run_test(size=(100, 24)) as pilot:
        assert not strip.display
        paused = model(9, ModelState.PAUSED, transfers=(Transfer("n", Phase.PAUSED, 1, 2),))
        strip.models = (model(), paused, *(moving(at) for at in range(5)))
        await pilot.pause()
        lines = lines_of(strip)
        assert strip.display and strip.size.height == 4 == len(lines)
        assert "Model 0" in lines[0] and "25%" in lines[0] and "100 MB/s" in lines[0] and "0:30" in lines[0]
        assert "1.0 / 4.0 GB" in lines[0]
        assert "+2 more" in lines[3] and "200 MB/s" in lines[3]
        strip.models = (model(),)
        await pilot.pause()
        assert not strip.display


@settings(deadline=None, max_examples=25)
@given(
    st.integers(24, 200),
    st.text(max_size=60).map(clean),
    st.sampled_from([Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING]),
)
async def test_transfers_never_exceed_the_width_and_bars_line_up(width, title, phase):
    strip = TransfersStrip()
    async with Shell(strip).run_test(size=(width, 10)) as pilot:
        strip.models = (replace(moving(1, phase), title=title), moving(2), moving(3, Phase.RETRYING))
        await pilot.pause()
        lines = lines_of(strip)
        assert all(cell_len(line) == width for line in lines)
        # The first line's title may be wide; its bar ends at the same cell, as the figures have one width.
        ends = {cell_len(line[: max(map(line.rfind, "━─╸")) + 1]) for line in lines}
        assert len(ends) == 1


async def test_transfers_repaint_only_when_something_moves_on():
    strip = TransfersStrip()
    shell = Shell(strip)
    async with shell.run_test(size=(100, 24)) as pilot:
        strip.models = (moving(1), model(2))
        await pilot.pause()
        shell.repaints = 0
        strip.models = (moving(1), model(2, description="other"))
        assert shell.repaints == 0
        strip.models = (moving(1, done=2 * GB),)
        assert shell.repaints == 1


# StatusLine


def fleet(connection: Connection = LIVE, nodes: tuple[Node, ...] = (CARD,), models: tuple[Model, ...] = ()) -> Fleet:
    """A fleet on this machine."""
    return Fleet(models, nodes, RouterInfo("this machine"), connection)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (fleet(), ["✓ this machine", "RTX 4090", "24.0 GB VRAM", "312 GB free"]),
        (fleet(nodes=(Node("1", "cpu", NodeStatus.ONLINE, ram_bytes=16 * GB),)), ["16.0 GB RAM, no GPU"]),
        (fleet(nodes=(CARD, replace(CARD, name="b", status=NodeStatus.OFFLINE))), ["1/2 nodes online"]),
        (fleet(nodes=(replace(CARD, status=NodeStatus.OFFLINE),)), ["no node online"]),
        (fleet(models=(moving(1), moving(2))), ["↓ 2 200 MB/s"]),
        (
            fleet(Connection(Link.LOST, "No router answers.", heard_at=88.0, retry_at=104.0)),
            ["✗ this machine", "No router answers.", "trying again in 4 s", "as of 12 s ago"],
        ),
        (
            replace(fleet(Connection(Link.LOST, "No answer.", retry_at=104.0)), unlisted=98_000),
            ["No answer.", "98,000 more models once it answers"],
        ),
        (fleet(Connection(Link.REFUSED, "The router wants a key.", "Give one.")), ["wants a key", "Give one."]),
    ],
)
async def test_the_status_line_says(said, words):
    line = StatusLine(clock=lambda: 100.0)
    async with Shell(line).run_test(size=(160, 24)):
        line.fleet = said
        (text,) = text_of(line)
        for word in words:
            assert word in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 160])
async def test_the_status_line_keeps_what_matters_most(width):
    line = StatusLine(clock=lambda: 100.0)
    async with Shell(line).run_test(size=(width, 24)):
        line.fleet = fleet(models=(moving(1),))
        (text,) = text_of(line)
        assert len(text) <= width
        assert "this machine" in text


async def test_a_reason_that_is_too_long_is_shortened_and_not_left_out():
    line = StatusLine(clock=lambda: 100.0)
    problem = "Another program uses the service, started with its models in /a/long/way, not " + "/x" * 100 + "."
    async with Shell(line).run_test(size=(80, 4)) as pilot:
        line.fleet = Fleet(connection=Connection(Link.LOST, problem, "Close it.", None, 105.0))
        await pilot.pause()
        shown = line.render().plain
    assert "Another program uses the service, started with its models" in shown and shown.endswith("…")
    assert len(shown) <= 80


async def test_the_status_line_counts_only_while_the_router_is_lost():
    now = [100.0]
    line = StatusLine(clock=lambda: now[0])
    shell = Shell(line)
    async with shell.run_test(size=(120, 24)) as pilot:
        line.fleet = fleet()
        await pilot.pause()
        assert line._timer is None
        shell.repaints = 0
        line.fleet = fleet(replace(LIVE, heard_at=101.0))
        assert shell.repaints == 0
        line.fleet = fleet(Connection(Link.LOST, "No answer.", heard_at=90.0, retry_at=105.0))
        assert line._timer is not None and shell.repaints == 1
        line._tick()
        assert shell.repaints == 1
        now[0] = 101.0
        line._tick()
        assert shell.repaints == 2
        line.fleet = fleet()
        assert line._timer is None


# TabBar


async def test_tabs_are_clicked_where_they_are_drawn():
    bar = TabBar((Tab("hub", "Model Hub", "1", 139), Tab("local", "Local", "2", 3)))
    shell = Shell(bar)
    async with shell.run_test(size=(80, 24)) as pilot:
        (text,) = text_of(bar)
        assert "1 Model Hub (139)" in text and "2 Local (3)" in text
        await pilot.click(bar, offset=(text.index("Local") + 2, 0))
        await pilot.click(bar, offset=(text.index("Model") + 2, 0))
        await pilot.click(bar, offset=(70, 0))
        assert shell.told == [(bar, "local"), (bar, "hub")]
        assert bar.active == "hub"
        bar.set_counts(local=4)
        assert "2 Local (4)" in text_of(bar)[0]


async def test_the_open_tab_shows_without_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    bar = TabBar((Tab("hub", "Model Hub", "1"), Tab("local", "Local", "2")), active="local")
    async with Shell(bar).run_test(size=(80, 24)):
        assert "[2 Local]" in text_of(bar)[0]
        bar.active = "hub"
        assert "[1 Model Hub]" in text_of(bar)[0]


# DetailsPane


PLACED = (Placement("gpu-01", "/data/it's here/m.gguf", ("/data/it's here/m.gguf", "/data/mmproj-m.gguf"), 4 * GB),)


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        (
            model(1),
            [
                ("llama.cpp", "llama-server -hf Owner/Model-1-GGUF:Q4_K_M"),
                ("Ollama", "ollama run hf.co/Owner/Model-1-GGUF:Q4_K_M"),
            ],
        ),
        (
            model(1, placements=PLACED),
            [
                ("llama.cpp", "llama-server -m '/data/it'\"'\"'s here/m.gguf' --mmproj /data/mmproj-m.gguf"),
                ("Ollama", "ollama run hf.co/Owner/Model-1-GGUF:Q4_K_M"),
            ],
        ),
        (model(1, format="safetensors"), [("vLLM", "vllm serve Owner/Model-1-GGUF")]),
        (
            model(1, capabilities=("embedding",)),
            [
                ("llama.cpp", "llama-server -hf Owner/Model-1-GGUF:Q4_K_M --embedding"),
                ("Ollama", "ollama pull hf.co/Owner/Model-1-GGUF:Q4_K_M"),
            ],
        ),
        (model(1, capabilities=("speech_to_text",)), []),
        (
            model(1, repo="a/b;rm -rf ~", quantization=""),
            [("llama.cpp", "llama-server -hf 'a/b;rm -rf ~'"), ("Ollama", "ollama run 'hf.co/a/b;rm -rf ~'")],
        ),
    ],
)
def test_commands_to_use_a_model(what, wanted):
    assert usage(what) == wanted


async def test_details_tell_everything_known():
    pane = DetailsPane()
    everything = model(
        1,
        ModelState.DOWNLOADED,
        placements=PLACED,
        license="apache-2.0",
        gated=True,
        context_length=32768,
        parameters="7B",
        required_memory_bytes=30 * GB,
        required_memory_rule="file size x 1.5",
        files=("m.gguf", "mmproj-m.gguf"),
        tags=("chat",),
    )
    async with Shell(pane).run_test(size=(100, 40)) as pilot:
        pane.model, pane.nodes = everything, (CARD,)
        await pilot.pause()
        page = pane.page().plain
        for word in (
            "Model 1",
            "https://huggingface.co/Owner/Model-1-GGUF",
            "A model.",
            "✓ downloaded",
            "apache-2.0",
            "gated",
            "32K tokens",
            "30.0 GB (file size x 1.5)",
            "✗ 6.0 GB too much: gpu-01 has 24.0 GB VRAM",
            "/data/it's here/m.gguf",
            "mmproj-m.gguf",
            "ollama run hf.co/Owner/Model-1-GGUF:Q4_K_M",
        ):
            assert word in page
        assert pane.commands() == usage(everything)
        pane.model = None
        assert pane.page().plain == "" and pane.commands() == []


def test_details_tell_which_files_cannot_be_verified():
    pane = DetailsPane()

    def page(**more: object) -> str:
        pane.model = model(1, ModelState.DOWNLOADED, placements=(replace(PLACED[0], **more),))
        return pane.page().plain

    assert "erifi" not in page() + page(verified=True)
    some = page(verified=False, unverified=PLACED[0].paths[1:])
    assert "Not verifiable: the hub gives no checksum of some of its files." in some
    assert "/data/mmproj-m.gguf  not verifiable" in some and "m.gguf  not" not in some.split("/data/mmproj")[0]
    every = page(verified=False, unverified=PLACED[0].paths)
    assert "Not verifiable: the hub gives no checksum.\n" in every and "m.gguf  not" not in every


async def test_details_show_markup_as_it_is_and_keep_to_ascii():
    pane = DetailsPane(glyphs=ASCII)
    async with Shell(pane).run_test(size=(100, 40)) as pilot:
        pane.model = replace(moving(1, error="[bold]no[/bold]"), title="[red]x", description="[/] [@click=app.quit]y")
        await pilot.pause()
        page = pane.page().plain
        assert "[red]x" in page and "[@click=app.quit]y" in page and "[bold]no[/bold]" in page
        assert page.isascii()


async def test_details_start_at_the_top_for_another_model_only():
    pane = DetailsPane()
    async with Shell(pane).run_test(size=(60, 12)) as pilot:
        pane.model = moving(1)
        await pilot.pause()
        pane.scroll_to(y=4, animate=False)
        await pilot.pause()
        pane.model = moving(1, done=2 * GB)
        await pilot.pause()
        assert pane.scroll_offset.y == 4
        pane.model = moving(2)
        await pilot.pause()
        assert pane.scroll_offset.y == 0
