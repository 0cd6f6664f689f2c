"""Ways through a proxy, over a socket that is connected to it: `CONNECT` of HTTP, and SOCKS5."""

from __future__ import annotations

import base64
import socket
from typing import Any

from modelhub_tui.proxies import BadProxy, Proxy
from modelhub_tui.untrusted import clean

_MOST_BYTES = 64 * 1024


def login(proxy: Proxy) -> dict[str, str]:
    """The header that tells an HTTP proxy who asks, if it wants to know."""
    if not proxy.user:
        return {}
    said = f"{proxy.user}:{proxy.password}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(said).decode()}


def through_http(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Ask for a way to a server. The server waits for us to speak, so nothing of its own comes with the answer.

    Raises:
        BadProxy: This proxy gives none.
        OSError: It does not answer.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", *(f"{name}: {said}" for name, said in login(proxy).items())]
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        block = sock.recv(4096)
        answer += block
        if not block or len(answer) > _MOST_BYTES:
            raise ConnectionError(f"the proxy {proxy.url} does not answer as a proxy does")
    first = answer.partition(b"\r\n")[0].decode("latin-1")
    if not first.startswith("HTTP/1.") or first.split(" ")[1:2] != ["200"]:
        raise BadProxy(f"The proxy {proxy.url} of {proxy.variable} gives no way to {where} ({clean(first, 80)}).")


def through_socks(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Ask for a way to a server, which the proxy looks up.

    Raises:
        BadProxy: This proxy gives none.
        OSError: It does not answer.
    """
    from socksio import ProtocolError, socks5

    method = socks5.SOCKS5AuthMethod.USERNAME_PASSWORD if proxy.user else socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED
    talk = socks5.SOCKS5Connection()
    try:
        chosen = _exchange(sock, talk, socks5.SOCKS5AuthMethodsRequest([method]))
        if chosen.method != method:
            raise BadProxy(f"The proxy {proxy.url} of {proxy.variable} wants another kind of login.")
        if proxy.user:
            said = socks5.SOCKS5UsernamePasswordRequest(proxy.user.encode(), proxy.password.encode())
            if not _exchange(sock, talk, said).success:
                raise BadProxy(f"The proxy {proxy.url} of {proxy.variable} does not take its user and password.")
        asked = socks5.SOCKS5CommandRequest.from_address(socks5.SOCKS5Command.CONNECT, (host, port))
        given = _exchange(sock, talk, asked).reply_code
    except ProtocolError as error:
        raise ConnectionError(f"the proxy {proxy.url} does not speak SOCKS5") from error
    if given != socks5.SOCKS5ReplyCode.SUCCEEDED:
        why = given.name.replace("_", " ").lower()
        raise ConnectionError(f"the proxy {proxy.url} gives no way to {clean(host, 100)}: {why}")


def _exchange(sock: socket.socket, talk: Any, message: Any) -> Any:
    talk.send(message)
    sock.sendall(talk.data_to_send())
    block = sock.recv(4096)
    if not block:
        raise ConnectionError("the proxy has hung up")
    return talk.receive_data(block)
