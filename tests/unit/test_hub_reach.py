"""Where a hub may lead: decided by addresses, in every form that an address has."""

from __future__ import annotations

import pytest

from modelhub_tui.hub_reach import Kind, LeadsAstray, Reach, kind

PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL = Kind.PUBLIC, Kind.PRIVATE, Kind.LOOPBACK, Kind.LINK_LOCAL
HUBS = {PUBLIC: "93.184.216.34", PRIVATE: "10.1.2.3", LOOPBACK: "127.0.0.1", LINK_LOCAL: "169.254.7.7"}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", PUBLIC),
        ("2606:2800:220:1::1", PUBLIC),
        *[(each, PRIVATE) for each in ("10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.1", "198.18.0.1")],
        *[(each, PRIVATE) for each in ("fd00::2", "fc00::1", "fec0::1", "64:ff9b:1::a00:1", "240.0.0.1")],
        *[(each, LOOPBACK) for each in ("127.0.0.1", "127.255.0.3", "0.0.0.0", "0.1.2.3", "::1", "::")],
        *[(each, LINK_LOCAL) for each in ("169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1")],
        *[(each, LINK_LOCAL) for each in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16")],
        ("192.0.0.192", LINK_LOCAL),
        # One address inside another: mapped, compatible, NAT64, 6to4, Teredo, ISATAP.
        ("::ffff:127.0.0.1", LOOPBACK),
        ("::ffff:10.0.0.1", PRIVATE),
        ("::ffff:169.254.169.254", LINK_LOCAL),
        ("::ffff:93.184.216.34", PUBLIC),
        ("::10.0.0.1", PRIVATE),
        ("64:ff9b::a00:1", PRIVATE),
        ("64:ff9b::a9fe:a9fe", LINK_LOCAL),
        ("64:ff9b::5db8:d822", PUBLIC),
        ("64:ff9b:1::a9fe:a9fe", LINK_LOCAL),
        ("2002:7f00:1::1", LOOPBACK),
        ("2002:a9fe:a9fe::", LINK_LOCAL),
        ("2001:0:a00:1::1", PRIVATE),
        ("2606:2800:220:1:0:5efe:7f00:1", LOOPBACK),
        ("2606:2800:220:1:200:5efe:a00:1", PRIVATE),
    ],
)
def test_how_close_an_address_is(address: str, expected: Kind) -> None:
    assert kind(address) is expected


@pytest.mark.parametrize(
    ("hub", "may"),
    [
        (PUBLIC, {PUBLIC}),
        (PRIVATE, {PUBLIC, PRIVATE}),
        (LOOPBACK, {PUBLIC, PRIVATE, LOOPBACK}),
        (LINK_LOCAL, {PUBLIC, PRIVATE, LINK_LOCAL}),
    ],
)
def test_where_each_kind_of_hub_may_lead(hub: Kind, may: set[Kind]) -> None:
    for by_name in (False, True):
        reach = Reach("https://hub.example" if by_name else f"http://{HUBS[hub]}:8000")
        if by_name:
            reach.check("hub.example", HUBS[hub])
        for there, address in HUBS.items():
            if there in may:
                reach.check("cdn.example", address)
            else:
                with pytest.raises(LeadsAstray, match=r"^The hub \S+ leads to cdn\.example \("):
                    reach.check("cdn.example", address)


def test_a_hub_whose_name_moves_into_our_network_stays_a_public_one() -> None:
    for first, second in (("93.184.216.34", "10.0.0.5"), ("10.0.0.5", "93.184.216.34")):
        reach = Reach("https://hub.example")
        reach.check("hub.example", first)
        for address in (second, "10.0.0.5"):
            if kind(address) is PUBLIC:
                reach.check("HUB.example", address)
            else:
                with pytest.raises(LeadsAstray):
                    reach.check("Hub.example", address)


def test_through_a_proxy_what_stands_in_the_address_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    reach = Reach("https://hub.example")
    for host in (
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.1",
        "0x7f.1",
        "localhost",
        "a.LocalHost.",
    ):
        with pytest.raises(LeadsAstray):
            reach.check_text(host)
    for host in (
        "::1",
        "[::ffff:10.0.0.1]",
        "169.254.169.254",
        "2852039166",
        "０x7f.１",
        "127。0。0。1",
        "0",
        "0.0.0.0",
    ):
        with pytest.raises(LeadsAstray):
            reach.check_text(host)
    reach.check_text("cdn.example")
    reach.check_text("93.184.216.34")
    # Nobody saw this hub's address, so what is reached without the proxy has to be public as well.
    with pytest.raises(LeadsAstray):
        reach.check("cdn.example", "10.0.0.5")


def test_a_hub_that_nobody_connected_to_yet_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = ["10.0.0.5", "93.184.216.34"]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (address, 0)) for address in found])
    with pytest.raises(LeadsAstray):
        Reach("http://hub.example").check("cdn.example", "10.0.0.6")
    found.pop()
    Reach("http://hub.example").check("cdn.example", "10.0.0.6")
    Reach("http://hub.example").check_name("cdn.example")
    found.append("127.0.0.1")
    with pytest.raises(LeadsAstray):
        Reach("http://10.0.0.1").check_name("cdn.example")
