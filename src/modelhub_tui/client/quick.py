"""One look at a service on this machine, by its socket: no event loop, no HTTP library, a few milliseconds.

`modelhub list` is over before either would be imported. Whatever is not simple is left to `V0Client`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelhub_tui import own_socket
from modelhub_tui.client import wire
from modelhub_tui.domain import RouterReport
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.untrusted import clean

TIMEOUT_S = 5.0
BODY_LIMIT = 64 * 1024 * 1024


class NotSimpleError(Exception):
    """This exchange needs the whole client, which also knows what to say about it."""


def report(folder: Path, headers: Mapping[str, str] | None = None) -> RouterReport:
    """Ask a service for its models and nodes once.

    Args:
        folder: The state folder that its socket lies in.
        headers: Sent with each request.

    Raises:
        NotSimpleError: Any answer but the two plain lists.
    """
    try:
        told, body = _get(folder, "/v0/models", headers)
        of_models, of_nodes = wire.models_reader(), wire.nodes_reader()
        models = of_models.read(body)
        nodes = of_nodes.read(_get(folder, "/v0/nodes", headers)[1])
    except (OSError, ValueError, ServiceFailed) as error:
        raise NotSimpleError from error
    said = (each.partition(b":")[2] for each in told if each.lower().startswith(b"x-modelhub-unheard:"))
    notices = tuple(filter(None, (of_models.notice, of_nodes.notice)))
    return RouterReport(models, nodes, notices, unheard=clean(next(said, b"").decode("ascii", "replace"), 300))


def _get(folder: Path, path: str, more: Mapping[str, str] | None) -> tuple[list[bytes], bytes]:
    """The header lines and the body of a plain 200 answer.

    Raises:
        OSError: Nobody answers in time, or nobody of ours.
        ValueError: Any other answer.
    """
    with own_socket.connect(folder, TIMEOUT_S) as connection:
        sent = {"Host": own_socket.HOST, "Connection": "close", **(more or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        connection.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("ascii"))
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
