"""The upstream router's four generations on 127.0.0.1, and servers that are no router: for tests.

State machines on real loopback HTTP servers. In a test::

    with FakeG2() as router:
        node = router.add_node("gpu-01")                 # there already; POST /v0/nodes does the real thing
        router.progress(node, "acme/tiny-gguf", 10, 100) # a heartbeat that reports on a file
        router.clock.advance(91)                         # nobody heard of the node: it is offline
        client = await open_router(router.url, Credentials(router.admin_key, None))

Credentials: `admin_key`, `api_key` and more keys; `admin` and `viewer` are users, `jwt(user)` logs one in;
`auth.add_user/add_key` make more; `expire_tokens()` ages all tokens. `hf` is the HuggingFace the router asks
(`hf.add(Repo(...))`, `hf.down`). G3, G4: `add_node(name, software)` adds an endpoint, `backend(endpoint).models` is
what its software really has, `sync(endpoint)` re-reads it, `run_task(task)` finishes a download (G4). G1, G2:
`restart()`. `requests` is the log; `intercept` answers instead of the fake; `down()`/`up()` keep the port.
"""

from __future__ import annotations

from tests.routers.base import Clock, Request, Response
from tests.routers.g1g2 import FakeG1, FakeG2
from tests.routers.g3 import FakeG3
from tests.routers.g4 import FakeG4
from tests.routers.hf import HuggingFace, Repo
from tests.routers.hostile import dying, hanging, huge, login_proxy, lying, ollama, web_page

__all__ = [
    "Clock",
    "FakeG1",
    "FakeG2",
    "FakeG3",
    "FakeG4",
    "HuggingFace",
    "Repo",
    "Request",
    "Response",
    "dying",
    "hanging",
    "huge",
    "login_proxy",
    "lying",
    "ollama",
    "web_page",
]
