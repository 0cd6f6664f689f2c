"""Answers the upstream router's connection check: before it accepts a node, it asks it for its models.

Our own router does not ask, so nothing listens unless a registration was refused for that reason. Read-only, and tells
nothing but model names: the upstream protocol sends no credentials here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

_MAX_HEAD_BYTES = 16 * 1024
_HEAD_S = 5.0


class Probe:
    """A listener for `GET /v1/models` and `GET /health`."""

    def __init__(self, names: Callable[[], list[str]]) -> None:
        """`names` gives the models that are whole, at the moment of asking."""
        self._names = names
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> bool:
        """Listen; False if that address cannot be had."""
        if self._server is None:
            try:
                self._server = await asyncio.start_server(self._answer, host, port, limit=_MAX_HEAD_BYTES)
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whatever goes wrong is the caller's: it gets no answer.
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                asked = head.split(b"\r\n", 1)[0].split(b" ")
                path = asked[1].split(b"?", 1)[0] if len(asked) == 3 and asked[0] == b"GET" else b""
                status, body = "404 Not Found", b"{}"
                if path in (b"/v1/models", b"/health"):
                    models = [{"id": name, "object": "model"} for name in self._names()]
                    told = {"object": "list", "data": models} if path == b"/v1/models" else {"status": "ok"}
                    status, body = "200 OK", json.dumps(told).encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        writer.close()
