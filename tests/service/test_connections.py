"""Nobody who sends or takes half of something keeps the service's door from the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from modelhub_tui.service import connections
from modelhub_tui.service.connections import BoundedProtocol, Bounds, Dated

PATIENCE_S = 30.0
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = 64 * 1024 * 1024


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads all of the request, then answers with as much as the path says."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    size = BIG if scope["path"] == "/big" else 2
    if scope["path"] == "/late":
        await asyncio.sleep(0.7)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
    await send({"type": "http.response.body", "body": b"x" * size})


@asynccontextmanager
async def served(base: type) -> AsyncIterator[int]:
    """The port of a server with these bounds, on this loop."""
    bounded = type("Bounded", (Bounds, base), {})
    config = uvicorn.Config(app, port=0, http=bounded, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


async def gone(reader: asyncio.StreamReader) -> bytes:
    """All that is said until the other side hangs up."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def answer(reader: asyncio.StreamReader) -> bytes:
    """One small answer."""
    async with asyncio.timeout(PATIENCE_S):
        return await reader.readuntil(b"xx")


PROTOCOLS: list[type] = [H11Protocol]
with suppress(ImportError):
    # No dependency of ours, but uvicorn takes it where somebody has installed it.
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    PROTOCOLS.append(HttpToolsProtocol)
either = pytest.mark.parametrize("base", PROTOCOLS, ids=lambda base: base.__name__)


def test_the_service_uses_them() -> None:
    assert issubclass(BoundedProtocol, Bounds) and BoundedProtocol.__mro__.index(Bounds) == 1


HALVES = (
    b"",
    b"GET / HT",
    b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    WHOLE + b"GET / HTTP/1.1\r\nX-A: ",
)


@either
async def test_what_does_not_arrive_whole_is_cut_off(base: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    async with served(base) as port:

        async def say(half: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(half)
            if half.startswith(WHOLE):
                await answer(reader)
                writer.write(b"b")
            rest = await gone(reader)
            writer.close()
            return rest

        for half, rest in zip(HALVES, await asyncio.gather(*map(say, HALVES)), strict=True):
            assert b" 200 " not in rest, half


@either
async def test_a_byte_now_and_then_does_not_help(base: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.4)
    async with served(base) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"X-A: b\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await gone(reader) == b""
        dripping.cancel()
        writer.close()


@either
async def test_who_asks_in_time_is_answered_however_long_that_takes(
    base: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    async with served(base) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE.replace(b"/ ", b"/late ", 1))
        assert b" 200 " in await answer(reader)
        # The connection is good for another request, which may come in pieces.
        for piece in (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n", b"ab", b"cd"):
            writer.write(piece)
            await writer.drain()
        assert b" 200 " in await answer(reader)
        writer.close()


@either
async def test_an_endless_head_is_refused(base: type) -> None:
    async with served(base) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: bbbbbbbbbbbbbbbbbbbbbbbb\r\n" * 4000)
        assert b" 200 " not in await gone(reader)
        writer.close()


@either
async def test_who_takes_nothing_of_the_answer_is_cut_off(base: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_S", 0.2)
    async with served(base) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(WHOLE.replace(b"/ ", b"/big ", 1))
        await reader.read(1)
        await asyncio.sleep(0.6)  # what is tested is that nobody reads meanwhile
        assert len(await gone(reader)) < BIG
        writer.close()


@either
async def test_many_half_connections_do_not_lock_anybody_out(base: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    async with served(base) as port:
        asking, asked = await asyncio.open_connection("127.0.0.1", port)
        asked.write(WHOLE.replace(b"/ ", b"/late ", 1))
        await asked.drain()
        half = []
        for _ in range(60):
            half.append(await asyncio.open_connection("127.0.0.1", port))
            half[-1][1].write(b"GET / HT")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        assert b" 200 " in await answer(reader), "the newcomer gets in"
        assert b" 200 " in await answer(asking), "and who asked before is answered"
        assert await gone(half[0][0]) == b"", "the oldest half request had to go"
        for _, each in [*half, (reader, writer), (asking, asked)]:
            each.close()


async def test_answers_say_when_they_were_given() -> None:
    now = [0.0]
    told: list[bytes] = []

    async def send(message: Any) -> None:
        told.extend(value for name, value in message.get("headers", ()) if name == b"date")

    async def receive() -> dict[str, Any]:
        now[0] += 3600  # the answer is given an hour after the question
        return {"type": "http.request", "body": b""}

    for _ in range(2):
        await Dated(app, lambda: now[0])({"type": "http", "path": "/"}, receive, send)
    assert told == [b"Thu, 01 Jan 1970 01:00:00 GMT", b"Thu, 01 Jan 1970 02:00:00 GMT"]
