"""No secret reaches the log, the log stays small, and nothing it does can stop the service."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from modelhub_tui.errors import BadSettings
from modelhub_tui.service import redact as redact_module
from modelhub_tui.service.logs import Redacting, log_format
from modelhub_tui.service.redact import PATTERNS, redact


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("{'authorization': 'Bearer topsecret1'}", "topsecret1"),
        ("X-API-Key: topsecret2", "topsecret2"),
        ("headers={'x-node-token': 'nt_0b2f-77'}", "nt_0b2f-77"),
        ("token hf_AbCdEf123456 is bad", "hf_AbCdEf123456"),
        ("GET https://cdn/x?Policy=AAAA&Signature=BBBBsecret&Key-Pair-Id=CCCC", "BBBBsecret"),
        ("https://s3/x?X-Amz-Credential=cred&X-Amz-Signature=sigsig HTTP", "sigsig"),
        ("HF_TOKEN=mytoken123", "mytoken123"),
        ("http://user:pa55word@host/x", "pa55word"),
        ("https_proxy=http://me:pa:ss@word9@proxy:3128", "word9"),
        ("https://ghp0token0value@host/x", "ghp0token0value"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("Authorization: Custom one two three", "two three"),
        ("Proxy-Authorization: Digest username=x, response=abcdef", "abcdef"),
        ("Cookie: session=abcdef; other=x", "abcdef"),
        ('{"password": "pass word with spaces"}', "with spaces"),
        ("[(b'x-api-key', b'raw-key-in-a-scope')]", "raw-key-in-a-scope"),
        ("(b'authorization', b'Bearer raw.bytes1')", "raw.bytes1"),
        ('"body": "{\\"api_key\\": \\"json-in-json\\"}"', "json-in-json"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl is a login", "c2lnbmF0dXJl"),
        ("https://cas/x?X-Xet-Signed-Range=0&Unknown-Param=s3cret-v", "s3cret-v"),
        ("https://host/path?only-a-value", "only-a-value"),
        ("HF_HUB_TOKEN='quoted token'", "quoted token"),
        ("sk_ABC_def-123456 and nt_12345678-9abc_x", "9abc_x"),
    ],
)
def test_secrets_are_hidden(said: str, secret: str) -> None:
    hidden = redact(said)
    assert secret not in hidden and "[hidden]" in hidden


PIECES = (
    *(
        "x-",
        "a_",
        "token=",
        "http://",
        "eyJ",
        "eyJ-",
        "eyJ-eyJaaaaaaaaa.",
        "://",
        "https://a?b&",
        "https://a?b=c&",
        "a=b&",
    ),
    *(
        "a:",
        "a:b@",
        "x-amz-",
        "x-amz-a=",
        "cookie: ",
        "authorization:",
        "authorization='",
        'token:"',
        "token='\\",
        "hf_",
    ),
    *("hf_-", "://a:", "://a:b/", "bearer 1", "bearer ", "password", "_token", "key-pair-id", "\\", "'", "?", "&", "@"),
    *(" ", "\n", "token ", "token:\n", "a ", "a@"),
)
STARTS = ("", "token='", "http://", "bearer ", "eyJ", "https://x?a", "x-", "://u:")
HIDERS = [
    *(partial(pattern.sub, "") for pattern, _ in PATTERNS),
    partial(redact_module._URL.sub, redact_module._without_values),
    partial(redact_module._VALUE.sub, ""),
]


@pytest.mark.parametrize("hide", HIDERS, ids=lambda hide: hide.func.__self__.pattern[:25])
def test_the_cost_of_hiding_grows_with_the_text_and_no_faster(hide: Callable[[str], str]) -> None:
    """Quadratic growth would make four times the text sixteen times as dear. Compared with itself, on this machine."""

    def cost_s(text: str) -> float:
        took = []
        for _ in range(3):
            begun = time.process_time()
            hide(text)
            took.append(time.process_time() - begun)
        return min(took)

    for start, piece in product(STARTS, PIECES):
        text = start + piece * 20_000
        whole_s = cost_s(text[:20_000])
        # What takes no time to speak of says nothing about growth.
        assert whole_s < 0.005 or whole_s < 8 * cost_s(text[:5_000]) + 0.005, (start, piece)


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("http://user:pa/55word@host/x", "55word"),
        ("http://user:pa#55word@host/x", "55word"),
        ("http://user:p@ss/55word@host/x", "55word"),
        ("http://us:er:55word@host", "55word"),
        ("HTTPS_PROXY=user:pa%4055word@proxy:3128", "55word"),
        ("proxy user:55word@[::1]:3128", "55word"),
        ("eyJhbGciOiJIUzI1NiJ9 is a half of one", "hbGci"),
        ("x-amz-meta-" + "a-" * 15 + "x=s3cret-v", "s3cret-v"),
        ("token='" + "s" * 30_000, "sss"),
        ("eyJ" + "s" * 30_000, "sss"),
        ("https://host/" + "p" * 5000 + "?X-Key=s3cret-v", "s3cret-v"),
    ],
    ids=lambda text: text[:30],
)
def test_secrets_of_odd_forms_are_hidden(said: str, secret: str) -> None:
    assert secret not in redact(said)


def test_an_address_with_a_port_is_no_password() -> None:
    for said in ("http://127.0.0.1:8000/a@b", "see http://host:80, or mail me@host", "12:30:45 at a/b:c.gguf"):
        assert redact(said) == said


def test_known_secrets_are_hidden_wherever_they_stand_and_the_rest_stays() -> None:
    assert redact("a kkkkkkkk b", ["kkkkkkkk", ""]) == "a [hidden] b"
    said = "registered acme/tiny-gguf: 8911e8a47f92, 3 files, 100 bytes from https://hub/acme/x?download=true"
    assert redact(said) == said
    assert redact("set: hf_endpoint, hf_home") == "set: hf_endpoint, hf_home", "a setting's name is no token"
    assert redact("hf_endpointAbCd1234") == "[hidden]"


def in_a_process(code: str, log: Path) -> subprocess.CompletedProcess[str]:
    """Logging is process-wide, and so are the file descriptors it takes over."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(log)], capture_output=True, text=True, timeout=60, check=False
    )


