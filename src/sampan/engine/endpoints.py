"""What a container asks for of its networks and what it has of them: choices and conversions. Pure."""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from sampan.engine.containerstore import Container
from sampan.engine.networkstore import Network
from sampan.errors import SystemFailure
from sampan.network.bridge import Place
from sampan.network.exposure import Target
from sampan.network.ports import Published
from sampan.network.sandbox import Interface
from sampan.spec.docker_api.network import EndpointSettings
from sampan.state.containers import EndpointState, PublishedBinding

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"

Chosen = Sequence[tuple[Network, EndpointSettings]]
"""A container's networks and what it asks for there, in the order of its interfaces."""


def configured(container: Container) -> dict[str, EndpointSettings]:
    """What a container asks for of its networks, by their names: that of its mode, unless something else is said."""
    asked = container.networking.endpoints_config
    if asked is None:
        asked = {container.host_config.network_mode: None}
    return {"bridge" if name == "default" else name: settings or EndpointSettings() for name, settings in asked.items()}


def with_settings(container: Container, network: str, settings: EndpointSettings | None) -> None:
    """What a container asks for on a network, noted in its networking; None: it asks no more."""
    asked: dict[str, EndpointSettings | None] = dict(configured(container))
    if settings is None:
        asked.pop(network, None)
    else:
        asked[network] = settings
    container.networking = msgspec.structs.replace(container.networking, endpoints_config=asked)


def has_names(chosen: Chosen) -> bool:
    """Whether one of the networks is of the user's own making: those have a name service."""
    return any(not network.is_predefined for network, _ in chosen)


class Gateways(NamedTuple):
    """The networks that have a container's default routes; None where there is none."""

    v4: Network | None
    v6: Network | None

    @property
    def published(self) -> Network | None:
        """By which its ports are published."""
        return self.v4 or self.v6

    def versions_of(self, network: Network) -> list[int]:
        """The IP versions whose default route goes by a network."""
        return [version for version, has in ((4, self.v4), (6, self.v6)) if has is network]


def gateways(chosen: Chosen) -> Gateways:
    """For each family of those networks that have it and are not internal: the highest GwPriority, then the first by name."""

    def first(version: int) -> Network | None:
        candidates = [
            (-settings.gw_priority, network.name, network)
            for network, settings in chosen
            if network.bridge is not None and version in network.bridge.versions and not network.row.internal
        ]
        return min(candidates, key=lambda item: item[:2])[2] if candidates else None

    return Gateways(first(4), first(6))


def dns_names(container: Container, network: str) -> list[str]:
    """What a container is called on a network of the user's own; the first one is its reverse name."""
    settings = configured(container).get(network) or EndpointSettings()
    names = [container.name, *(settings.aliases or ()), container.id[:12], container.config.hostname]
    return list(dict.fromkeys(name for name in names if name))


def free_name(prefix: str, taken: Sequence[str]) -> str:
    """Of an interface inside: eth0, eth1, …"""
    return next(name for name in (f"{prefix}{number}" for number in range(len(taken) + 1)) if name not in taken)


def interface_names(chosen: Chosen) -> list[str]:
    """One for each network: what is asked for, else one that nobody asks for."""
    asked = [asked_name(settings) for _, settings in chosen]
    names: list[str] = []
    for (network, _), name in zip(chosen, asked, strict=True):
        prefix = network.bridge.settings.prefix if network.bridge is not None else "eth"
        names.append(name or free_name(prefix, [*names, *asked]))
    return names


def asked_name(settings: EndpointSettings) -> str:
    """The name of the interface inside, where one is asked for."""
    return (settings.driver_opts or {}).get(IFNAME, "")


def interface_of(network: Network, settings: EndpointSettings, place: Place, name: str, default_routes: Collection[int]) -> Interface:
    """What is to be made of a place in the container's netns. Raises SystemFailure."""
    assert network.bridge is not None
    asked = (settings.ipam_config.link_local_ips if settings.ipam_config is not None else None) or ()
    sysctls = (settings.driver_opts or {}).get(SYSCTLS, "")
    made = network.bridge.interface(place, name, default_routes=default_routes)
    return msgspec.structs.replace(
        made, link_local=tuple(_link_local(text) for text in asked), sysctls=tuple(sysctls.split(",") if sysctls else ())
    )


def _link_local(text: str) -> str:
    address = ipaddress.ip_address(text)
    if not address.is_link_local:
        raise SystemFailure(f"failed to set up container networking: invalid link local IP address: {text}")
    return f"{address}/{16 if address.version == 4 else 64}"


def state_of(network: Network, place: Place, interface: str) -> EndpointState:
    """What is stored and shown of a place."""
    return EndpointState(
        network.id, network.name, driver=network.row.driver, interface=interface,
        endpoint_id=place.endpoint_id, mac=place.mac, veth=place.veth,
        ip=place.ip, prefix_len=place.prefix_len, gateway=place.gateway,
        ip6=place.ip6, prefix_len6=place.prefix_len6, gateway6=place.gateway6,
    )  # fmt: skip


def place_of(state: EndpointState) -> Place:
    """The place again."""
    return Place(
        veth=state.veth, mac=state.mac, endpoint_id=state.endpoint_id,
        ip=state.ip, prefix_len=state.prefix_len, gateway=state.gateway,
        ip6=state.ip6, prefix_len6=state.prefix_len6, gateway6=state.gateway6,
    )  # fmt: skip


def target_of(place: Place | EndpointState) -> Target:
    """Where published ports lead."""
    return Target(place.ip, place.ip6)


def with_ports(states: Sequence[EndpointState], network: Network | None, ports: Sequence[Published]) -> tuple[EndpointState, ...]:
    """The end-points, with the published ports at that of the gateway's network."""
    bindings = tuple(PublishedBinding(f"{item.port}/{item.protocol}", item.host_ip, item.host_port) for item in ports)
    return tuple(
        msgspec.structs.replace(state, ports=bindings if network is not None and state.network_name == network.name else ())
        for state in states
    )


def published(bindings: Sequence[PublishedBinding]) -> list[Published]:
    """Ports as the network knows them."""
    found = []
    for binding in bindings:
        number, _, protocol = binding.port.partition("/")
        found.append(Published(int(number), protocol, binding.host_ip, binding.host_port))
    return found


def without(states: Sequence[EndpointState], network: str) -> tuple[EndpointState, ...]:
    """The end-points but that on a network."""
    return tuple(state for state in states if state.network_name != network)


def names_by_link(links: Sequence[str]) -> Mapping[str, str]:
    """Links, `container` or `container:alias`, as alias → container."""
    found = {}
    for link in links:
        name, _, alias = link.partition(":")
        found[alias or name] = name
    return found
