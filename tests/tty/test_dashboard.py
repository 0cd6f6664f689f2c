"""The dashboard in a pseudo-terminal: what it imports, what it writes, what it keeps, and that no key is lost."""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.tty import Emulator, Terminal
from tests.tty.terminal import installed

ROOT = Path(__file__).parents[2]
HEAVY = {
    "httpx",
    "httpcore",
    "pydantic",
    "huggingface_hub",
    "diskcache",
    "yaml",
    "fastapi",
    "starlette",
    "uvicorn",
    "sqlite3",
}
READY = "still router"


def dashboard(*flags: str, size: tuple[int, int] = (120, 40), type_ahead: str = "", **env: str) -> Terminal:
    argv = [sys.executable, "-m", "tests.tty.dashboard", *flags]
    return Terminal(argv, size=size, env=env, cwd=ROOT, type_ahead=type_ahead)


def kept_pictures() -> list[Path]:
    return sorted(Path(os.environ["MODELHUB_CACHE_DIR"]).glob("screen-*.ansi"))


def leave(terminal: Terminal) -> None:
    terminal.send("ctrl+q")
    assert terminal.wait() == 0


def run_once(**env: str) -> list[list[object]]:
    """One session that leaves a picture behind; return what it looked like. The usual one is run once for all tests."""
    cache = Path(os.environ["MODELHUB_CACHE_DIR"])
    if not env and USUAL:
        kept, looks = USUAL[0]
        shutil.copytree(kept, cache, dirs_exist_ok=True)
        return looks
    with dashboard(**env) as terminal:
        terminal.wait_for(READY)
        terminal.settle()
        looks = terminal.looks()  # type: ignore[assignment]
        leave(terminal)
    if not env:
        kept = Path(tempfile.mkdtemp(prefix="modelhub-picture-"))
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
        USUAL.append((shutil.copytree(cache, kept / "cache"), looks))
    return looks


