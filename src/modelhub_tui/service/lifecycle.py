"""Find, start and stop the local service. Blocking functions, stdlib only: they run while the first frame is drawn."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
import time
from dataclasses import field
from pathlib import Path

from modelhub_tui import __version__, hf_env, own_socket
from modelhub_tui.config import Settings, child_env
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.identifiers import whole_number
from modelhub_tui.own_folder import is_own_dir, prepare_dir
from modelhub_tui.service.statefile import (
    LOCK_FILE,
    LOG_FILE,
    PROTOCOL,
    START_LOCK_FILE,
    Identity,
    ServiceState,
    held_lock,
    identity_of,
    lock_held,
    lock_holder,
    read_state,
)
from modelhub_tui.values import dataclass

ANSWER_S = 2.0
"""Longest wait for one answer of a service on this machine."""
STOP_S = 6.0
START_LOCK_S = 60.0
"""Longest wait for other programs that start the service at this moment."""
_POLL_S = 0.02
_LEAVING_S = 1.5


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """A running service."""

    pid: int
    url: str
    """Where others on this machine reach it; our own programs go through the socket in `folder`."""
    folder: Path
    key: str = field(repr=False)
    """For those others: our own programs send it nowhere."""
    version: str
    state_id: str
    log: Path
    hf_endpoint: str
    hub_cache: str
    notice: str = ""
    """One sentence when the service had to repair something at its start; else empty."""
    about_version: str = ""
    """One sentence when it is of another version than this program; else empty."""
    about_token: str = ""
    """One sentence when this program has an HF token that the service does not use; else empty."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What people should be told about it."""
        return tuple(each for each in (self.notice, self.about_version) if each)


def find_service(settings: Settings) -> ServiceInfo | None:
    """Return the service of this state folder if it is running and answers.

    Raises:
        ServiceFailed: The state folder or file belongs to another user.
    """
    found = _find(settings.state_dir)
    return _info(settings, found) if found else None


def silent_holder(settings: Settings) -> int | None:
    """The process that holds this state folder, for when no service answers there; None if nobody does.

    Raises:
        ServiceFailed: The folder cannot be used.
    """
    return lock_holder(settings.state_dir) if is_own_dir(settings.state_dir) else None


def ensure_service(settings: Settings, *, timeout_s: float = 15.0) -> ServiceInfo:
    """Return the running service, started in the background if there was none.

    A service that was started with other settings, or by an older version of this program, is replaced if nothing and
    nobody uses it. Otherwise an older one that speaks our protocol is good enough, and so is a newer one at any time:
    two programs must not take turns in replacing each other's.

    Raises:
        ServiceFailed: With a sentence that says what is wrong and what to do; among others that the service which runs
            is another's, with another hub or cache.
    """
    deadline = time.monotonic() + timeout_s
    prepare_dir(settings.state_dir)
    wanted = identity_of(settings, __version__)
    found = _find(settings.state_dir)
    if found is not None and _suits(found.identity, wanted):
        return _info(settings, found)
    # Only one starter at a time: fifty programs opened at once start one service, not fifty that race for the lock.
    with held_lock(settings.state_dir / START_LOCK_FILE, START_LOCK_S):
        # Somebody may be starting one by hand at this moment.
        found = _wait_for(settings.state_dir, deadline)
        if found is not None:
            if _suits(found.identity, wanted) or not _replace(settings, found, wanted):
                return _info(settings, found)
        elif (holder := lock_holder(settings.state_dir)) is not None:
            state = read_state(settings.state_dir)
            if state is not None and state.identity.protocol < PROTOCOL:
                # It has no socket, and where it listens somebody else may listen as well: it is not asked anything.
                raise ServiceFailed(
                    f"The service that runs here is modelhub {state.identity.version}, too old for this {__version__}.",
                    "Stop it with `modelhub stop`; its downloads resume.",
                )
            raise ServiceFailed(
                f"A modelhub service (process {holder}) holds {settings.state_dir} but does not answer.",
                "Stop it with `modelhub stop`, then try again.",
            )
        started = _start_by_systemd(settings, wanted, deadline) or _start(settings, deadline)
        if differs := _difference(started.identity, wanted):  # systemd's, or that of somebody who was faster
            raise ServiceFailed(f"The service was started {differs}.", _elsewhere(settings))
        return _info(settings, started)


