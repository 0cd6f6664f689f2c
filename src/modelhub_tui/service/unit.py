"""The local service as a systemd user unit: its text, where it lies, and what systemd is asked to do with it.

Stdlib only, imported when it is needed. Source: systemd.unit(5), systemd.exec(5) and systemd.service(5).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from modelhub_tui.config import SETTINGS, Settings, child_env
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.paths import expanded
from modelhub_tui.small_files import NotAPlainFile, read_small

NAME = "modelhub.service"
MARKER = "# Written by `modelhub service install`."
SYSTEMCTL_S = 30.0
"""Longest wait for systemd, in seconds: `enable --now` waits for the start."""
STOP_S = 10
"""What systemd gives the service to stop, in seconds; it needs less than three."""
_READ_LIMIT_BYTES = 64 * 1024
_SECRET = frozenset({"MODELHUB_API_KEY", "HF_TOKEN"})
_NOT_OURS = frozenset({"MODELHUB_ROUTER", "MODELHUB_THEME"})
"""What the dashboard is told, and the service has no use for."""
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "HF_TOKEN_PATH")


def unit_path(env: Mapping[str, str] | None = None) -> Path:
    """Where the user's own units lie."""
    env = os.environ if env is None else env
    base = env.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path(env.get("HOME") or Path.home()) / ".config"
    return folder / "systemd" / "user" / NAME


def unit_text(settings: Settings, env: Mapping[str, str] | None = None, *, python: str = sys.executable) -> str:
    """The unit that runs the service with these settings. It holds no secrets: the service finds those in files.

    Raises:
        ServiceFailed: A path cannot be written in a unit.
    """
    lines = "\n".join(
        f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(_environment(settings, env).items())
    )
    return f"""\
{MARKER} The next one replaces what you change here; `systemctl --user edit {NAME}` is kept.

[Unit]
Description=modelhub, the local service that keeps models
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
ExecStart={_quoted(python)} -P -m modelhub_tui serve
{lines}
Restart=on-failure
RestartSec=5
# 2: the settings are wrong, and will be.
RestartPreventExitStatus=2
# It ends its node itself, which first finishes its chunk.
KillMode=mixed
TimeoutStopSec={STOP_S}
UMask=0077
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""


def _environment(settings: Settings, env: Mapping[str, str] | None) -> dict[str, str]:
    """The settings in force, as the service reads them from its environment."""
    env = os.environ if env is None else env
    told = {each.env: env[each.env] for each in SETTINGS if env.get(each.env)}
    for name in _NETWORK:
        for spelled in (name, name.lower()):
            # A password in there is no secret any more once it stands in a file that a backup takes along.
            if env.get(spelled) and "@" not in env[spelled]:
                told[spelled] = env[spelled]
    told |= child_env(settings, env)
    for name in ("MODELHUB_CONFIG", "MODELHUB_API_KEY_FILE"):
        if told.get(name):
            told[name] = str(Path(expanded(told[name], env)).absolute())
    if settings.key_of:  # without the router beside it the file would pass for that of the service's own key
        told.pop("MODELHUB_API_KEY_FILE", None)
    return {name: value for name, value in told.items() if name not in _SECRET | _NOT_OURS}


def _quoted(text: str) -> str:
    """One word of a unit file. `%` begins a specifier; `$` means nothing in an assignment, nor in a program's path.

    Raises:
        ServiceFailed: It has characters that no unit can hold.
    """
    if not text.isprintable():  # line ends, control characters, bytes that are no UTF-8
        raise ServiceFailed(f"{text!r} cannot be written in a systemd unit.", "Use a path of printable characters.")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def read_unit(path: Path) -> str | None:
    """The unit as it lies there; None if there is none, "" if it is nothing that we would have written.

    Raises:
        ServiceFailed: It cannot be read.
    """
    try:
        return read_small(path, _READ_LIMIT_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotAPlainFile:
        return ""
    except OSError as error:
        raise ServiceFailed(f"{path} cannot be read ({error.strerror}).") from error


def ours(text: str) -> bool:
    """True if this unit was written by us."""
    return text.startswith(MARKER)


def write_unit(path: Path, text: str, *, force: bool = False) -> bool:
    """Write the unit in one step; False if it was there already.

    Raises:
        ServiceFailed: It cannot be written, or another one lies there and `force` is not given.
    """
    there = read_unit(path)
    if there == text:
        return False
    if there is not None and not ours(there) and not force:
        raise ServiceFailed(
            f"{path} was not written by modelhub.",
            "Move it away, or replace it with `modelhub service install --force`.",
        )
    temporary = path.with_name(f".{NAME}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ServiceFailed(f"{path} cannot be written ({error.strerror}).", "Check its folder's owner.") from error
    return True


def remove_unit(path: Path, *, force: bool = False) -> bool:
    """Remove the unit; False if there was none.

    Raises:
        ServiceFailed: It cannot be removed, or another one lies there and `force` is not given.
    """
    there = read_unit(path)
    if there is None:
        return False
    if not ours(there) and not force:
        raise ServiceFailed(
            f"{path} was not written by modelhub.", "Remove it yourself, or with `modelhub service uninstall --force`."
        )
    try:
        path.unlink()
    except OSError as error:
        raise ServiceFailed(f"{path} cannot be removed ({error.strerror}).", "Check its folder's owner.") from error
    return True


def has_systemd() -> bool:
    """True if systemd's command is on this machine."""
    return sys.platform == "linux" and shutil.which("systemctl") is not None


def has_manager() -> bool:
    """True if a systemd manager of this user runs, so that units can be started."""
    return has_systemd() and systemctl("show", "--property=Version", timeout_s=5.0)[0] == 0


def systemctl(*arguments: str, timeout_s: float = SYSTEMCTL_S) -> tuple[int, str]:
    """Run `systemctl --user`; its exit code and what it said, or (-1, why) if it cannot be run."""
    env = dict(os.environ)
    # Missing after `su` or in a cron job, though the manager runs.
    if not env.get("XDG_RUNTIME_DIR") and Path(f"/run/user/{os.getuid()}").is_dir():
        env["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
    try:
        done = subprocess.run(
            ["systemctl", "--user", "--no-pager", *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, f"systemctl does not answer ({type(error).__name__})"
    return done.returncode, done.stdout.strip()


def lingers() -> bool:
    """True if this user's manager runs without anybody logged in. Source: loginctl(1), enable-linger."""
    with contextlib.suppress(OSError, KeyError):
        return Path("/var/lib/systemd/linger", getpass.getuser()).exists()
    return False


def start_installed(settings: Settings) -> bool:
    """Have systemd start the service, if the unit is installed and is what these settings would make it.

    So that the service that a program needs is the one that systemd looks after, and not a second that is in its way.
    """
    try:
        if read_unit(unit_path()) != unit_text(settings):
            return False
    except (ServiceFailed, RuntimeError):
        return False
    return has_manager() and systemctl("start", NAME)[0] == 0
