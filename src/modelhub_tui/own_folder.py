"""The state folder as a place of our own: nobody else put it there, and nobody else gets in. Stdlib only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelhub_tui.errors import ServiceFailed
from modelhub_tui.small_files import NotAPlainFile, read_small
from modelhub_tui.untrusted import clean

_PRIVATE_LIMIT_BYTES = 1_000_000
_MOST_LINKS = 40
_CHOOSE = "Choose a folder of your own with MODELHUB_STATE_DIR."


def prepare_dir(path: Path) -> None:
    """Make sure that the state folder exists, is ours, and is closed to others.

    Raises:
        ServiceFailed: With a sentence that says what to do.
    """
    try:
        real = _without_links(path)
        real.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close(real, path)
    except OSError as error:
        raise cannot_use(path, error) from error


def is_own_dir(path: Path) -> bool:
    """True if there is a state folder of ours, now closed to others; makes none.

    Raises:
        ServiceFailed: It belongs to another user, or a link of theirs leads there.
    """
    try:
        _close(_without_links(path), path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise cannot_use(path, error) from error
    return True


def _close(real: Path, path: Path) -> None:
    """Shut others out of a folder that is to be ours; `path` is how it is called."""
    # What is looked at is what is changed: nobody can put something else in its place in between.
    fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        check_owner(found.st_uid, path)
        if found.st_mode & stat.S_ISVTX:
            raise ServiceFailed(f"{path} is shared by all users.", _CHOOSE)
        if found.st_mode & 0o077:
            os.fchmod(fd, 0o700)
        _nobody_elses(fd, path)
    finally:
        os.close(fd)


def _nobody_elses(fd: int, path: Path) -> None:
    """Refuse what another user has put into a folder that was open to them: a log, a database, a link to elsewhere.

    A socket holds nothing, and who listens at its other end is asked of the kernel; see `own_socket`.
    """
    for name in os.listdir(fd):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISSOCK(found.st_mode):
                check_owner(found.st_uid, path / clean(name, 100))


def _without_links(path: Path) -> Path:
    """Where a path leads, through links of our own and of the system's only; what is not there yet stays as it is.

    Raises:
        ServiceFailed: Another user made a link on the way: they choose where it leads, today and tomorrow.
        OSError: The way leads through a file, or round in circles.
    """
    links = 0
    at, left = Path(path.anchor), [*path.parts[1:]]
    while left:
        name = left.pop(0)
        if name == "..":
            at = at.parent
            continue
        step = at / name
        try:
            found = step.lstat()
        except FileNotFoundError:
            return step.joinpath(*left)
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        links += 1
        if found.st_uid not in (0, os.geteuid()):
            raise ServiceFailed(f"{step}, on the way to {path}, is another user's link.", _CHOOSE)
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = step.readlink()
        if target.is_absolute():
            at = Path(target.anchor)
        left[:0] = target.parts[1:] if target.is_absolute() else target.parts
    return at


def check_owner(uid: int, path: Path) -> None:
    """Refuse what belongs to another user: it could hand us to a service of theirs.

    Raises:
        ServiceFailed: It is not ours.
    """
    if uid != os.geteuid():
        raise ServiceFailed(f"{path} belongs to another user.", _CHOOSE)


def cannot_use(path: Path, error: OSError) -> ServiceFailed:
    """Word why the state folder or a file in it cannot be used."""
    todo = "Choose another folder with MODELHUB_STATE_DIR."
    if isinstance(error, NotAPlainFile):
        return ServiceFailed(f"{path} cannot be used: {error.strerror}.", "Remove it, then try again.")
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


def read_private(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file that is ours alone; empty if it is not, or says nothing."""

    def ours_alone(found: os.stat_result) -> None:
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise NotAPlainFile(path, "others have a part in it")

    try:
        told = json.loads(read_small(path, _PRIVATE_LIMIT_BYTES, check=ours_alone))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def write_private(path: Path, told: Mapping[str, Any]) -> None:
    """Write a JSON object to a file that only we can read, in a folder of our own, whole or not at all.

    Raises:
        ServiceFailed: The folder is not ours alone.
        OSError: It cannot be written.
    """
    prepare_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
