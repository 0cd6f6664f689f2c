"""What a hub or a router says reaches no terminal and no log as it is: real processes in a pty, a hostile hub."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from modelhub_tui.service.logs import MAX_RECORD, Redacting
from tests.hub import GOOD_TOKEN, LoopbackHub
from tests.node.stub_router import KEY, StubRouter, manifest_of

pytestmark = pytest.mark.timeout(180)

FORGED = "2026-01-01 00:00:00,000 CRITICAL forged: all is well"
HOSTILE = (
    f"evil \x1b[2J\x1b]0;owned\x07 \x9b31m c1 \x85 \u202eidib \u2066iso \u200bzw \x00nul \x7fdel \u2028 ls \r\n{FORGED}"
    f"\n\r{FORGED}\x0b{FORGED} {GOOD_TOKEN[:6]}\u200b{GOOD_TOKEN[6:]} the-end"
)
MODELHUB = [sys.executable, "-m", "modelhub_tui"]


def raw_in(text: str) -> set[str]:
    """Characters that a terminal must not get from anybody but us."""
    return {
        char for char in text if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }


def assert_clean(text: str) -> None:
    assert raw_in(text) == set()
    assert not re.search(r"^[0-9:, -]*CRITICAL forged", text, re.MULTILINE), "a record was forged"
    assert GOOD_TOKEN not in text


@pytest.fixture
def hostile(hub: LoopbackHub) -> LoopbackHub:
    """A hub that knows one gated repo, and answers every other question with a hostile error."""
    latin = (
        HOSTILE.replace("\r", "").replace("\n", " ").replace("\x00", "").encode("latin-1", "ignore").decode("latin-1")
    )
    latin = re.sub(r"[\x00-\x1f\x7f]", "", latin)
    known = {"id": "acme/Nothing-GGUF", "sha": "0a" * 20, "createdAt": HOSTILE, "gated": "auto", "tags": [HOSTILE]}
    file = {"rfilename": "x.gguf", "size": 5_000, "blobId": "0b" * 20}
    hub.fault(
        path="/api/models/acme/Nothing-GGUF",
        status=200,
        method="GET",
        times=None,
        body=json.dumps({**known, "siblings": [file, {"rfilename": HOSTILE}]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    hub.fault(
        status=418,
        times=None,
        body=json.dumps({"error": HOSTILE}).encode(),
        headers={"Content-Type": "application/json", "X-Error-Message": latin, "X-Request-Id": latin},
    )
    return hub


@pytest.fixture
def serving(hostile: LoopbackHub) -> Iterator[pexpect.spawn[str]]:
    child = pexpect.spawn(
        MODELHUB[0],
        [*MODELHUB[1:], "serve", "--port", "0"],
        encoding="utf-8",
        timeout=60,
        codec_errors="surrogateescape",
    )
    child.logfile_read = io.StringIO()
    child.expect("serves http://127.0.0.1")
    yield child
    child.close(force=True)
    subprocess.run([*MODELHUB, "stop"], capture_output=True, timeout=60, check=False)


def seen(child: pexpect.spawn[str]) -> str:
    """All that the terminal got until the end, as the program wrote it: the terminal adds the carriage returns."""
    child.expect(pexpect.EOF)
    text: str = child.logfile_read.getvalue()
    return text.replace("\r\n", "\n")


def test_serve_passes_nothing_raw_to_terminal_log_or_command(serving: pexpect.spawn[str]) -> None:
    done = subprocess.run(
        [*MODELHUB, "pull", "acme/Nothing-GGUF"], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode != 0
    assert_clean(done.stdout + done.stderr)
    serving.sendintr()
    text = seen(serving)
    assert "forged: all is well" in text, "the hub's words did come to the log"
    assert_clean(text)
    logs = Path(os.environ["MODELHUB_STATE_DIR"]).rglob("*.log*")
    for log in logs:
        assert_clean(log.read_text(encoding="utf-8"))


@pytest.mark.parametrize("who", ["hub", "router"])
def test_node_passes_nothing_raw_to_the_terminal(hostile: LoopbackHub, who: str) -> None:
    with StubRouter() as router:
        repo = hostile.repos[0]
        path = next(iter(repo.main.files))
        router.register("acme/tiny-gguf", manifest_of(repo, path))
        if who == "router":
            router.refuse["/v0/"] = (422, {"error": HOSTILE, "detail": HOSTILE})
        child = pexpect.spawn(
            MODELHUB[0],
            [*MODELHUB[1:], "node", "--router", router.url],
            encoding="utf-8",
            timeout=60,
            env={**os.environ, "MODELHUB_API_KEY": KEY},
            codec_errors="surrogateescape",
        )
        child.logfile_read = io.StringIO()
        try:
            child.expect("the router at .*error 422" if who == "router" else "tiny-gguf: failed")
            child.sendintr()
            text = seen(child)
        finally:
            child.close(force=True)
    assert_clean(text)


def in_a_process(code: str, *argv: str) -> str:
    """What a piece of code wrote to its terminal, with all logging set up as for `modelhub serve`."""
    start = (
        "import sys; from pathlib import Path; from modelhub_tui.service.logs import start_log; "
        "start_log(Path(sys.argv[1]), foreground=True)\n"
    )
    child = pexpect.spawn(
        sys.executable, ["-c", start + code, *argv], encoding="utf-8", timeout=60, codec_errors="surrogateescape"
    )
    child.logfile_read = io.StringIO()
    return seen(child)


@pytest.mark.parametrize(
    "code",
    [
        "print(said)",
        "print(said, file=sys.stderr)",
        "sys.stderr.write(said)",
        "import warnings; warnings.warn(said)",
        "raise ValueError(said)",
        "import threading as t; x = t.Thread(target=fail); x.start(); x.join()",
        "class C:\n    def __del__(self): raise ValueError(said)\nC()",
        "import logging; logging.getLogger(said).error('x')",
        "import logging; logging.getLogger('x').error('%s', said, stack_info=True)",
        "import logging\ntry: raise OSError(5, said, said)\nexcept OSError: logging.exception('failed')",
        "import asyncio as a\nasync def f():\n    a.get_running_loop().call_soon(fail)\n"
        "    await a.sleep(0.01)\na.run(f())",
        "import os; os.write(2, said.encode('utf-8', 'replace'))",
        "import subprocess; subprocess.run([sys.executable, '-c', 'import sys; sys.exit(sys.argv[1])', "
        "said.replace(chr(0), '')])",
    ],
)
def test_every_way_to_the_terminal_is_clean(tmp_path: Path, code: str) -> None:
    text = in_a_process(f"said = {HOSTILE!r}\ndef fail(): raise ValueError(said)\n{code}", str(tmp_path / "x.log"))
    assert_clean(text)
    if "os.write" not in code and "subprocess" not in code:
        assert "forged: all is well" in text and "the-end" in text
        assert_clean((tmp_path / "x.log").read_text())


def formatted(message: str, exc_info: object = None) -> str:
    return Redacting().format(logging.LogRecord("x", logging.ERROR, "f", 1, message, None, exc_info))  # type: ignore[arg-type]


def test_a_record_is_one_line_or_marked_lines() -> None:
    lines = formatted("one\n    two\r\n\n\rthree").split("\n")
    assert lines[0].endswith("ERROR x: one")
    assert lines[1:] == ["  |     two", "  | three"]


def test_a_record_has_an_end_and_keeps_that_of_a_traceback() -> None:
    try:
        raise ValueError("x y\n" * 3000 + "the reason")
    except ValueError:
        text = formatted("message " * 2000, exc_info=sys.exc_info())
        short = formatted("failed", exc_info=sys.exc_info())
    for each in (text, short, formatted("a " * 10**6), formatted("\n" * 10**6), formatted("x\n" * 10**6)):
        assert len(each.encode()) <= MAX_RECORD
        assert all(line.startswith("  | ") for line in each.split("\n")[1:])
    try:
        raise ValueError("x y\n" * 900 + "the reason")
    except ValueError:
        assert formatted("m " * 3000, exc_info=sys.exc_info()).endswith("the reason")


@pytest.mark.parametrize("length", range(16 * 1024 - 60, 16 * 1024 + 20))
def test_a_cut_leaves_no_half_of_a_secret(length: int) -> None:
    formatter = Redacting()
    formatter.secrets.append("the-admin-key-of-this-service")
    for secret in (
        "hf_abcdefghijklmnopqrst",
        "Bearer abcdefgh0123456789",
        "the-admin-key-of-this-service",
        "https://u:pw@h/",
    ):
        # Hidden secrets are shorter, so that what follows is seen.
        filler = ("token=" + "s" * 500 + " ") * 40
        text = formatter.format(logging.LogRecord("x", 40, "f", 1, filler[: length - 60] + " " + secret, None, None))
        assert not re.search("abcdefg|the-admin|pw", text), text[-100:]


@pytest.mark.parametrize(
    "argv", [["list", HOSTILE], ["list", "--status", HOSTILE], [HOSTILE], ["pull", HOSTILE], ["rm", HOSTILE, "--yes"]]
)
def test_arguments_are_not_repeated_raw(argv: list[str]) -> None:
    said = [each.replace("\0", "") for each in argv]
    done = subprocess.run(
        [*MODELHUB, *said, "--router", "http://127.0.0.1:9"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert raw_in(done.stdout + done.stderr) == set()
