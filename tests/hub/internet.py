"""A network of its own for this process, in which any address is this machine's: a public hub, a private one, a cloud.

`python -m tests.hub.internet` (under `unshare -n`) tries every way in which a hub can lead a client somewhere else,
from a hub at each kind of address to a server at each kind, and prints what happened as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

COMMIT = "a" * 40
TOKEN = "hf_secretsecret"
HUBS = {"public": "93.184.216.34", "private": "10.1.2.3", "loopback": "127.0.0.1", "link": "169.254.7.7"}
TARGETS = {
    "public": ("93.184.216.35", "2606:2800:220:1::1"),
    "private": ("10.1.2.4", "192.168.7.7", "100.64.3.3", "fd00::5", "::ffff:10.1.2.4"),
    "loopback": ("127.0.0.1", "127.7.7.7", "::1", "::ffff:127.0.0.1"),
    "link": ("169.254.169.254", "100.100.100.200", "fd00:ec2::254"),
}


def set_up() -> None:
    """Take all the addresses, on the only interface there is."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in (*HUBS.values(), *(each for targets in TARGETS.values() for each in targets)):
        if not address.startswith(("127.", "::")):
            length = 128 if ":" in address else 32
            subprocess.run(["ip", "addr", "add", f"{address}/{length}", "dev", "lo", *_nodad(address)], check=True)


def _nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []


def main() -> None:
    """Set up, try everything, print."""
    set_up()
    os.environ["HF_TOKEN"] = TOKEN
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
    from modelhub_tui import net
    from modelhub_tui.hub_reach import reach_of
    from modelhub_tui.service.node.asking import open_range
    from modelhub_tui.service.node.hub import Hub as NodeHub
    from modelhub_tui.service.node.transport import HttpTransport
    from modelhub_tui.service.node.xet import XetTransport
    from modelhub_tui.service.router.hub import Hub
    from tests.hub.hostile import Asked, HostileHub, head

    def serve(asked: Asked) -> Iterable[bytes]:
        body = json.dumps({"id": "acme/x", "sha": COMMIT, "siblings": []}).encode()
        return [head(206, Content_Length=len(body), Content_Range=f"bytes 0-{len(body) - 1}/*"), body]

    leads_to = [""]

    def lead(asked: Asked) -> Iterable[bytes]:
        if "xet-read-token" in asked.path:
            said = json.dumps({"casUrl": leads_to[0], "accessToken": "x", "exp": 1 << 40}).encode()
            return [head(Content_Length=len(said)), said]
        return [head(307, Location=leads_to[0], Content_Length=0)]

    def api(url: str) -> None:
        Hub(url, sleep=lambda _: None).facts("acme/x", None)

    def content(url: str) -> None:
        open_range(_transport(url), NodeHub(url), f"{url}/acme/x/resolve/main/x.gguf", 0, 10).close()

    def signed(url: str) -> None:
        # The hub has been asked before: that is how its kind is known.
        _transport(url).open(f"{url}/", {}).close()
        open_range(_transport(url), NodeHub(url), f"{leads_to[0]}/signed?x=1", 0, 10).close()

    def route(url: str) -> None:
        XetTransport("a" * 64, 10, reach_of(url), connect_s=5, stall_s=5).open(f"{leads_to[0]}/route", {})

    def storage(url: str) -> None:
        _Stop.arm()
        XetTransport("a" * 64, 10, reach_of(url), connect_s=5, stall_s=5).open(f"{url}/xet-read-token/x", {})

    def _transport(url: str) -> HttpTransport:
        return HttpTransport(reach_of(url), connect_s=5, stall_s=5)

    found: list[dict[str, Any]] = []
    ways: tuple[Callable[[str], None], ...] = (api, content, signed, route, storage)
    for hub_kind, hub_address in HUBS.items():
        for target_kind, addresses in TARGETS.items():
            for address in addresses:
                mapped = address.removeprefix("::ffff:")
                with HostileHub(serve, mapped) as target, HostileHub(lead, hub_address) as hub:
                    leads_to[0] = target.url.replace(mapped, f"[{address}]") if mapped != address else target.url
                    for way in ways:
                        target.asked.clear()
                        error = _error(way, hub.url)
                        found.append(
                            {
                                "way": way.__name__,
                                "hub": hub_kind,
                                "target": target_kind,
                                "address": address,
                                "asked": len(target.asked) or _Stop.reached,
                                "token": any("authorization" in each.headers for each in target.asked),
                                "error": error,
                            }
                        )
                        _Stop.reached = 0
    # The hub's own name, moved.
    for way_name in ("api", "content", "statistics"):
        with HostileHub(serve, HUBS["public"]) as first:
            moved = HostileHub(serve, HUBS["private"])
            moved._listener.close()
            moved._listener = socket.create_server((HUBS["private"], first.port))
            with moved:
                address = [HUBS["public"]]
                _resolve("moving.example", address)
                name = f"http://{way_name}.moving.example:{first.port}"

                def ask(way_name: str = way_name, name: str = name) -> None:
                    if way_name == "api":
                        api(name)
                    elif way_name == "content":
                        content(name)
                    else:
                        asyncio.run(_get(net, reach_of(name), name))

                before = _error(ask)
                address[0] = HUBS["private"]
                from huggingface_hub.utils import close_session

                close_session()
                after = _error(ask)
                found.append(
                    {
                        "way": f"moved {way_name}",
                        "first": len(first.asked),
                        "asked": len(moved.asked),
                        "before": before,
                        "error": after,
                    }
                )
    json.dump(found, sys.stdout)


async def _get(net: Any, reach: Any, url: str) -> None:
    async with net.new_client(url, reach=reach) as http:
        await http.get(url)


def _error(work: Callable[..., None], *arguments: Any) -> str:
    try:
        work(*arguments)
    except Exception as error:
        return getattr(error, "reason", "") or str(error)
    return ""


def _resolve(domain: str, address: list[str]) -> None:
    """Let a name, and those below it, mean whatever `address` holds."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(host, bytes):
            host = host.decode()
        return real(address[0] if str(host).endswith(domain) else host, port, *arguments, **named)

    socket.getaddrinfo = look_up  # type: ignore[assignment]


class _Stop:
    """Stands where `hf_xet` would go out by itself: reaching it is what counts."""

    reached = 0

    @classmethod
    def arm(cls) -> None:
        class Library:
            def XetSession(self) -> Any:
                cls.reached = 1
                raise OSError("as far as we go")

        sys.modules["hf_xet"] = Library()  # type: ignore[assignment]


if __name__ == "__main__":
    main()
