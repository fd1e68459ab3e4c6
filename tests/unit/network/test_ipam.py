"""Addresses and pools."""

import ipaddress

import pytest

from sampan.errors import Forbidden, InvalidArgument, SystemFailure
from sampan.network.ipam import Addresses, Pools, first_free, gateway_of, routed


def test_lowest_free_address_is_given_and_given_again() -> None:
    addresses = Addresses(ipaddress.IPv4Interface("10.0.0.1/29"))
    assert [addresses.take() for _ in range(3)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    addresses.release("10.0.0.3")
    addresses.release("10.0.0.1")
    assert addresses.take() == "10.0.0.3"
    assert addresses.take_this("10.0.0.6")
    assert not addresses.take_this("10.0.0.6")
    assert not addresses.take_this("10.0.1.6")
    addresses.take()
    with pytest.raises(SystemFailure, match="no available IPv4 addresses"):
        addresses.take()


def test_free_pool_overlaps_no_route() -> None:
    assert str(Pools().free(4, routed([("0.0.0.0", 0)]))) == "172.17.0.1/16"
    assert str(Pools().free(4, routed([("172.17.3.0", 24), ("172.18.0.0", 16)]))) == "172.19.0.1/16"
    assert str(Pools().free(4, routed([("172.16.0.0", 12)]))) == "192.168.0.1/20"


def test_pools_of_the_users_and_of_the_engines_own() -> None:
    pools = Pools([("10.40.0.0/15", 16), ("10.50.0.0/24", 24)], seed="a")
    assert [str(subnet) for subnet in pools.subnets(4)] == ["10.40.0.0/16", "10.41.0.0/16", "10.50.0.0/24"]
    first = pools.free(6, [])
    assert (str(first)[:2], first.network.prefixlen) == ("fd", 64)
    assert pools.free(6, [first.network]) != first
    assert Pools(seed="a").free(6, []) == first
    assert Pools(seed="b").free(6, []) != first
    with pytest.raises(SystemFailure, match="fully subnetted"):
        pools.free(4, routed([("10.0.0.0", 8)]))


def test_the_gateway_is_the_first_of_the_range() -> None:
    assert first_free(ipaddress.ip_network("10.0.0.0/24"), "", ()) == "10.0.0.1"
    assert first_free(ipaddress.ip_network("10.0.0.0/24"), "10.0.0.128/25", ()) == "10.0.0.128"
    assert first_free(ipaddress.ip_network("fd00::/64"), "", ["fd00::1"]) == "fd00::2"


def test_ipv6_addresses() -> None:
    addresses = Addresses(ipaddress.ip_interface("fd00::1/64"), reserved=["10.0.0.1", "fd00::2"])
    assert [addresses.take(), addresses.take("fd00::ff"), addresses.take()] == ["fd00::3", "fd00::ff", "fd00::4"]
    with pytest.raises(Forbidden):
        addresses.take("fd00::")


def test_an_address_that_was_asked_for() -> None:
    addresses = Addresses(ipaddress.IPv4Interface("10.0.0.1/24"), reserved=["10.0.0.2"])
    assert addresses.take("10.0.0.9") == "10.0.0.9"
    assert addresses.take() == "10.0.0.3"
    for taken in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9", "10.0.0.0", "10.0.0.255"):
        with pytest.raises(Forbidden, match=r"^Address already in use$"):
            addresses.take(taken)
    with pytest.raises(InvalidArgument, match="no configured subnet"):
        addresses.take("10.0.1.1")
    addresses.release("10.0.0.2")
    with pytest.raises(Forbidden):
        addresses.take("10.0.0.2")


def test_fixed_cidr_limits_what_is_given() -> None:
    addresses = Addresses(ipaddress.IPv4Interface("10.0.0.1/24"), "10.0.0.248/29")
    given = [addresses.take() for _ in range(7)]
    assert given == [f"10.0.0.{number}" for number in range(248, 255)]
    with pytest.raises(SystemFailure, match="no available IPv4 addresses"):
        addresses.take()
    with pytest.raises(SystemFailure, match="not within"):
        Addresses(ipaddress.IPv4Interface("10.0.0.1/24"), "10.0.1.0/29")


def test_a_bridge_without_bip_takes_the_subnet_of_fixed_cidr() -> None:
    assert str(gateway_of("", "10.9.0.0/16", 4, Pools(), [])) == "10.9.0.1/16"
    assert str(gateway_of("10.1.0.9/24", "10.1.0.0/28", 4, Pools(), [])) == "10.1.0.9/24"
    assert str(gateway_of("", "", 4, Pools(), [])) == "172.17.0.1/16"
