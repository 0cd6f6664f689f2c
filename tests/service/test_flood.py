"""A flood of connections without a key, from other processes: it takes a bounded share, and nobody else is shut out."""

from __future__ import annotations

import http.client
import resource
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from modelhub_tui.config import Settings
from modelhub_tui.service.connections import ACCEPTED_AT_ONCE, MAX_CONNECTIONS
from modelhub_tui.service.lifecycle import find_service
from tests.service.test_lifecycle import PATIENCE_S, ask, settings, start

__all__ = ["settings"]
FLOODERS, EACH = 3, 8_000
FLOOD = """
import resource, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
port, each, asks = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "asks"
kept = []
for _ in range(each):
    connection = socket.socket()
    connection.settimeout(1)
    try:
        connection.connect(("127.0.0.1", port))
        if asks:
            connection.sendall(b"GET /v0/models HTTP/1.1\\r\\nHost: 127.0.0.1:%d\\r\\n\\r\\n" % port)
        kept.append(connection)
    except OSError:
        connection.close()
    if len(kept) > 1500:
        kept.pop(0).close()
"""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as allowed, for the service too: what bounds them must be the service itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("how", ["holds", "asks"])
def test_a_flood_of_reconnects_shuts_nobody_out(settings: Settings, how: str) -> None:
    info = start(settings)
    process = psutil.Process(info.pid)
    before = process.num_fds()
    port = int(info.url.rsplit(":", 1)[1])
    known = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

    def by_the_kept_connection() -> int:
        known.request("GET", "/v0/nodes", headers={"Authorization": f"Bearer {info.key}"})
        with known.getresponse() as answer:
            answer.read()
            return answer.status

    assert by_the_kept_connection() == 200
    line = known.sock
    command = [sys.executable, "-I", "-c", FLOOD, str(port), str(EACH), how]
    flood = [subprocess.Popen(command) for _ in range(FLOODERS)]
    rounds, most = 0, before
    try:
        while any(each.poll() is None for each in flood):
            most = max(most, process.num_fds())
            found = find_service(settings)
            assert found is not None and found.pid == info.pid
            assert ask(info, "/health")["status"] == "ok"
            assert by_the_kept_connection() == 200
            rounds += 1
    finally:
        for each in flood:
            each.kill()
            each.wait()
    assert rounds > 1
    assert known.sock is line, "who has shown a key keeps their connection while others make way"
    # Those just taken and those just closing come on top of the limit, a few rounds of them.
    assert most <= before + MAX_CONNECTIONS + 8 * ACCEPTED_AT_ONCE
