"""Places that are hard to write to, made without needing to be root: command lines to put before the service's."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

_MOUNT = 'mount {what} && exec "$@"'
# Root without these may write only where a mode lets its owner: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH.
_HUMBLE = (
    "import ctypes, os, sys; libc = ctypes.CDLL(None);"
    "[libc.prctl(24, each, 0, 0, 0) for each in (1, 2)]; os.execvp(sys.argv[1], sys.argv[1:])"
)


@functools.cache
def can_mount() -> bool:
    """Whether this user may make a mount namespace of its own here. Containers often forbid it."""
    try:
        asked = subprocess.run(
            ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"],
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def on_small_disk(folder: Path, size_bytes: int, *, inodes: int = 0) -> tuple[str, ...]:
    """`folder` is a file system of its own, of that size, for so many files (0: as many as you like). Look into it by
    `inside()`."""
    folder.mkdir(parents=True, exist_ok=True)
    return _mounted(f"-t tmpfs -o size={size_bytes},nr_inodes={inodes} none", folder)


def with_largest_file(size_bytes: int) -> tuple[str, ...]:
    """No file may grow beyond this, as by `ulimit -f`."""
    said = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {size_bytes}))"
    return (sys.executable, "-c", f"{said}; os.execvp(sys.argv[1], sys.argv[1:])")


def read_only(folder: Path) -> tuple[str, ...]:
    """`folder` is an empty, read-only file system."""
    folder.mkdir(parents=True, exist_ok=True)
    return _mounted("-t tmpfs -o size=64m,ro none", folder)


def _mounted(what: str, folder: Path) -> tuple[str, ...]:
    # The name of the shell stands in for the folder, so that no character of it is ever read as shell.
    return ("unshare", "-rm", "sh", "-c", _MOUNT.format(what=f'{what} "$0"'), str(folder))


def inside(pid: int, path: Path) -> Path:
    """`path` as that process sees it."""
    return Path(f"/proc/{pid}/root{path}")


def humble() -> tuple[str, ...]:
    """Permissions count, also for root."""
    return (sys.executable, "-c", _HUMBLE) if os.geteuid() == 0 else ()
