"""What is refused of requests for networks and places on them, in the words of dockerd 28."""

import pytest

from sampan.engine import networkoptions, networkspec
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.network import IPAM, EndpointIPAMConfig, EndpointSettings, IPAMConfig, NetworkCreate
from sampan.state.networks import NetworkRow, Subnet

ROW = NetworkRow(id="0" * 64, name="n", created=0, subnets=(Subnet("fd00:88::/64", "fd00:88::1"), Subnet("10.188.1.0/24", "10.188.1.1")))
RULES = "fd00:88::7%x . 80 }\nflush ruleset\n"
"""A zone may be any text, and an address comes to the packet filter as text."""


def refused(config: IPAMConfig) -> str:
    with pytest.raises(InvalidArgument) as raised:
        networkspec.check(NetworkCreate(name="n", enable_ipv6=True, ipam=IPAM(config=[config])))
    return raised.value.message.removeprefix("invalid network config:\n")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (IPAMConfig(subnet="fd00:89::%a/64"), "invalid subnet fd00:89::%a/64: invalid CIDR block notation"),
        (IPAMConfig(subnet="10.189.0.0/255.255.255.0"), "invalid subnet 10.189.0.0/255.255.255.0: invalid CIDR block notation"),
        (IPAMConfig(subnet="10.189.0.0/024"), "invalid subnet 10.189.0.0/024: invalid CIDR block notation"),
        (IPAMConfig(subnet="10.189.0.0"), "invalid subnet 10.189.0.0: invalid CIDR block notation"),
        (IPAMConfig(subnet="10.189.0.1/24"), "invalid subnet 10.189.0.1/24: it should be 10.189.0.0/24"),
        (
            IPAMConfig(subnet="fd00:89::/64", gateway="fd00:89::1%eth0"),
            "invalid gateway fd00:89::1%eth0: parent subnet fd00:89::/64 doesn't contain this address",
        ),
        (
            IPAMConfig(subnet="fd00:89::/64", auxiliary_addresses={"a": "fd00:89::5%a"}),
            "invalid auxiliary address a: parent subnet fd00:89::/64 doesn't contain this address",
        ),
        (IPAMConfig(subnet="fd00:89::/64", ip_range="fd00:89::%q/80"), "invalid ip-range fd00:89::%q/80: invalid CIDR block notation"),
        (
            IPAMConfig(subnet="10.189.0.0/24", ip_range="10.189.0.0/0.0.0.3"),
            "invalid ip-range 10.189.0.0/0.0.0.3: invalid CIDR block notation",
        ),
    ],
)  # fmt: skip
def test_subnets_as_nobody_writes_them(config: IPAMConfig, words: str) -> None:
    assert refused(config) == words


@pytest.mark.parametrize("text", ["fd00:88::7%eth0", RULES])
def test_an_address_with_a_zone(text: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        networkspec.check_endpoint(ROW, EndpointSettings(ipam_config=EndpointIPAMConfig(ipv6_address=text)))
    expected = f"* invalid IPv6 address: {text}\n* no configured subnet or ip-range contain the IP address {text}"
    assert raised.value.message == f"invalid endpoint settings:\n{expected}"


@pytest.mark.parametrize("mac", ["zz", "02:42", "02:42:0a:00:00:0g"])
def test_a_mac_address_that_is_none(mac: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^invalid MAC address {mac}$"):
        networkspec.check_endpoint(ROW, EndpointSettings(mac_address=mac))


@pytest.mark.parametrize("name", ["br%d", "br*", "br+", "a/b", 'a"b', "a\nb", "..", "x" * 16])
def test_a_bridge_name_that_is_none_or_a_pattern(name: str) -> None:
    """The kernel makes br0 of `br%d`; nft and iptables take `br*` and `br+` for all that begins so."""
    with pytest.raises(InvalidArgument, match=r"^invalid bridge name: "):
        networkoptions.check("n", "bridge", {"com.docker.network.bridge.name": name}, internal=False)
