"""Which proxy a request goes through: one reading of `HTTP(S)_PROXY`, `ALL_PROXY` and `NO_PROXY` for everybody.

The libraries each have a reading of their own: some know no networks in `NO_PROXY`, some no ports, and some cannot even
be made while it names an IPv6 network. So none of them reads the environment; each is told.
"""

from __future__ import annotations

import ipaddress
from dataclasses import field
from urllib.parse import unquote, urlsplit

from modelhub_tui.errors import NoWay
from modelhub_tui.identifiers import whole_number
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""Kinds of proxies that are understood, with the port of each unless another is named. Names are always resolved by the
proxy, also by `socks5`."""
_MAX_ENTRIES = 1000


class BadProxy(NoWay):
    """A proxy is named that cannot be used."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One to ask."""

    variable: str
    """Where it was named, such as `HTTPS_PROXY`."""
    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Without user and password: this may be shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_socks(self) -> bool:
        return self.scheme.startswith("socks")


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a request; None for a direct one. This machine is never asked through a proxy.

    Raises:
        BadProxy: One is named that is not understood, or needs a package that is not there.
    """
    from urllib.request import getproxies

    named = getproxies()
    at = urlsplit(url)
    variable = next((each for each in (at.scheme, "all") if named.get(each)), None)
    host = at.hostname or ""
    if variable is None or is_this_machine(host):
        return None
    if _is_excepted(named.get("no", ""), at.scheme, host, at.port or PORTS.get(at.scheme, 0)):
        return None
    return _parse(f"{variable.upper()}_PROXY", named[variable])


def _parse(variable: str, said: str) -> Proxy:
    said = said.strip()
    try:
        at = urlsplit(said if "://" in said else f"http://{said}")
        host, port = at.hostname or "", at.port
        if "@" in said.partition(at.netloc)[2]:
            raise ValueError("a password that is not percent-encoded")
    except ValueError:
        # Not `from`: the cause quotes what may be a password.
        raise BadProxy(f"{variable} is not understood: it is no address, such as http://proxy.example:3128.") from None
    scheme = at.scheme.lower()
    shown = clean(f"{scheme}://{at.netloc.rpartition('@')[2]}", 100)
    if scheme not in PORTS:
        kinds = ", ".join(f"{each}://" for each in PORTS)
        raise BadProxy(f"{variable}={shown} is not understood; a proxy begins with one of {kinds}.")
    if not host or not (host.isascii() and host.isprintable() and " " not in host):
        raise BadProxy(f"{variable}={shown} is not understood: it names no host.")
    made = Proxy(variable, scheme, host, port or PORTS[scheme], unquote(at.username or ""), unquote(at.password or ""))
    if made.is_socks:
        import importlib.util

        if importlib.util.find_spec("socksio") is None:
            todo = "install it with `pip install 'modelhub-tui[socks]'`"
            raise BadProxy(f"{variable}={made.url} is a SOCKS proxy, which needs the package socksio; {todo}.")
    return made


def _is_excepted(no_proxy: str, scheme: str, host: str, port: int) -> bool:
    """Whether `NO_PROXY` names a host: by name (then its subdomains too), address or network, perhaps with a port."""
    address = literal(host)
    name = host.rstrip(".").lower()
    for each in no_proxy.replace(",", " ").split()[:_MAX_ENTRIES]:
        only, _, entry = each.rpartition("://")
        if only and only.lower() not in (scheme, "all"):
            continue
        entry, entry_port = _without_port(entry.lower())
        if entry_port is not None and entry_port != port:
            continue
        if entry == "*":
            return True
        network = _network(entry)
        if network is not None:
            if address is not None and ipaddress.ip_address(address) in network:
                return True
        elif (domain := entry.removeprefix("*").strip(".")) and (name == domain or name.endswith(f".{domain}")):
            return True
    return False


def _without_port(entry: str) -> tuple[str, int | None]:
    """Take off the port: of `host:8443`, `10.0.0.1:80` and `[fd00::1]:80`, but not the end of a bare IPv6 address."""
    before, colon, after = entry.rpartition(":")
    if colon and (":" not in before or before.endswith("]")) and (port := whole_number(after)) is not None:
        return before, port
    return entry, None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def literal(host: str) -> str | None:
    """The address that a host's text stands for by itself; None for a name that has to be looked up.

    Also the forms that resolvers take and people do not see through: `2130706433`, `0x7f.1`, `0177.0.0.1`, full-width
    digits; and `localhost`, which is this machine by definition (RFC 6761).
    """
    import socket
    import unicodedata

    if not host.isascii():
        host = unicodedata.normalize("NFKC", host).replace("\u3002", ".")
    host = host.strip("[]").rstrip(".").partition("%")[0].lower()
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) if host and not host.isspace() else None
    except (OSError, UnicodeError, ValueError):
        return None


def is_this_machine(host: str) -> bool:
    """True for loopback addresses in any form, and for `localhost`."""
    address = literal(host)
    if address is None:
        return False
    at = ipaddress.ip_address(address)
    at = getattr(at, "ipv4_mapped", None) or at
    return at.is_loopback or at.is_unspecified
