"""Many clients of one router in one process of their own: `python -m benchmarks.clients PORT KEY CLIENTS REQUESTS`.

They share no interpreter with the hub, whose threads would hold them up, and none with each other's threads: what is
timed is the service. Each keeps its connection and asks four times a second; all have connected before any asks.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

_GAP_S = 0.25


def ask(port: int, key: str, clients: int, requests: int) -> list[float]:
    """Milliseconds that each `GET /v0/models` took, from a process started for it."""
    argv = [sys.executable, "-m", "benchmarks.clients", str(port), key, str(clients), str(requests)]
    said = subprocess.run(argv, check=True, capture_output=True, cwd=Path(__file__).parents[1], timeout=120)
    return [float(each) for each in json.loads(said.stdout)]


async def _all(port: int, key: str, clients: int, requests: int) -> list[float]:
    connections = [await asyncio.open_connection("127.0.0.1", port, limit=1 << 24) for _ in range(clients)]
    question = f"GET /v0/models HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {key}\r\n\r\n".encode()
    took_ms: list[float] = []

    async def client(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(number / clients * _GAP_S)
        for _ in range(requests):
            begin = time.monotonic()
            writer.write(question)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 200 "):
                raise RuntimeError(f"the service answered {head[:60]!r}")
            await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            took_ms.append((time.monotonic() - begin) * 1000)
            await asyncio.sleep(_GAP_S)
        writer.close()

    await asyncio.gather(*(client(number, *each) for number, each in enumerate(connections)))
    return took_ms


if __name__ == "__main__":
    gc.disable()  # a pause of the client is no time of the service
    json.dump(asyncio.run(_all(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))), sys.stdout)