def stop_service(settings: Settings) -> bool:
    """Stop the service and wait until it is gone; False if none was running.

    Raises:
        ServiceFailed: It cannot be stopped.
    """
    if not is_own_dir(settings.state_dir):
        return False
    found = _find(settings.state_dir)
    if found is None and not lock_held(settings.state_dir):
        return False
    if found is not None:
        with contextlib.suppress(OSError, ValueError):
            _ask(settings.state_dir, "POST", "/v0/service/stop")
    pid: int | None = None
    for sign in (None, signal.SIGTERM, signal.SIGKILL):
        if sign is not None:
            # Looked up each time: it may have gone since, and its number may be another's.
            pid = lock_holder(settings.state_dir)
            if pid is None:
                return True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
                os.kill(pid, signal.SIGCONT)  # a stopped process would never hear of it
        # Asked nicely it finishes its chunk within three seconds; a process that never answered is not asked.
        if (sign is not None or found is not None) and _wait_until_free(settings.state_dir, STOP_S):
            return True
    raise ServiceFailed(f"The modelhub service (process {pid}) does not stop.", f"End it with `kill -9 {pid}`.")


def serve(
    settings: Settings, *, host: str = "127.0.0.1", port: int = 0, foreground: bool = True, api_key: str | None = None
) -> int:
    """Run the service in this process until it is told to stop; returns the exit code.

    Args:
        port: 0 takes the port of last time, or any free one.
        foreground: Log to stderr too, and never exit for idleness (systemd, `modelhub serve`).
        api_key: The admin key; None keeps the state folder's own. Needed to listen beyond this machine.

    Raises:
        BadSettings: It would let other machines in without a key, or the key cannot be used.
        ServiceFailed: It cannot start: another one runs, the port is taken, the folder cannot be used.
    """
    from modelhub_tui.service.daemon import run

    return run(settings, host=host, port=port, foreground=foreground, api_key=api_key)


def _info(settings: Settings, state: ServiceState) -> ServiceInfo:
    return ServiceInfo(
        pid=state.pid,
        url=state.url,
        folder=settings.state_dir,
        key=state.key,
        version=state.identity.version,
        state_id=state.state_id,
        log=settings.state_dir / LOG_FILE,
        hf_endpoint=state.identity.hf_endpoint,
        hub_cache=state.identity.hub_cache,
        notice=state.notice,
        about_version=_about_version(state.identity.version),
        about_token=_about_token(state.identity.token, identity_of(settings, __version__).token),
    )


def _about_token(has: str, ours: str) -> str:
    """What to say of a service without our token, where a token matters; empty if it has the same, or we have none."""
    if not ours or has == ours:
        return ""
    how = "with another HF_TOKEN than this" if has else "without this HF_TOKEN"
    return f"The service was started {how}; `modelhub stop` lets the next command start it anew."


def _about_version(has: str) -> str:
    """What to say of a service of another version than this program; empty if it is the same."""
    if has == __version__:
        return ""
    if _newer(__version__, has):
        return f"The service is still modelhub {has}, not {__version__}; it is replaced once nothing uses it."
    return f"The service is modelhub {has}, newer than this program ({__version__}); update this one."


def _find(state_dir: Path) -> ServiceState | None:
    """The state of the service that answers now, through the socket that only a process of ours can have made."""
    if not is_own_dir(state_dir):
        return None
    state = read_state(state_dir)
    if state is None:
        return None
    try:
        status, body = _ask(state_dir, "GET", "/health")
        told = json.loads(body)
    except (OSError, ValueError, RecursionError):
        return None
    # Of this run: the file may be what an earlier one left.
    alive = status == 200 and isinstance(told, dict) and told.get("state_id") == state.state_id
    return state if alive else None


