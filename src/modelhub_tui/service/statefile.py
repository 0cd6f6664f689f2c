"""The state folder: who may use it, which service lives in it, and how to find that one. Stdlib only.

`service.json` says where the running service listens for others, and with which key; our own programs come through
`service.sock` (see `own_socket`). `service.lock` is held, with flock, for as long as the process lives: the kernel lets
go of it however the process ends, so it never lies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, field, fields
from pathlib import Path

from modelhub_tui import locks
from modelhub_tui.config import Settings
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.identifiers import whole_number
from modelhub_tui.own_folder import cannot_use, check_owner
from modelhub_tui.small_files import NotAPlainFile, read_small
from modelhub_tui.values import dataclass

STATE_FILE, LOCK_FILE, START_LOCK_FILE, LOG_FILE, DATABASE = (
    "service.json",
    "service.lock",
    "start.lock",
    "service.log",
    "modelhub.db",
)
PROTOCOL = 2
"""Grows when an older client cannot speak to the service, or the reverse."""
_LIMIT_BYTES = 64 * 1024
_SAYS_S = 0.5
"""Longest wait for who has taken the lock to say so in it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a service was started with: two that differ in hub or cache cannot be one service.

    A catalog is no part of it: each program brings its own.
    """

    version: str
    protocol: int
    hf_endpoint: str
    hub_cache: str
    token: str = ""
    """Hash of the HF token in the environment; empty without one."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Contents of the state file."""

    pid: int
    url: str
    state_id: str
    """Random id of this run; `GET /health` tells the same."""
    identity: Identity
    key: str = field(repr=False)
    node_key: str = field(repr=False, default="")
    notice: str = ""
    """One sentence when something had to be repaired at start."""
    stays: bool = False
    """Started by hand or by systemd, to stay; else it comes and goes as programs need it."""


