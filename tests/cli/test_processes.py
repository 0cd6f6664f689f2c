"""The real command in a process of its own: what it imports, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelhub_tui.cli.arguments import build_parser

MODELHUB = [sys.executable, "-m", "modelhub_tui"]
HEAVY = ["textual", "rich", "httpx", "pydantic", "huggingface_hub", "diskcache", "yaml", "starlette", "uvicorn"]


def run(*argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MODELHUB, *argv], capture_output=True, text=True, timeout=90, check=False, **options)  # type: ignore[call-overload,no-any-return]


def imported(code: str) -> set[str]:
    """Which heavy packages a piece of code loads in a fresh interpreter."""
    script = f"{code}\nimport sys; print('\\n' + ' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "argv",
    [["--version"], ["list", "--version"], ["--help"], ["pull", "--help"], ["bogus"], ["catalog", "--help"]],
)
def test_answering_about_itself_loads_nothing_heavy(argv: list[str]) -> None:
    assert imported(f"from modelhub_tui.cli import main; main({argv!r})") == set()


def test_the_commands_load_no_textual(tmp_path: Path) -> None:
    code = "from modelhub_tui.cli import main; main(['list', '--router', 'http://127.0.0.1:9'])"
    assert not imported(code) & {"textual", "rich", "huggingface_hub", "diskcache", "starlette", "uvicorn"}


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "modelhub 0.1.0\n", "")


def test_nobody_at_the_routers_address_is_exit_code_3() -> None:
    done = run("list", "--json", "--router", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (3, "")
    assert "No router answers at http://127.0.0.1:9." in done.stderr and "Traceback" not in done.stderr


def test_a_bad_config_file_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("router = \n")
    done = run("list", "--config", str(config))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(config) in done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    with subprocess.Popen(
        [*MODELHUB, "catalog", "check", "--json", "/dev/null"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 128 + 13
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_output_that_cannot_be_written_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        for argv in (["--version"], ["catalog", "check", "/dev/null"]):
            done = subprocess.run([*MODELHUB, *argv], stdout=full, stderr=subprocess.PIPE, text=True, timeout=90)
            assert done.returncode == 1, argv
            assert done.stderr == "modelhub: The output cannot be written: No space left on device.\n"
        done = subprocess.run([*MODELHUB, "list", "--config", "/no/such"], stderr=full, timeout=90)
        assert done.returncode == 2


def test_closed_standard_streams_are_as_good_as_the_null_device() -> None:
    """The next file opened would get their number, and what is printed with it."""
    close = "import os, sys; os.closerange(0, 3); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    for argv, code in ((["--version"], 0), (["catalog", "check", "/dev/null"], 1), (["list", "--config", "/no"], 2)):
        done = subprocess.run([sys.executable, "-c", close, "-m", "modelhub_tui", *argv], timeout=90)
        assert done.returncode == code, argv


def test_output_that_the_terminal_cannot_spell(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = run("register", "日本/語", env=env)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_status_without_a_service_starts_none(tmp_path: Path) -> None:
    done = run("status", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["service"] is None
    assert not (Path(os.environ["MODELHUB_STATE_DIR"]) / "service.log").exists()


def test_a_list_of_the_running_service_imports_no_more_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STATE", "CACHE"):
        monkeypatch.setenv(f"MODELHUB_{name}_DIR", str(tmp_path / name))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    try:
        assert run("list").returncode == 0  # starts the service and reads the catalog
        command = [sys.executable, "-X", "importtime", "-m", "modelhub_tui", "list"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    finally:
        run("stop")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "modelhub_tui.client.quick" in loaded
    spared = {*HEAVY, "asyncio", "ssl", "http.client", "tomllib", "subprocess", "hashlib", "encodings.idna"}
    assert not loaded & spared


COMMANDS = {
    "list": "list --search a --fits --json",
    "trash": "trash --empty a b --yes",
    "move": "move a first",
    "service": "service install --force",
    "catalog": "catalog check a --json",
    "serve": "serve --port 80 --router http://a",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_parser_of_one_command_reads_it_as_the_parser_of_all(name: str) -> None:
    argv = COMMANDS[name].split()
    assert build_parser(name).parse_args(argv) == build_parser().parse_args(argv)


def test_an_unknown_command_is_answered_with_all_there_are() -> None:
    done = run("lst")
    assert done.returncode == 2
    assert "invalid choice: 'lst'" in done.stderr
    assert all(f"'{name}'" in done.stderr for name in ("list", "pull", "doctor", "catalog"))


def test_a_key_goes_to_its_own_router_and_to_no_other(tmp_path: Path) -> None:
    """Asked for by a real server: a key beside another router is withheld, and that is said once."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(401 if self.path.startswith("/v0/") else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        config = Path(os.environ["HOME"]) / ".config/modelhub/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text('router = "http://fleet.example"\napi_key = "sk-of-the-fleet"\n')
        withheld = run("list", "--router", url)
        assert seen and not any(seen)
        sentence = (
            f"The API key in the config file is for http://fleet.example, set beside it, and is not sent to {url}."
        )
        assert withheld.stderr.splitlines()[0] == sentence and "sk-of" not in withheld.stderr
        seen.clear()
        given = run("list", "--router", url, env={**os.environ, "MODELHUB_API_KEY": "sk-for-any"})
        assert "Bearer sk-for-any" in seen and "is not sent" not in given.stderr
        told = json.loads(run("doctor", "--json", "--router", url).stdout)
        server.shutdown()
    [check] = [each for each in told["checks"] if each["name"] == "settings"]
    assert (check["status"], check["what"]) == ("warning", sentence)


def test_a_pipe_or_a_bomb_as_a_setting_ends_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text("theme = " + "[" * 30_000)
    (tmp_path / "long").write_text("bandwidth = " + "9" * 6000)
    (tmp_path / "deep.yaml").write_text("models: " + "[" * 200_000)
    (tmp_path / "bomb.yaml").write_text("a: &a [x]\nb: &b [*a,*a]\nmodels: [*b, *b]\n")
    (tmp_path / "huge.yaml").write_text("schema: " + "9" * 6000 + "\nmodels: []\n")
    for flag, names in {
        "--config": ("pipe", "deep", "long"),
        "--api-key-file": ("pipe",),
        "--catalog": ("pipe", "deep.yaml", "bomb.yaml", "huge.yaml"),
    }.items():
        for name in names:
            done = run("catalog", "check", flag, str(tmp_path / name))
            assert done.returncode in (1, 2) and "Traceback" not in done.stderr, (flag, name, done.stderr)
            assert len((done.stderr + done.stdout).splitlines()) in (1, 2, 3), (flag, name, done.stdout)
