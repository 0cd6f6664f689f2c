"""The state folder: who may use it, which service lives in it, and how to find that one. Stdlib only.

`service.json` says where the running service listens and with which key. `service.lock` is held, with flock, for as
long as the process lives: the kernel lets go of it however the process ends, so it never lies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, field, fields
from pathlib import Path

from modelhub_tui.config import Settings
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.identifiers import whole_number
from modelhub_tui.values import dataclass

STATE_FILE, LOCK_FILE, START_LOCK_FILE, LOG_FILE, DATABASE = (
    "service.json",
    "service.lock",
    "start.lock",
    "service.log",
    "modelhub.db",
)
PROTOCOL = 1
"""Grows when an older client cannot speak to the service, or the reverse."""
_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """What a service was started with: two different ones cannot be one service."""

    version: str
    protocol: int
    hf_endpoint: str
    hub_cache: str
    catalog: str = ""
    """The user's own catalog and its modification time; empty for the built-in one."""
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


def identity_of(settings: Settings, version: str) -> Identity:
    """The identity that a service started with these settings has."""
    catalog = ""
    if settings.catalog is not None:
        with contextlib.suppress(OSError):
            catalog = f"{settings.catalog.resolve()}@{settings.catalog.stat().st_mtime_ns}"
        catalog = catalog or str(settings.catalog)
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if token:
        import hashlib  # most have none

        token = hashlib.sha256(b"modelhub:" + token.encode(errors="surrogateescape")).hexdigest()[:32]
    return Identity(
        version=version,
        protocol=PROTOCOL,
        hf_endpoint=settings.hf_endpoint,
        hub_cache=str(settings.hub_cache),
        catalog=catalog,
        token=token,
    )


def prepare_dir(path: Path) -> None:
    """Make sure that the state folder exists, is ours, and is closed to others.

    Raises:
        ServiceFailed: With a sentence that says what to do.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise ServiceFailed(f"{path} is not a folder.", "Choose another one with MODELHUB_STATE_DIR.")
        check_owner(found.st_uid, path)
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise cannot_use(path, error) from error


def check_owner(uid: int, path: Path) -> None:
    """Refuse what belongs to another user: it could hand us to a service of theirs.

    Raises:
        ServiceFailed: It is not ours.
    """
    if uid != os.geteuid():
        raise ServiceFailed(f"{path} belongs to another user.", "Choose a folder of your own with MODELHUB_STATE_DIR.")


def cannot_use(path: Path, error: OSError) -> ServiceFailed:
    """Word why the state folder or a file in it cannot be used."""
    todo = "Choose another folder with MODELHUB_STATE_DIR."
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return ServiceFailed(f"The disk of {path} is full.", "Free some space, then try again.")
        case errno.EROFS:
            return ServiceFailed(f"{path} is on a read-only file system.", todo)
        case errno.EACCES | errno.EPERM:
            return ServiceFailed(f"No permission for {path}.", f"Change its owner or mode. {todo}")
        case errno.ENOTDIR | errno.EEXIST:
            return ServiceFailed(f"{path} is not a folder.", todo)
        case errno.ELOOP:
            return ServiceFailed(f"{path} is a symbolic link.", "Remove it, then try again.")
        case _:
            return ServiceFailed(f"{path} cannot be used ({error.strerror or error}).", todo)


def read_state(state_dir: Path) -> ServiceState | None:
    """Read the state file; None if there is none, or nothing that could be one.

    Raises:
        ServiceFailed: It belongs to another user, others can write it, or it cannot be opened.
    """
    path = state_dir / STATE_FILE
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot_use(path, error) from error
    try:
        found = os.fstat(fd)
        check_owner(found.st_uid, path)
        if not stat.S_ISREG(found.st_mode):
            return None
        if stat.S_IMODE(found.st_mode) & 0o022:
            # It says whom to trust with everything; so it must be nobody's but ours.
            raise ServiceFailed(f"{path} can be written by other users.", f"Look at it, then: chmod 600 {path}")
        raw = os.read(fd, _LIMIT)
    except OSError as error:
        raise cannot_use(path, error) from error
    finally:
        os.close(fd)
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
    if not all(isinstance(each, str) for each in (*texts, identity.hub_cache, identity.catalog, identity.token)):
        raise TypeError("a text is missing")
    if type(state.pid) is not int or state.pid <= 0 or not state.url.startswith("http://") or not state.key.isascii():
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
    """An flock on a file of the state folder; the file holds the holder's pid.

    Raises:
        ServiceFailed: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise cannot_use(path, error) from error

    def acquire(self, *, block: bool = False) -> bool:
        """Take the lock; False if another process holds it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            raise cannot_use(self._path, error) from error
        with contextlib.suppress(OSError):
            # The pid is for those who want to stop a holder that no longer answers. A full disk must not matter here.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)
        return True

    def holder(self) -> int | None:
        """The pid written by whoever took the lock last."""
        with contextlib.suppress(OSError):
            # 0 and negative numbers are whole groups of processes.
            return whole_number(os.pread(self._fd, 32, 0)) or None
        return None

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


@contextlib.contextmanager
def held_lock(path: Path) -> Iterator[Lock]:
    """Hold a lock for the length of a `with`, waiting for it as long as it takes."""
    lock = Lock(path)
    try:
        lock.acquire(block=True)
        yield lock
    finally:
        lock.close()


def lock_holder(state_dir: Path) -> int | None:
    """The pid of the process that holds the service lock now; None if nobody does."""
    if not (state_dir / LOCK_FILE).exists():
        return None
    lock = Lock(state_dir / LOCK_FILE)
    try:
        try:
            fcntl.flock(lock._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.holder()
        return None
    finally:
        lock.close()