def test_everything_printed_goes_through_the_log_and_it_rotates(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    code = """
        import logging, os, sys
        from pathlib import Path
        from modelhub_tui.service import logs
        logs.MAX_BYTES = 20_000
        formatter = logs.start_log(Path(sys.argv[1]), foreground=False)
        formatter.secrets.append("the-admin-key")
        print("printed hf_abcdefgh the-admin-key")
        try:
            raise ValueError("Bearer in-a-traceback")
        except ValueError:
            logging.getLogger("x").exception("failed")
        for number in range(2000):
            logging.getLogger("x").info("line %d %s", number, "y" * 50)
        os.write(2, b"straight to the descriptor\\n")
    """
    done = in_a_process(code, log)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = sorted(tmp_path.iterdir())
    assert [each.name for each in files] == ["service.log", "service.log.1", "service.log.2", "service.log.3"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert all(each.stat().st_size < 25_000 for each in files)
    assert log.read_text().endswith("straight to the descriptor\n"), "descriptors follow the current file"


def test_printed_secrets_and_tracebacks_are_hidden(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    code = """
        import logging, sys
        from pathlib import Path
        from modelhub_tui.service import logs
        logs.start_log(Path(sys.argv[1]), foreground=False).secrets.append("the-admin-key")
        print("printed hf_abcdefgh the-admin-key")
        try:
            raise ValueError("Bearer in-a-traceback")
        except ValueError:
            logging.getLogger("x").exception("failed")
    """
    assert in_a_process(code, log).returncode == 0
    text = log.read_text()
    assert "printed [hidden] [hidden]" in text and "Traceback" in text and "ValueError: Bearer [hidden]" in text


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    code = """
        import logging, os, shutil, sys
        from pathlib import Path
        from modelhub_tui.service import logs
        logs.MAX_BYTES = 1000
        logs.start_log(Path(sys.argv[1]), foreground=False)
        shutil.rmtree(Path(sys.argv[1]).parent)
        for number in range(100):
            logging.getLogger("x").info("line %d", number)
        os._exit(7)
    """
    folder = tmp_path / "state"
    folder.mkdir()
    assert in_a_process(code, folder / "service.log").returncode == 7


def test_no_line_is_lost_or_torn_when_processes_share_a_log_that_rotates(tmp_path: Path) -> None:
    code = """
        import logging, sys
        from pathlib import Path
        from modelhub_tui.service import logs
        logs.MAX_BYTES = 32_000
        logs.start_log(Path(sys.argv[1]), foreground=False, fds=())
        sys.stdin.readline()
        for number in range(400):
            logging.getLogger("x").info("%s %d %s.", sys.argv[2], number, "y" * 40)
    """
    log = tmp_path / "service.log"
    command = [sys.executable, "-c", textwrap.dedent(code), str(log)]
    writers = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, text=True) for name in "abc"]
    for each in writers:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    assert [each.wait(60) for each in writers] == [0, 0, 0]
    for each in writers:
        assert each.stdin is not None
        each.stdin.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2, "it did rotate"
    lines = [line for each in files for line in each.read_text().splitlines()]
    assert all(line.endswith(" " + "y" * 40 + ".") for line in lines)
    found = {tuple(line.split(" x: ")[1].split()[:2]) for line in lines}
    assert len(found) == len(lines) == 1200


def test_a_folder_that_cannot_be_written_bounds_the_log_too(tmp_path: Path) -> None:
    code = """
        import logging, sys
        from pathlib import Path
        from modelhub_tui.service import logs
        logs.MAX_BYTES = 10_000
        def refuse(*_): raise OSError(30, "Read-only file system")
        logs.rotate = refuse
        logs.start_log(Path(sys.argv[1]), foreground=False, fds=())
        for number in range(1000):
            logging.getLogger("x").info("line %d %s", number, "y" * 50)
    """
    assert in_a_process(code, tmp_path / "service.log").returncode == 0
    [only] = tmp_path.iterdir()
    assert 15_000 < only.stat().st_size <= 20_000 and "line 100 " in only.read_text()


def test_the_foreground_also_writes_to_stderr(tmp_path: Path) -> None:
    code = """
        import logging, sys
        from pathlib import Path
        from modelhub_tui.service import logs
        logs.start_log(Path(sys.argv[1]), foreground=True)
        logging.getLogger("x").info("hello hf_abcdefgh")
    """
    done = in_a_process(code, tmp_path / "service.log")
    assert "hello [hidden]" in done.stderr and (tmp_path / "service.log").read_text() == done.stderr


def test_json_records_are_an_object_on_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    formatter = Redacting(as_json=True)
    record = logging.LogRecord(
        "a.b", logging.WARNING, __file__, 1, "said %s\n%s", ("\x1b[2J\u202ex", "hf_Secret123456"), None
    )
    record.created, record.msecs = 1_800_000_000.5, 500.0
    line = formatter.format(record)
    assert "\n" not in line and line.isprintable() and "hf_Secret" not in line
    told = json.loads(line)
    assert told == {
        "time": "2027-01-15T08:00:00.500Z",
        "level": "WARNING",
        "logger": "a.b",
        "process": os.getpid(),
        "message": "said [2Jx\n[hidden]",
    }
    try:
        raise ValueError("token=s3cret-value \x07")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    told = json.loads(formatter.format(record))
    assert "ValueError" in told["error"] and "s3cret" not in told["error"]
    monkeypatch.setenv("MODELHUB_LOG_FORMAT", "xml")
    with pytest.raises(BadSettings, match=r"'xml'; it can be text, .* or json"):
        log_format()


def test_the_service_and_its_node_write_json() -> None:
    program = [sys.executable, "-m", "modelhub_tui", "serve", "--log-format", "json"]
    node_log = Path(os.environ["MODELHUB_STATE_DIR"]) / "node" / "node.log"
    with subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            first = json.loads(process.stderr.readline())
            assert "serves http://" in first["message"]
            deadline = time.monotonic() + 30
            while not (node_log.exists() and "registered with" in node_log.read_text()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            process.terminate()
        for line in process.stderr:
            assert json.loads(line)["logger"]
    for line in node_log.read_text().splitlines():
        assert json.loads(line)["process"] != process.pid