def identity_of(settings: Settings, version: str) -> Identity:
    """The identity that a service started with these settings has."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if token:
        import hashlib  # most have none

        token = hashlib.sha256(b"modelhub:" + token.encode(errors="surrogateescape")).hexdigest()[:32]
    return Identity(
        version=version,
        protocol=PROTOCOL,
        hf_endpoint=settings.hf_endpoint,
        hub_cache=str(settings.hub_cache),
        token=token,
    )


def read_state(state_dir: Path) -> ServiceState | None:
    """Read the state file; None if there is none, or nothing that could be one.

    Raises:
        ServiceFailed: It belongs to another user, others can write it, or it cannot be opened.
    """
    path = state_dir / STATE_FILE

    def nobody_elses(found: os.stat_result) -> None:
        check_owner(found.st_uid, path)
        if stat.S_IMODE(found.st_mode) & 0o022:
            # It says what runs here, so it must be nobody's but ours.
            raise ServiceFailed(f"{path} can be written by other users.", f"Look at it, then: chmod 600 {path}")

    try:
        raw = read_small(path, _LIMIT_BYTES, check=nobody_elses)
    except NotAPlainFile as error:
        if path.is_symlink():
            raise cannot_use(path, error) from error
        return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot_use(path, error) from error
    try:
        return _parse(json.loads(raw))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _parse(raw: object) -> ServiceState:
    if not isinstance(raw, dict):
        raise TypeError("no object")
    identity = Identity(**{each.name: raw["identity"][each.name] for each in fields(Identity)})
    state = ServiceState(
        identity=identity, **{each.name: raw[each.name] for each in fields(ServiceState) if each.name != "identity"}
    )
    texts = (state.url, state.state_id, state.key, state.node_key, state.notice, identity.version, identity.hf_endpoint)
    if not all(isinstance(each, str) for each in (*texts, identity.hub_cache, identity.token)):
        raise TypeError("a text is missing")
    if (
        type(state.stays) is not bool
        or type(state.pid) is not int
        or state.pid <= 0
        or not state.url.startswith("http://")
        or not state.key.isascii()
    ):
        raise ValueError("not a running service")
    return state


def write_state(state_dir: Path, state: ServiceState) -> None:
    """Replace the state file in one step; only we can read it.

    Raises:
        OSError: The folder cannot be written.
    """
    path = state_dir / STATE_FILE
    temporary = path.with_name(f".{STATE_FILE}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_state(state_dir: Path, state_id: str) -> None:
    """Remove the state file, if it is still the one of this run."""
    with contextlib.suppress(OSError, ServiceFailed):
        found = read_state(state_dir)
        if found is not None and found.state_id == state_id:
            (state_dir / STATE_FILE).unlink()


class Lock:
    """A lock on a file of the state folder; the file holds the holder's pid.

    An flock, or where the file system has none a file beside it that says who made it (see `locks`).

    Raises:
        ServiceFailed: The file cannot be opened, or is not ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._soft: locks.SoftLock | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise cannot_use(path, error) from error
        found = os.fstat(self._fd)
        try:
            check_owner(found.st_uid, path)
            if not stat.S_ISREG(found.st_mode):
                raise cannot_use(path, NotAPlainFile(path, "it is no regular file"))
        except ServiceFailed:
            self.close()
            raise

    def acquire(self) -> bool:
        """Take the lock; False if another process holds it."""
        if not self._take(fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        with contextlib.suppress(OSError):
            # The pid is for those who want to stop a holder that no longer answers. A full disk must not matter here.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)
        return True

    @property
    def held(self) -> bool:
        """True if another process holds it now."""
        if not self._take(fcntl.LOCK_SH | fcntl.LOCK_NB):
            return True
        if self._soft is not None:
            self._soft.release()
        else:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def _take(self, how: int) -> bool:
        try:
            taken = locks.flock(self._fd, how)
            if taken is None:
                self._soft = self._soft or locks.SoftLock(self._path.with_name(f"{self._path.name}.held"))
                taken = self._soft.acquire()
        except OSError as error:
            raise cannot_use(self._path, error) from error
        return taken

    def holder(self) -> int | None:
        """The process of ours that took the lock last and has it open still; None if that cannot be told.

        What the file says is no proof: the process may be gone, and its number another's.
        """
        said = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
        pid = whole_number(said) or 0
        return pid if pid > 0 and self._is_open_in(pid) else None

    def _is_open_in(self, pid: int) -> bool:
        process = Path(f"/proc/{pid}")
        if not Path("/proc/self/fd").is_dir():
            return True  # another system: there is no better word than the file's
        try:
            if process.stat().st_uid != os.geteuid():
                return False
            for each in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.path.samestat(each.stat(), os.fstat(self._fd)):
                        return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)
        if self._soft is not None:
            self._soft.release()


@contextlib.contextmanager
def held_lock(path: Path, timeout_s: float) -> Iterator[Lock]:
    """Hold a lock for the length of a `with`.

    Raises:
        ServiceFailed: Another process holds it all the time.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(Lock(path)) as lock:
        while not lock.acquire():
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"Another program has held {path} for {timeout_s:.0f} s.", "End that program, then try again."
                )
            time.sleep(0.01)
        yield lock


def lock_held(state_dir: Path) -> bool:
    """True while a process holds the service lock.

    Raises:
        ServiceFailed: The lock cannot be used.
    """
    if not os.path.lexists(state_dir / LOCK_FILE):
        return False
    with contextlib.closing(Lock(state_dir / LOCK_FILE)) as lock:
        return lock.held


def lock_holder(state_dir: Path) -> int | None:
    """The pid of our process that holds the service lock now; None if nobody does.

    Raises:
        ServiceFailed: The lock cannot be used, or who holds it is no process of ours that could be seen.
    """
    if not os.path.lexists(state_dir / LOCK_FILE):
        return None
    deadline = time.monotonic() + _SAYS_S
    with contextlib.closing(Lock(state_dir / LOCK_FILE)) as lock:
        while lock.held:
            found = lock.holder()
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"{state_dir / LOCK_FILE} is held by a process that cannot be seen from here.",
                    "Stop it where it runs, or choose another folder with MODELHUB_STATE_DIR.",
                )
            time.sleep(0.01)  # who has just taken it is about to say so
        return None
