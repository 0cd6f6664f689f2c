"""Folders of the cache, entered one name at a time and never through a link.

A path that was found to be inside may lead out a moment later, when somebody has put a link in the place of one of its
folders. An open folder stays the one that it was. So everything below a repo's folder is reached from there through
`Folder.enter()`, which refuses links, and is made, replaced and removed by its one name in an open folder.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from modelhub_tui.identifiers import OutsideError
from modelhub_tui.small_files import NotAPlainFile, read_small

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
PLAIN_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""To open what should be a file of ours: a link is refused, and a pipe does not make us wait."""
MAX_DEPTH = 600
"""Folders in folders that a walk goes down; a repo file has fewer."""
_MOST_OPEN = 64
"""Folders that a walk keeps open: so many levels it can go up again without starting anew at the top."""


class Folder:
    """An open folder. Use as a context manager, or close it."""

    def __init__(self, fd: int, path: Path) -> None:
        """Use `at` or `enter`. `path` is for messages."""
        self.fd, self.path = fd, path

    @classmethod
    def at(cls, path: Path) -> Folder:
        """Open a folder that may be, and may lie behind, a link: the cache, a repo's folder.

        Raises:
            OSError: It is not there, or no folder.
        """
        return cls(os.open(path, _OPEN), path)

    def enter(self, *names: str, make: bool = False) -> Folder:
        """Open a folder below this one.

        Args:
            make: Make what is missing on the way.

        Raises:
            OutsideError: Something on the way is a link.
            FileNotFoundError: It is not there, and `make` is false.
            OSError: It is no folder, or not ours to enter.
        """
        fd, path = os.dup(self.fd), self.path
        try:
            for name in names:
                path = path / name
                if name in ("", ".", "..") or "/" in name:
                    raise OutsideError(path)
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=fd)
                try:
                    inner = os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=fd)
                except OSError as error:
                    if _is_link(name, fd):
                        raise OutsideError(path) from error
                    error.filename = os.fspath(path)
                    raise
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        return Folder(fd, path)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def close(self) -> None:
        os.close(self.fd)

    def names(self) -> tuple[list[str], list[str]]:
        """What is in it: (folders, all the rest), sorted; a link to a folder is no folder."""
        folders: list[str] = []
        others: list[str] = []
        with os.scandir(self.fd) as entries:
            for each in entries:
                (folders if each.is_dir(follow_symlinks=False) else others).append(each.name)
        return sorted(folders), sorted(others)

    def walk(self) -> Iterator[tuple[tuple[str, ...], Folder, list[str]]]:
        """Go through this folder and all below it, each before those in it.

        Yields:
            (names from here to the folder, the folder, names in it that are no folders). It is closed by the walk.

        Raises:
            OSError: A folder cannot be read. One that is gone meanwhile is left out.
        """
        ahead: list[tuple[str, ...]] = [()]
        with Way(self) as way:
            while ahead:
                where = ahead.pop()
                try:
                    folder = way.to(where)
                except (FileNotFoundError, NotADirectoryError, OutsideError):
                    continue
                folders, others = folder.names()
                if len(where) < MAX_DEPTH:
                    ahead.extend((*where, name) for name in reversed(folders))
                yield where, folder, others

    def lstat(self, name: str) -> os.stat_result | None:
        """What is there under this name, a link as such; None for nothing."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_plain(self, name: str) -> bool:
        """Whether this is a regular file, and no link to one."""
        told = self.lstat(name)
        return told is not None and stat.S_ISREG(told.st_mode)

    def target(self, name: str) -> str | None:
        """Where a link leads, as it is written; None if this is no link."""
        try:
            return os.readlink(name, dir_fd=self.fd)
        except OSError:
            return None

    def read(self, name: str, limit_bytes: int) -> bytes:
        """As `read_small()`, of what is in this folder."""
        return read_small(Path(name), limit_bytes, dir_fd=self.fd)

    def open_file(self, name: str, mode: int) -> int:
        """Open a regular file for reading and writing, made if it is not there; its content is left as it is.

        Raises:
            OSError: It is a link, a pipe, a device or a folder.
        """
        fd = os.open(name, PLAIN_FLAGS | os.O_CREAT, mode, dir_fd=self.fd)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotAPlainFile(self.path / name, "it is no regular file")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def write(self, name: str, content: bytes, *, mode: int | None = None) -> None:
        """Make a file that was not there before, and write all of it.

        Args:
            mode: Its permissions, whatever the umask; None for what the umask allows.

        Raises:
            OSError: There is something of that name, or no room; then nothing is left of it.
        """
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=self.fd)
        try:
            with os.fdopen(fd, "wb") as file:
                if mode is not None:
                    os.fchmod(fd, mode)
                file.write(content)
        except OSError:
            self.unlink(name)
            raise

    def unlink(self, name: str) -> None:
        """Remove a file or a link, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def rmdir(self, name: str) -> bool:
        """Remove a folder if it is empty, and no link; returns whether it is gone."""
        try:
            os.rmdir(name, dir_fd=self.fd)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def rename(self, name: str, to: Folder, new: str) -> None:
        """Move a file or a link, in place of what is there."""
        os.replace(name, new, src_dir_fd=self.fd, dst_dir_fd=to.fd)

    def symlink(self, target: str, name: str) -> None:
        os.symlink(target, name, dir_fd=self.fd)

    def sync(self) -> None:
        """Make renames last over a power cut, where the file system can."""
        with contextlib.suppress(OSError):
            os.fsync(self.fd)


class Way:
    """The way from a folder to one far below it: what is open on it is not entered anew for the next one.

    So a walk costs the same for each folder, however deep they lie. Use as a context manager.
    """

    def __init__(self, top: Folder) -> None:
        self._top = top
        self._open: list[tuple[tuple[str, ...], Folder]] = []
        """Folders on the way to the last one, each in the one before it."""

    def to(self, where: tuple[str, ...]) -> Folder:
        """The folder at these names below the top, open until another is asked for. Raises as `Folder.enter()`."""
        while self._open and where[: len(self._open[-1][0])] != self._open[-1][0]:
            self._open.pop()[1].close()
        for depth in range(len(self._open[-1][0]) if self._open else 0, len(where)):
            inside = self._open[-1][1] if self._open else self._top
            self._open.append((where[: depth + 1], inside.enter(where[depth])))
            if len(self._open) > _MOST_OPEN:
                self._open.pop(0)[1].close()
        return self._open[-1][1] if self._open else self._top

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *_: object) -> None:
        for _where, folder in self._open:
            folder.close()
        self._open.clear()


def is_ours(fd: int) -> bool:
    """Whether this is a regular file without a second name, which might be that of somebody's own file."""
    told = os.fstat(fd)
    return stat.S_ISREG(told.st_mode) and told.st_nlink <= 1


def _is_link(name: str, fd: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False
