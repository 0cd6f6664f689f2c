"""A resolver that never answers: on `PYTHONPATH` of a process it keeps whoever looks up a name below `.invalid`."""

from __future__ import annotations

import socket
import time
from typing import Any

_real = socket.getaddrinfo


def _getaddrinfo(host: Any, *arguments: Any, **more: Any) -> Any:
    if (host.decode() if isinstance(host, bytes) else str(host)).endswith(".invalid"):
        time.sleep(3600)
    return _real(host, *arguments, **more)


socket.getaddrinfo = _getaddrinfo