def _suits(has: Identity, wanted: Identity) -> bool:
    """True if this service is what somebody with these settings would start.

    One with any token will do: two programs with different ones would take turns.
    """
    return (
        not _newer(wanted.version, has.version)
        and has.protocol == wanted.protocol
        and not _difference(has, wanted)
        and bool(has.token or not wanted.token)
    )


def _difference(has: Identity, wanted: Identity) -> str:
    """What keeps two from being one service, to complete "The service was started"; empty if nothing does."""
    if has.hf_endpoint != wanted.hf_endpoint:
        return f"with the hub {has.hf_endpoint}, not {wanted.hf_endpoint}"
    return f"with its models in {has.hub_cache}, not {wanted.hub_cache}" if has.hub_cache != wanted.hub_cache else ""


def _newer(one: str, other: str) -> bool:
    """True if the first version is not the same as the second, nor before it."""
    return one != other and _numbers(one) >= _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a release; what follows them (`.dev3`, `rc1`) does not count."""
    return tuple(int(each) for each in re.match(r"[0-9]{0,9}(?:\.[0-9]{1,9})*", version)[0].split(".") if each)  # type: ignore[index]


def _replace(settings: Settings, found: ServiceState, wanted: Identity) -> bool:
    """Stop an unsuitable service if it is idle. False means: it is not, but good enough to go on with.

    Raises:
        ServiceFailed: It is in use and cannot be used with these settings, or it is too new for us.
    """
    has, differs = found.identity, _difference(found.identity, wanted)
    if has.protocol > wanted.protocol:
        # Its database may be too new for us as well: replacing it would leave this machine without a service.
        raise ServiceFailed(
            f"The service that runs here is modelhub {has.version}, too new for this {wanted.version}.",
            "Update this program, or choose another folder with MODELHUB_STATE_DIR.",
        )
    if differs and found.stays:
        raise ServiceFailed(f"The service was started to stay, {differs}.", _elsewhere(settings))
    why = _stop_if_idle(settings.state_dir)
    if not why:
        if _wait_until_free(settings.state_dir, STOP_S):
            return True
        raise ServiceFailed(f"The modelhub service (process {found.pid}) does not stop.", "Try `modelhub stop`.")
    if has.protocol == wanted.protocol and not differs:
        return False
    differs = differs or f"by modelhub {has.version}, not {wanted.version}"
    if why == "in_use":
        raise ServiceFailed(
            f"Another program uses the service, started {differs}.", f"Close that program first. {_elsewhere(settings)}"
        )
    todo = "Wait until its transfers are done, or stop it with `modelhub stop`; they resume later."
    raise ServiceFailed(f"The service is busy, started {differs}.", todo)


def _elsewhere(settings: Settings) -> str:
    """How a program gets a service of its own."""
    return f"Another folder than {settings.state_dir} in MODELHUB_STATE_DIR gives this program its own service."


def _stop_if_idle(state_dir: Path) -> str:
    """Have the service end unless it is needed: "" if it does, else `busy` or `in_use`."""
    deadline = time.monotonic() + _LEAVING_S
    while True:
        try:
            status, body = _ask(state_dir, "POST", "/v0/service/stop?if=idle")
        except (OSError, ValueError):
            return ""  # it is going down by itself
        if status in (200, 202):
            return ""
        # A program that has just ended may not be gone for the service yet.
        in_use = b'"in_use"' in body
        if not in_use or time.monotonic() > deadline:
            return "in_use" if in_use else "busy"
        time.sleep(_POLL_S)


def _start_by_systemd(settings: Settings, wanted: Identity, deadline: float) -> ServiceState | None:
    """Let systemd start its unit, where `modelhub service install` has made one; None if that cannot be."""
    from modelhub_tui.service import unit

    # A token of our environment would not reach it.
    if wanted.token or not unit.unit_path().is_file() or not unit.start_installed(settings):
        return None
    while (found := _find(settings.state_dir)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


def _start(settings: Settings, deadline: float) -> ServiceState:
    """Start the service detached and wait until it answers.

    Raises:
        BadSettings: A variable of the HuggingFace library cannot be used.
        ServiceFailed: With what the service itself said, or that it said nothing.
    """
    hf_env.check()
    log = settings.state_dir / LOG_FILE
    inherited = {name: value for name, value in os.environ.items() if name != "MODELHUB_CATALOG"}
    env = {**inherited, **child_env(settings, os.environ)}
    readable, writable = os.pipe()
    import subprocess  # most find a service that runs

    from modelhub_tui.service.logs import open_log

    try:
        try:
            output = open_log(log)
        except OSError as error:
            raise ServiceFailed(
                f"The log {log} cannot be written ({error.strerror}).", "Free some space or check its owner."
            ) from error
        try:
            # -P: the current folder must not be able to slip in a module of its own.
            command = [sys.executable, "-P", "-m", "modelhub_tui.service", "--ready-fd", str(writable)]
            process = subprocess.Popen(
                command,
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writable,),
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceFailed(f"The service cannot be started ({error.strerror}).") from error
        finally:
            os.close(output)
        os.close(writable)
        writable = -1
        told = _read_ready(readable, deadline)
    finally:
        os.close(readable)
        if writable >= 0:
            os.close(writable)
    # It is not our child to wait for: unless it has ended already, init will reap it. Do not warn about that.
    process.returncode = process.poll() or 0
    if "error" in told:
        found = _wait_for(settings.state_dir, deadline)
        if found is not None:  # somebody else was faster
            return found
        raise ServiceFailed(str(told["error"]), str(told.get("todo", "")))
    found = _wait_for(settings.state_dir, max(deadline, time.monotonic() + ANSWER_S))
    if found is None:
        raise ServiceFailed(
            "The service did not start in time." if told else "The service ended at once.", f"Its log is {log}."
        )
    return found


def _read_ready(fd: int, deadline: float) -> dict[str, object]:
    """What the starting service says: `{"ok": true}` or `{"error": ..., "todo": ...}`; {} if it ends."""
    said = b""
    while not said.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
            return {"late": True}
        chunk = os.read(fd, 65536)
        if not chunk:
            return {}
        said += chunk
    try:
        told = json.loads(said)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _wait_for(state_dir: Path, deadline: float) -> ServiceState | None:
    """The service that somebody is just starting, once it answers; None if it gives up or takes too long."""
    while True:
        found = _find(state_dir)
        if found is not None or time.monotonic() > deadline or not lock_held(state_dir):
            return found
        time.sleep(_POLL_S)


def _wait_until_free(state_dir: Path, timeout_s: float) -> bool:
    """True once no process holds the service lock."""
    deadline = time.monotonic() + timeout_s
    while lock_held(state_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _ask(state_dir: Path, method: str, path: str) -> tuple[int, bytes]:
    """One small HTTP exchange with this folder's service. `http.client` would cost the start 50 ms of imports.

    Raises:
        OSError: Nobody answers in time, or nobody of ours.
        ValueError: The answer is no HTTP.
    """
    deadline = time.monotonic() + 2 * ANSWER_S
    request = f"{method} {path} HTTP/1.1\r\nHost: {own_socket.HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with own_socket.connect(state_dir, ANSWER_S) as connection:
        connection.sendall(request.encode("ascii"))
        answer = bytearray()
        while chunk := connection.recv(65536):
            answer += chunk
            if len(answer) > 1 << 20 or time.monotonic() > deadline:
                raise ValueError("too long")
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    status = whole_number(words[1], 999) if len(words) > 1 and words[0].startswith(b"HTTP/1.") else None
    if status is None:
        raise ValueError("not HTTP")
    return status, body


__all__ = ["LOCK_FILE", "ServiceInfo", "ensure_service", "find_service", "serve", "silent_holder", "stop_service"]
