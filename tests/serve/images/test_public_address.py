"""Addresses that a stranger may have the server connect to, held against the registries."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.images.public_address import NOT_PUBLIC_V4, is_public

NOT_PUBLIC = {
    "this host": ["0.0.0.0", "0.255.255.255", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "private, IPv6": ["fc00::1", "fdff:ffff::1", "fec0::1"],
    "carrier's NAT": ["100.64.0.1", "100.127.255.255"],
    "link-local": ["169.254.0.1", "fe80::1", "febf::1", "fe80::1%1"],
    "metadata of clouds": [
        *("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
        *("fd00:ec2::254", "fd20:ce::254"),
    ],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved, broadcast": ["240.0.0.1", "255.255.255.255", "4000::1", "1000::1", "e000::1"],
    "documentation, benchmarks": [
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255"),
        *("2001:db8::1", "3fff::1"),
    ],
    "relays, AS112": ["192.88.99.1", "192.31.196.1", "192.52.193.1", "192.175.48.1"],
    "IPv4 within IPv6": [
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8"),
        *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254"),
        *("64:ff9b:1::8.8.8.8", "2002:7f00:1::1", "2002:808:808::1"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::1"),
    ],
    "protocol assignments": ["192.0.0.1", "2001:1::1", "2001:10::1", "2001:20::1", "100::1"],
}
PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
    *("126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255"),
    *("172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"),
    *("223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:200::1", "2001:4860::8888"),
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", [address for group in NOT_PUBLIC.values() for address in group])
def test_what_is_no_public_host_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_hosts_are_reached_up_to_the_edges_of_what_is_refused(address: str) -> None:
    assert is_public(ip_address(address))


v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
edges = st.sampled_from(
    [
        IPv4Address((int(edge) + step) % 2**32)
        for network in NOT_PUBLIC_V4
        for edge in (network.network_address, network.broadcast_address)
        for step in (-1, 0, 1)
    ]
)
v6 = st.one_of(
    st.integers(0, 2**128 - 1),
    # Nearly all of the registries' entries lie below this prefix, where few random ones fall.
    st.integers(0, 2**112 - 1).map(lambda low: 0x2001 << 112 | low),
).map(IPv6Address)


@given(st.one_of(v4, edges, v6))
def test_nothing_is_public_that_python_knows_to_be_otherwise(
    address: IPv4Address | IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@given(st.one_of(v4, edges))
def test_ipv4_behind_nat64_is_judged_as_what_it_stands_for(address: IPv4Address) -> None:
    behind = IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))
    assert is_public(behind) == is_public(address)
