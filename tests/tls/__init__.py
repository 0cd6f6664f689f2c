"""Certificates for tests, made by `make.sh`."""

from __future__ import annotations

import ssl
from pathlib import Path

CA = Path(__file__).with_name("ca.pem")
"""Has signed the servers' certificates."""


def server_context(name: str = "server") -> ssl.SSLContext:
    """What a server on this machine speaks TLS with: `server`, `expired`, or `elsewhere` (made out to another name)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(CA.with_name(f"{name}.pem"))
    return made
