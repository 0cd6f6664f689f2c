"""One look at a service on this machine, by plain socket: no event loop, no HTTP library, a few milliseconds.

`modelhub list` is over before either would be imported. Whatever is not simple is left to `V0Client`.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from modelhub_tui.client import wire
from modelhub_tui.domain import RouterReport
from modelhub_tui.untrusted import clean

TIMEOUT_S = 5.0
BODY_LIMIT = 64 * 1024 * 1024


class NotSimpleError(Exception):
    """This exchange needs the whole client, which also knows what to say about it."""


def report(url: str, api_key: str) -> RouterReport:
    """Ask a service for its models and nodes once.

    Args:
        url: `http://` and an address of this machine.

    Raises:
        NotSimpleError: Any answer but the two plain lists.
    """
    try:
        headers, body = _get(url, "/v0/models", api_key)
        models = wire.models_reader().read(body)
        nodes = wire.nodes_reader().read(_get(url, "/v0/nodes", api_key)[1])
    except (OSError, ValueError) as error:
        raise NotSimpleError from error
    said = (each.partition(b":")[2] for each in headers if each.lower().startswith(b"x-modelhub-unheard:"))
    return RouterReport(models, nodes, unheard=clean(next(said, b"").decode("ascii", "replace"), 300))


def _get(url: str, path: str, api_key: str) -> tuple[list[bytes], bytes]:
    """The header lines and the body of a plain 200 answer.

    Raises:
        OSError: Nobody answers in time.
        ValueError: Any other answer.
    """
    where = urlsplit(url)
    if where.scheme != "http" or not where.hostname or not where.port:
        raise ValueError("not a plain address")
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("not a plain key")
    head = f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {api_key}\r\n"
    # As bytes: text is taken for a name in any language, and the codec for those takes as long as the exchange.
    address: Any = (where.hostname.encode("ascii"), where.port)
    with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode("ascii"))
        chunks: list[bytes] = []
        size = 0
        while chunk := connection.recv(1 << 18):
            chunks.append(chunk)
            size += len(chunk)
            if size > BODY_LIMIT:
                raise ValueError("too large")
    told, _, body = b"".join(chunks).partition(b"\r\n\r\n")
    first, *headers = told.split(b"\r\n")
    lengths = [each for each in headers if each.lower().startswith(b"content-length:")]
    if first.split()[1:2] != [b"200"] or [each.split(b":")[1].strip() for each in lengths] != [b"%d" % len(body)]:
        raise ValueError("not a plain answer")
    return headers, body
