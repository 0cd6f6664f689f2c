"""Where a hub may lead us. One function decides, about the address that a connection really has.

A hub names other hosts all the time: redirects, signed addresses, storage. None of them may be a way to reach, from
this machine, what the hub itself could not reach: services of the local network or of this machine, and the addresses
at which clouds hand out their keys. A name proves nothing (its owner may let it mean 127.0.0.1 a second later), so the
connection is made first, and its peer is looked at before a byte is sent.

Through a proxy the peer is the proxy, which resolves names itself. There only what stands in the address is known: an
address in any of its forms is checked, a name is not, and a hub that is known by name only counts as a public one.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from enum import IntEnum
from functools import cache
from urllib.parse import urlsplit

from modelhub_tui.errors import NoWay
from modelhub_tui.proxies import literal, proxy_for
from modelhub_tui.untrusted import clean


class LeadsAstray(NoWay):
    """A hub leads to an address that it may not lead to."""


class Kind(IntEnum):
    """How close an address is; the further away, the smaller."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    LINK_LOCAL = 3
    """Of one cable only; also what is like it: cloud metadata at other addresses, multicast."""


_MAY = {
    Kind.PUBLIC: {Kind.PUBLIC},
    Kind.PRIVATE: {Kind.PUBLIC, Kind.PRIVATE},
    Kind.LOOPBACK: {Kind.PUBLIC, Kind.PRIVATE, Kind.LOOPBACK},
    Kind.LINK_LOCAL: {Kind.PUBLIC, Kind.PRIVATE, Kind.LINK_LOCAL},
}
"""Where a hub of each kind may lead."""
_WORDS = {
    Kind.PUBLIC: "a public address",
    Kind.PRIVATE: "an address of a private network",
    Kind.LOOPBACK: "an address of this machine itself",
    Kind.LINK_LOCAL: "an address for this network link or for a cloud's metadata",
}
_LIKE_LINK_LOCAL = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "ff00::/8", "255.255.255.255/32"),
        # Metadata of Alibaba Cloud, Oracle Cloud, Azure, AWS and Google Cloud.
        *("100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/32"),
    )
)
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""NAT64 and IPv4-compatible: the last 32 bits are an IPv4 address."""
_HERE = ipaddress.ip_network("0.0.0.0/8")
_LOCAL_NAT64, _SITE = ipaddress.ip_network("64:ff9b:1::/48"), ipaddress.ip_network("fec0::/10")


def kind(address: str) -> Kind:
    """How close an IPv4 or IPv6 address is; one with another inside it is as close as the closer of the two.

    Raises:
        ValueError: It is no address.
    """
    at = ipaddress.ip_address(address.partition("%")[0])
    if any(at in each for each in _LIKE_LINK_LOCAL):
        return Kind.LINK_LOCAL
    if at.is_loopback or at.is_unspecified or at in _HERE:
        return Kind.LOOPBACK
    if isinstance(at, ipaddress.IPv6Address):
        last = str(ipaddress.IPv4Address(int(at) & 0xFFFFFFFF))
        if at.ipv4_mapped or any(at in each for each in _TRANSLATED):
            return kind(last)
        if at.sixtofour:
            return kind(str(at.sixtofour))
        if at.teredo:
            return max(kind(str(each)) for each in at.teredo)
        own = Kind.PUBLIC if at.is_global and at not in _SITE else Kind.PRIVATE
        isatap = (int(at) >> 32) & 0xFFFFFFFF in (0x00005EFE, 0x02005EFE)
        return max(own, kind(last)) if isatap or at in _LOCAL_NAT64 else own
    return Kind.PUBLIC if at.is_global else Kind.PRIVATE


class Reach:
    """One hub, and where it may lead. Safe to use from several threads.

    What the hub itself is, its connections tell. Once it was seen at a public address it stays a public one until this
    process ends: else its owner could move its name into our network, and lead us wherever he likes there.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._host = (urlsplit(endpoint).hostname or "").lower()
        at = literal(self._host)
        self._kind = None if at is None else kind(at)
        self._lock = threading.Lock()

    def check(self, host: str, address: str) -> None:
        """Look at where a connection for `host` has ended up.

        Raises:
            LeadsAstray: The hub may not lead there.
        """
        there = kind(address)
        with self._lock:
            if host.lower() == self._host:
                self._kind = there if self._kind is None else min(self._kind, there)
            hub = self._kind
        if hub is None:
            hub = self._look_up()
        if there not in _MAY[hub]:
            named = clean(host, 120) if host == address else f"{clean(host, 120)} ({clean(address, 60)})"
            raise LeadsAstray(
                f"The hub {clean(self._host, 120)} leads to {named}, {_WORDS[there]}; "
                f"a hub at {_WORDS[hub]} may not do that."
            )

    def check_text(self, host: str) -> None:
        """Look at a host that a proxy is going to resolve: all that can be known is an address in the text.

        Raises:
            LeadsAstray: The hub may not lead there.
        """
        address = literal(host)
        if address is not None:
            self.check(host, address)

    def check_name(self, host: str) -> None:
        """Look up a host that somebody else is going to connect to, and check all its addresses.

        Raises:
            LeadsAstray: The hub may not lead to one of them.
            OSError: It is not found.
        """
        try:
            told = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{clean(host, 60)} is no host's name") from error
        for found in told:
            self.check(host, str(found[4][0]))

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Connect directly; nothing is sent before the peer was looked at.

        Raises:
            LeadsAstray: The hub may not lead there.
            OSError: Nobody answers.
        """
        try:
            made = socket.create_connection((host, port), timeout_s)
        except UnicodeError as error:
            raise OSError(f"{clean(host, 60)} is no host's name") from error
        try:
            self.check(host, str(made.getpeername()[0]))
        except BaseException:
            made.close()
            raise
        return made

    def _look_up(self) -> Kind:
        """The kind of a hub that nobody connected to yet: that of its furthest address, and public if none is known."""
        if proxy_for(self._endpoint) is None:
            try:
                found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
                return min(kind(str(each[4][0])) for each in found)
            except (OSError, ValueError, UnicodeError):
                pass
        return Kind.PUBLIC


@cache
def reach_of(endpoint: str) -> Reach:
    """What this process knows of a hub, shared by everything that asks it."""
    return Reach(endpoint.rstrip("/"))
