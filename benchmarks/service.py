"""The local service: when it is ready, how fast it answers, and the dashboard beside four transfers."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time

from tests.hub import HubRepo, LoopbackHub
from tests.tty.terminal import installed

from benchmarks.clients import ask
from benchmarks.lag import lags
from benchmarks.measure import Figures, Sandbox

KEY = "bench-0123456789abcdef"
HEADERS = {"X-API-Key": KEY}
CLIENTS, REQUESTS, TRANSFERS = 50, 20, 4
LOOKED_S = 6.0
"""How long the dashboard looks on while they run: they take half a minute."""


def service(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """Start to first answer, then many clients at once."""
    repos = [HubRepo(f"acme/Bench-{at}-GGUF", {f"bench-{at}.gguf": os.urandom(64 << 20)}) for at in range(TRANSFERS)]
    with LoopbackHub(repos) as hub:
        hub.throttle_bps = 8_000_000
        for number in range(runs):
            env = {
                **os.environ,
                **sandbox.env(),
                **hub.env(),
                "MODELHUB_STATE_DIR": str(sandbox.folder / f"s{number}"),
                "MODELHUB_API_KEY": KEY,
                "MODELHUB_PARALLEL_TRANSFERS": str(TRANSFERS),
            }
            port = _free_port()
            begin = time.monotonic()
            process = subprocess.Popen(
                [str(installed()), "serve", "--port", str(port)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                _wait_until_ready(port, process)
                figures.add("service ready", "s", time.monotonic() - begin, budget="<= 0.6")
                if number == 0:
                    for repo in repos:
                        _register(port, repo.id)
                    for took_ms in ask(port, KEY, CLIENTS, REQUESTS):
                        figures.add(f"GET /v0/models, {CLIENTS} clients", "ms", took_ms, budget="p99 <= 25")
                    for late_ms in lags(LOOKED_S, {**env, "MODELHUB_ROUTER": f"http://127.0.0.1:{port}"}):
                        figures.add(f"dashboard's loop, {TRANSFERS} transfers", "ms", late_ms, budget="p99 <= 10")
            finally:
                process.terminate()
                process.wait(30)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError("the service did not start")


def _register(port: int, repo: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"repo": repo})
    connection.request("POST", "/v0/models/register", body, {"Content-Type": "application/json", **HEADERS})
    answer = connection.getresponse()
    if answer.status >= 300:
        raise RuntimeError(f"{repo} was not registered: {answer.read()[:300]!r}")
