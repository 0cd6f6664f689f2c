"""A file system without flock, for every process that has this folder in PYTHONPATH and is told which error that is."""

from __future__ import annotations

import errno
import fcntl
import os

if said := os.environ.get("MODELHUB_TEST_NO_FLOCK"):

    def flock(fd: int, operation: int) -> None:
        raise OSError(getattr(errno, said), os.strerror(getattr(errno, said)))

    fcntl.flock = flock
