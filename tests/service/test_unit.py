"""The systemd unit: right in every character, never over somebody else's, and the service in it is the only one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from modelhub_tui.cli import main as command_line
from modelhub_tui.config import Settings, load_settings
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.service import lifecycle, unit

ODD = "with space 100% $HOME \"quoted\" back\\slash 'é' 模"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a machine of one's own, in its environment too."""
    for name in ("HF_TOKEN", "MODELHUB_API_KEY", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", *unit._NETWORK):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELHUB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MODELHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return load_settings()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Path:
    """A `systemctl` that writes down what it is asked; answers "active" while a file of that name is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "systemctl"
    script.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        echo "$*" >> {folder}/asked
        case "$*" in
          *is-active*) test -e {folder}/active ;;
          *enable*|*"start modelhub"*) test ! -e {folder}/broken || {{ echo "Failed: no bus"; exit 1; }} ;;
        esac
        """)
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def asked(systemd: Path) -> list[str]:
    """What systemctl was asked since last time, without the questions."""
    path = systemd / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    said = [line.removeprefix("--user --no-pager ") for line in lines]
    return [each for each in said if not each.startswith(("show", "is-"))]


def read(text: str) -> dict[str, list[str]]:
    """The unit's assignments as systemd reads them: quotes, backslashes and percent signs undone."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#;[":
            key, _, value = line.partition("=")
            if value.startswith('"'):
                word, rest, at = "", value[1:], 0
                while rest[at] != '"':
                    at += rest[at] == "\\"
                    word += rest[at]
                    at += 1
                value = word + rest[at + 1 :]
            assert value.replace("%%", "").count("%") == 0
            found.setdefault(key, []).append(value.replace("%%", "%"))
    return found


def test_every_character_of_a_path_survives(settings: Settings, tmp_path: Path) -> None:
    odd = replace(settings, state_dir=tmp_path / ODD, catalog=tmp_path / f"{ODD}.yaml")
    said = read(unit.unit_text(odd, {"HF_HOME": f"/home/{ODD}"}, python=f"/opt/{ODD}/python"))
    assert said["ExecStart"] == [f"/opt/{ODD}/python -P -m modelhub_tui serve"]
    assert {
        f"MODELHUB_STATE_DIR={tmp_path / ODD}".replace("$", "${MODELHUB_DOLLAR}"),
        f"MODELHUB_CATALOG={tmp_path / ODD}.yaml".replace("$", "${MODELHUB_DOLLAR}"),
        "MODELHUB_DOLLAR=$",
        f"HF_HOME=/home/{ODD}",
        f"HF_HUB_CACHE={settings.hub_cache}",
        "HF_ENDPOINT=http://127.0.0.1:9",
    } <= {*said["Environment"]}
    assert (said["Restart"], said["KillMode"], said["UMask"]) == (["on-failure"], ["mixed"], ["0077"])
    assert 3 < int(said["TimeoutStopSec"][0]) <= 30
    with pytest.raises(ServiceFailed, match="cannot be written in a systemd unit"):
        unit.unit_text(replace(settings, state_dir=Path("/tmp/two\nlines")))


def test_no_secret_is_written(settings: Settings) -> None:
    text = unit.unit_text(
        replace(settings, api_key="the-api-key"),
        {
            "HF_TOKEN": "hf_secret123",
            "MODELHUB_API_KEY": "the-api-key",
            "HTTPS_PROXY": "http://me:password@proxy:1",
            "http_proxy": "http://proxy:2",
            "MODELHUB_ROUTER": "http://elsewhere",
        },
    )
    for secret in ("hf_secret123", "the-api-key", "password", "elsewhere"):
        assert secret not in text
    assert "http_proxy=http://proxy:2" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_it(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "units" / unit.NAME
    unit.write_unit(path, unit.unit_text(replace(settings, state_dir=tmp_path / ODD)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "modelhub" in line]
    assert ours == [], ours
    path.write_text(path.read_text().replace("KillMode=mixed", "KillMode=nonsense"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert "nonsense" in done.stderr + done.stdout, "it does look"


def test_install_twice_status_and_uninstall_twice(
    settings: Settings, systemd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret123")
    path = unit.unit_path()
    assert command_line(["service", "status"]) == 5
    assert "Not installed" in capsys.readouterr().out
    assert command_line(["service", "install"]) == 0
    said = capsys.readouterr()
    assert (
        f"Wrote {path}" in said.out and "loginctl enable-linger" in said.err and "HF_TOKEN is not written" in said.err
    )
    assert asked(systemd) == ["daemon-reload", f"enable --now {unit.NAME}"]
    assert path.read_text() == unit.unit_text(settings) and path.stat().st_mode & 0o777 == 0o644
    (systemd / "active").touch()
    assert command_line(["service", "install"]) == 0
    assert "Unchanged" in capsys.readouterr().out
    assert asked(systemd) == ["daemon-reload", f"enable --now {unit.NAME}"], "nothing is restarted without a need"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:10")
    assert command_line(["service", "install"]) == 0
    assert asked(systemd)[-1] == f"restart {unit.NAME}"
    capsys.readouterr()
    assert command_line(["service", "status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["installed"], told["ours"], told["up_to_date"], told["active"]) == (True, True, True, True)
    assert command_line(["service", "uninstall"]) == 0
    assert not path.exists() and asked(systemd) == [f"disable --now {unit.NAME}", "daemon-reload"]
    assert command_line(["service", "uninstall"]) == 0
    assert asked(systemd) == [] and "Nothing is installed" in capsys.readouterr().out
    assert [*path.parent.iterdir()] == [], "nothing is left behind"


@pytest.mark.parametrize("how", ["text", "link", "folder"])
def test_a_unit_of_somebody_else_is_left_alone(
    how: str, systemd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unit.unit_path()
    path.parent.mkdir(parents=True)
    if how == "folder":
        path.mkdir()
    elif how == "link":
        (tmp_path / "theirs").write_text("[Service]\n")
        path.symlink_to(tmp_path / "theirs")
    else:
        path.write_text("[Service]\nExecStart=/bin/true\n")
    for action in ("install", "uninstall"):
        assert command_line(["service", action]) == 1
        assert "was not written by modelhub" in capsys.readouterr().err
    assert asked(systemd) == []
    assert command_line(["service", "status"]) == 1
    capsys.readouterr()
    if how != "folder":
        assert command_line(["service", "install", "--force"]) == 0
        assert unit.ours(path.read_text()) and not path.is_symlink()
        if how == "link":
            assert (tmp_path / "theirs").read_text() == "[Service]\n"


def test_without_systemd_or_its_manager_there_is_one_sentence(
    systemd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (systemd / "systemctl").write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    assert command_line(["service", "install"]) == 0
    said = capsys.readouterr()
    assert "No systemd user manager runs here" in said.err and "enable --now" in said.err
    assert unit.ours(unit.unit_path().read_text()), "it is there for when one runs"
    assert command_line(["service", "uninstall"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_line(["service", "install"]) == 1
    said = capsys.readouterr()
    assert "There is no systemd on this machine." in said.err and "modelhub serve" in said.err
    assert not unit.unit_path().exists()


def test_what_systemd_refuses_is_said_in_its_words(systemd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (systemd / "broken").touch()
    assert command_line(["service", "install"]) == 1
    assert "systemctl enable failed: Failed: no bus." in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_sentence(
    systemd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "systemd").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert command_line(["service", "install"]) == 1
    assert "cannot be written" in capsys.readouterr().err and asked(systemd) == []


def test_print_prints_what_install_writes(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["service", "print"]) == 0
    assert capsys.readouterr().out == unit.unit_text(settings)


def test_the_service_that_a_program_needs_is_started_by_systemd(settings: Settings, systemd: Path) -> None:
    # What systemd would do: run the unit's command with the unit's environment.
    said = read(unit.unit_text(settings))
    environment = " ".join(f"'{each}'" for each in said["Environment"])
    script = (systemd / "systemctl").read_text()
    start = f"  *'start modelhub'*) env {environment} setsid {said['ExecStart'][0]} >/dev/null 2>&1 < /dev/null & ;;\n"
    (systemd / "systemctl").write_text(script.replace("  *is-active*", f"{start}  *is-active*"))
    unit.write_unit(unit.unit_path(), unit.unit_text(settings))
    try:
        info = lifecycle.ensure_service(settings, timeout_s=60)
        assert asked(systemd) == [f"start {unit.NAME}"]
        command = Path(f"/proc/{info.pid}/cmdline").read_bytes().split(b"\0")
        assert command[-2] == b"serve", "it is the unit's"
        assert lifecycle.ensure_service(settings, timeout_s=60).pid == info.pid
        assert asked(systemd) == [], "found, not started again"
    finally:
        assert lifecycle.stop_service(settings)


def test_a_unit_for_other_settings_is_not_started(settings: Settings, systemd: Path, tmp_path: Path) -> None:
    unit.write_unit(unit.unit_path(), unit.unit_text(replace(settings, hub_cache=tmp_path / "other")))
    assert unit.start_installed(settings) is False and asked(systemd) == []
    unit.write_unit(unit.unit_path(), unit.unit_text(settings))
    assert unit.start_installed(settings) is True
    (systemd / "broken").touch()
    assert unit.start_installed(settings) is False, "then modelhub starts it itself"
    assert sys.executable in unit.unit_text(settings)
