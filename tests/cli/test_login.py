"""`modelhub login`, `logout` and `pull --node`, against routers on loopback."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhub_tui.cli import main
from modelhub_tui.client.auth import Sessions
from tests.routers import FakeG1, FakeG3, FakeG4
from tests.routers.models import ADMIN_PASSWORD
from tests.routers.worlds import CATALOG, NAME, REPO


@pytest.fixture
def g4() -> Iterator[FakeG4]:
    with FakeG4() as router:
        yield router


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder; and a catalog of one model."""
    monkeypatch.setenv("MODELHUB_STATE_DIR", str(tmp_path))
    for module in ("listing", "pull", "remove", "status"):
        monkeypatch.setattr(f"modelhub_tui.cli.{module}.load_catalog", lambda *_: CATALOG)
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What stdin holds."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_login_is_kept_used_and_forgotten(
    g4: FakeG4, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = ["--router", g4.url]
    assert main(["list", *router]) == 4
    typed(monkeypatch, ADMIN_PASSWORD + "\n")
    assert main(["login", *router, "--username", "admin", "--password-stdin"]) == 0
    said = capsys.readouterr().err
    assert "Logged in" in said and "as admin" in said and ADMIN_PASSWORD not in said
    (path,) = state.glob("sessions.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and ADMIN_PASSWORD not in path.read_text()
    assert main(["status", "--json", *router]) == 0
    assert json.loads(capsys.readouterr().out)["router"]["generation"] == "G4"
    assert main(["logout", *router]) == 0
    assert Sessions(state, keyring=False).load(g4.url) is None
    assert main(["list", *router]) == 4
    assert main(["logout", *router]) == 0
    assert "Nobody is logged in" in capsys.readouterr().err


def test_an_ended_session_says_to_log_in_again(
    g4: FakeG4, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, ADMIN_PASSWORD + "\n")
    assert main(["login", "--router", g4.url, "--username", "admin", "--password-stdin"]) == 0
    g4.expire_tokens()
    assert main(["list", "--router", g4.url]) == 4
    assert "Log in again" in capsys.readouterr().err


def test_wrong_passwords_and_missing_words(
    g4: FakeG4, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = ["--router", g4.url]
    typed(monkeypatch, "wrong\n")
    assert main(["login", *router, "--username", "admin", "--password-stdin"]) == 4
    assert "wrong" in capsys.readouterr().err
    assert main(["login", *router, "--password-stdin"]) == 2
    assert main(["login", *router, "--username", "admin"]) == 2  # no terminal to ask on
    assert main(["login"]) == 2
    assert not list(state.glob("sessions.json"))


def test_a_new_password_is_asked_for_where_the_router_wants_one(
    g4: FakeG4, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g4.auth.add_user("new", "initial", must_change=True)
    answers = iter(["initial", "better-one", "better-one"])
    monkeypatch.setattr("modelhub_tui.cli.login._ask_password", lambda _: next(answers))
    assert main(["login", "--router", g4.url, "--username", "new"]) == 0
    session = Sessions(state, keyring=False).load(g4.url)
    assert session is not None and not session.must_change_password
    assert g4.auth.users["new"].password == "better-one"


def test_a_pull_is_ordered_on_the_endpoint_of_choice(
    g4: FakeG4, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--router", g4.url, "--api-key", g4.admin_key, "--no-wait"]
    assert main(["pull", "phi-3-mini", *flags]) == 2
    assert "No endpoint" in capsys.readouterr().err
    g4.add_node("one", "ollama")
    g4.add_node("two", "lm_studio")
    g4.add_node("three", "vllm")
    assert main(["pull", "phi-3-mini", *flags]) == 2
    said = capsys.readouterr().err
    assert "--node" in said and "one" in said and "two" in said and "three" not in said
    assert main(["pull", "phi-3-mini", *flags, "--node", "three"]) == 1
    assert "takes no downloads" in capsys.readouterr().err
    assert main(["pull", "phi-3-mini", *flags, "--node", "nobody"]) == 2
    assert main(["pull", "phi-3-mini", *flags, "--node", "two", "--quantization", "Q8_0"]) == 0
    (order,) = [each.json for each in g4.requests if each.path.endswith("/download")]
    assert order == {"model": NAME, "hf_repo": REPO, "quantization": "Q8_0"}
    assert main(["pull", "phi-3-mini", *flags, "--node", "one", "--quantization", "Q8_0"]) == 1


def test_what_a_generation_cannot_do_is_one_sentence(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeG1() as g1:
        g1.add_node("gpu-01")
        flags = ["--router", g1.url, "--api-key", g1.admin_key, "--no-wait"]
        assert main(["pull", "phi-3-mini", *flags, "--node", "gpu-01"]) == 1
        assert main(["pull", "phi-3-mini", *flags, "--quantization", "Q8_0"]) == 1
    with FakeG3() as g3:
        g3.add_node("one", "ollama")
        assert main(["pull", "phi-3-mini", "--router", g3.url, "--api-key", g3.admin_key, "--no-wait"]) == 1
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if "--api-key shows the key" not in line]
    assert len(lines) == 3 and all("This router cannot" in each for each in lines)