@pytest.fixture(autouse=True)
def _same_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder for all tests, empty before each: a picture holds for the folders it was made in."""
    home = tmp_path_factory.getbasetemp() / "home-of-pictures"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    for name, below in (
        ("HOME", "."),
        ("HF_HOME", "hf"),
        ("MODELHUB_STATE_DIR", "state"),
        ("MODELHUB_CACHE_DIR", "cache"),
    ):
        monkeypatch.setenv(name, str(home / below))


USUAL: list[tuple[Path, list[list[object]]]] = []
"""What the usual session left in its cache folder, and what it looked like."""


def test_nothing_heavy_is_imported_for_the_first_frame(tmp_path: Path) -> None:
    run_once()  # the catalog's first reading needs YAML and pydantic
    report = tmp_path / "modules.json"
    with dashboard(TEST_REPORT=str(report)) as terminal:
        terminal.wait_for(READY)
        terminal.settle()
        leave(terminal)
    modules = set(json.loads(report.read_text()))
    loaded = {name.partition(".")[0] for name in modules}
    assert "textual" in loaded
    assert not loaded & HEAVY
    # A twentieth of the start, and a fiftieth.
    assert not modules & {"importlib.metadata", "tomllib"}


def test_actions_cost_few_bytes() -> None:
    caps = {"pagedown": 6_000, "wheel_down": 2_600, "down": 4_000, "/": 1_000, "c": 6_200, "o": 5_200, "d": 5_200}
    with dashboard() as terminal:
        terminal.wait_for(READY)
        before = terminal.settle()
        assert before < 19_000, "the first screen"
        spent = {}
        for key in caps:
            terminal.send(key)
            after = terminal.settle()
            before, spent[key] = after, after - before
        assert all(spent[key] <= cap for key, cap in caps.items()), spent
        assert all(spent.values()), spent


def test_nothing_is_written_while_the_search_waits() -> None:
    with dashboard() as terminal:
        terminal.wait_for(READY)
        terminal.send("/")
        before = terminal.settle(0.6)
        # The one place where time itself is the subject: two seconds of silence.
        assert terminal.settle(2.0) == before


def test_the_instant_frame_is_the_last_frame_with_its_age() -> None:
    last = run_once(TEST_HEARD_AT=str(time.time() - 200))
    (path,) = kept_pictures()
    assert path.stat().st_mode & 0o777 == 0o600
    with dashboard(TEST_HEARD_AT=str(time.time() - 200)) as terminal:
        terminal.wait_for(READY)
        terminal.settle()
        # The first thing written, up to where Textual begins.
        begun = terminal.output.index(b"\x1b[?1000h")
        emulator = Emulator(120, 40)
        emulator.feed(bytes(terminal.output[:begun]))
        assert terminal.output.count(b"\x1b[?1049h") == 1, "entering the alternate screen twice clears it: a flicker"
        live = terminal.looks()
        leave(terminal)
    instant = emulator.looks()
    told = [y for y in range(40) if instant[y] != last[y]]
    assert len(told) == 1, "only the status line differs"
    assert re.search(r"as of 3 min ago, starting…", emulator.text().splitlines()[told[0]])
    assert live == last


def test_the_live_frame_writes_only_what_differs_from_the_instant_one() -> None:
    run_once()
    with dashboard() as terminal:
        terminal.wait_for(READY)
        terminal.settle()
        begun = terminal.output.index(b"\x1b[?1000h")
        assert terminal.bytes_written - begun < 3_000
        leave(terminal)


@pytest.mark.parametrize(
    "change",
    [
        {"size": (100, 30)},
        {"MODELHUB_THEME": "light"},
        {"NO_COLOR": "1"},
        {"TERM": "screen-256color"},
        {"COLORTERM": ""},
        {"MODELHUB_ROUTER": "http://127.0.0.1:9"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_picture_is_shown_where_something_else_would_be_drawn(change: dict[str, object]) -> None:
    run_once()
    with dashboard(**change) as terminal:  # type: ignore[arg-type]
        terminal.wait_for("Model Hub")
        begun = terminal.output.index(b"\x1b[?1049h")
        assert b"Model Hub" not in terminal.output[:begun]
        assert b"starting\xe2\x80\xa6" not in terminal.output
        assert terminal.output[begun:].startswith(b"\x1b[?1049h\x1b[?1000h")


@pytest.mark.parametrize("damage", ["evil", "writable", "link", "cut"])
def test_a_picture_that_is_not_ours_is_not_shown(damage: str) -> None:
    run_once()
    (path,) = kept_pictures()
    if damage == "evil":
        path.write_text(path.read_text() + "\x1b]52;c;ZXZpbA==\x07")
    elif damage == "writable":
        path.chmod(0o666)
    elif damage == "link":
        path.rename(path.with_suffix(".elsewhere"))
        path.symlink_to(path.with_suffix(".elsewhere"))
    else:
        path.write_text(path.read_text()[:40])
    with dashboard() as terminal:
        terminal.wait_for(READY)
        assert b"starting\xe2\x80\xa6" not in terminal.output
        assert b"\x1b]52" not in terminal.output
        leave(terminal)


@pytest.mark.parametrize("when", ["before", "after"])
def test_type_ahead_ends_in_the_search(when: str) -> None:
    run_once()
    with dashboard(type_ahead="/coder" if when == "before" else "") as terminal:
        if when == "after":
            terminal.wait_for(READY)
            terminal.send("/coder")
        terminal.wait_for(lambda text: "coder" in text.splitlines()[1])
        terminal.settle()
        assert "of 136" in terminal.text() or "Coder" in terminal.text()


def test_no_key_is_lost_in_any_start() -> None:
    run_once()
    for number in range(5):
        with dashboard() as terminal:
            # Some at once, some while Python starts, some while Textual is imported, some after.
            typed = "/abcdefgh"
            for at, key in enumerate(typed):
                terminal.send(key)
                time.sleep(0.01 * number * (at % 3))
            terminal.wait_for(lambda text: "abcdefgh" in text.splitlines()[1])


def test_enter_typed_ahead_stays_enter() -> None:
    run_once()
    with dashboard(type_ahead="\r") as terminal:
        terminal.wait_for(READY)
        terminal.wait_for(lambda text: "Repo" in text or "License" in text or "esc" in text)


def test_leaves_the_terminal_as_it_was() -> None:
    import termios

    run_once()
    with dashboard() as terminal:
        terminal.wait_for(READY)
        leave(terminal)
        assert not terminal.emulator.screen.in_alternate
        attributes = termios.tcgetattr(terminal.process.fd)
        assert attributes[3] & termios.ECHO
        assert attributes[3] & termios.ICANON
        assert attributes[0] & termios.ICRNL


@pytest.mark.parametrize("kept", [True, False], ids=["picture", "none"])
@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_a_signal_during_the_start_restores_the_terminal(signal_name: str, kept: bool) -> None:
    import signal
    import termios

    if kept:
        run_once()
    with dashboard() as terminal:
        terminal.wait_for_bytes(b"\x1b[?1049h")
        os.kill(terminal.pid, getattr(signal, signal_name))
        terminal.wait()
        assert not terminal.emulator.screen.in_alternate
        assert termios.tcgetattr(terminal.process.fd)[3] & termios.ECHO
        assert "Traceback" not in terminal.output.decode(errors="replace")


def test_sigterm_leaves_in_order() -> None:
    import signal

    with dashboard() as terminal:
        terminal.wait_for(READY)
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 143
        assert not terminal.emulator.screen.in_alternate
    assert kept_pictures()


def test_a_bad_setting_is_one_sentence() -> None:
    with Terminal([installed(), "--router", "not a url"]) as terminal:
        assert terminal.wait() == 2
        text = terminal.text().strip()
    assert text.startswith("modelhub: 'not a url' is no URL")
    assert "Traceback" not in text
    assert not terminal.emulator.screen.in_alternate


def test_a_bad_catalog_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("nonsense: [")
    with Terminal([installed(), "--catalog", tmp_path / "c.yaml"]) as terminal:
        assert terminal.wait() == 2
        assert "The catalog cannot be used" in terminal.text()
        assert "Traceback" not in terminal.text()


def test_without_a_terminal_it_says_what_to_do() -> None:
    import subprocess

    done = subprocess.run([installed()], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "modelhub list" in done.stderr


def test_the_version_needs_no_imports() -> None:
    import subprocess

    code = (
        "import sys; sys.argv = ['modelhub', '--version']; before = set(sys.modules)\n"
        "from modelhub_tui.__main__ import main\n"
        "code = main(); print(sorted(set(sys.modules) - before), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert re.fullmatch(r"modelhub \d+\.\d+\.\d+\n", done.stdout)
    assert set(re.findall(r"'([^']+)'", done.stderr)) <= {
        "modelhub_tui",
        "modelhub_tui.__main__",
        "modelhub_tui.paths",
        "__future__",
    }


def test_a_bug_ends_in_a_sentence_and_a_traceback_in_the_log() -> None:
    with dashboard(TEST_BREAK="1") as terminal:
        assert terminal.wait() == 1
        said = terminal.output.decode(errors="replace")
        assert not terminal.emulator.screen.in_alternate
    assert "Something unexpected went wrong." in said
    assert "Traceback" not in said
    assert "hf_verysecret" not in said
    logs = "".join(path.read_text() for path in Path(os.environ["MODELHUB_STATE_DIR"]).glob("*.log"))
    assert "Traceback" in logs


def test_a_terminal_that_goes_without_a_word_ends_the_session() -> None:
    """Only the session's leader is told of a hangup: here a shell that does not mind, as `make` does not."""
    program = shlex.join([sys.executable, "-m", "tests.tty.dashboard"])
    with Terminal(["/bin/sh", "-c", f"trap : HUP; {program}; true"], cwd=ROOT) as terminal:
        terminal.wait_for(READY)
        (dashboard_process,) = psutil.Process(terminal.pid).children()
        terminal.vanish()
        dashboard_process.wait(20)
