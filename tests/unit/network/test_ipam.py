"""Addresses and pools."""

import ipaddress

import pytest

from sampan.errors import Forbidden, InvalidArgument, SystemFailure
from sampan.network.ipam import Addresses, free_pool, gateway_of, routed


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
    assert str(free_pool(routed([("0.0.0.0", 0)]))) == "172.17.0.1/16"
    assert str(free_pool(routed([("172.17.3.0", 24), ("172.18.0.0", 16)]))) == "172.19.0.1/16"


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
    assert str(gateway_of("", "10.9.0.0/16", [])) == "10.9.0.1/16"
    assert str(gateway_of("10.1.0.9/24", "10.1.0.0/28", [])) == "10.1.0.9/24"
    assert str(gateway_of("", "", [])) == "172.17.0.1/16"
