"""From a request for a network to what is stored of it. Pure; docker 28's words for what is wrong."""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sampan.engine import endpoints, networkoptions
from sampan.errors import Forbidden, InvalidArgument, NotFound, Unavailable
from sampan.network import ipam
from sampan.network.sublinks import KINDS
from sampan.spec.docker_api.network import EndpointSettings, IPAMConfig, NetworkCreate
from sampan.state.networks import NetworkRow, Subnet

DRIVERS = ("bridge", *KINDS)
_NOT_A_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)
_MAC_ADDRESS = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_PREDEFINED = ("bridge", "host", "none")


def with_families(body: NetworkCreate, defaults: Mapping[str, str]) -> NetworkCreate:
    """A request with its IP versions chosen. defaults: options of daemon.json for the driver. Raises InvalidArgument."""
    options = {**({} if body.config_only else defaults), **(body.options or {})}
    ipv4, ipv6 = networkoptions.families(body.enable_ipv4, body.enable_ipv6, options)
    return msgspec.structs.replace(body, enable_ipv4=ipv4, enable_ipv6=ipv6)


def check(body: NetworkCreate) -> None:
    """Refuse what is wrong, or not there. Raises EngineError."""
    if not body.name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if body.scope == "swarm":
        raise Unavailable("cannot create a swarm scoped network when swarm is not active")
    if body.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    driver = body.driver or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise Unavailable(_NOT_A_SWARM)
    if driver not in DRIVERS:
        raise NotFound(f'plugin "{driver}" not found')
    if body.ipam is not None and body.ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{body.ipam.driver}" not found')
    if body.enable_ipv4 is False and not body.enable_ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    _check_subnets(_configs(body), driver)
    networkoptions.check(body.name, driver, body.options or {}, internal=body.internal)


def _configs(body: NetworkCreate) -> Sequence[IPAMConfig]:
    return [] if body.ipam is None else body.ipam.config or []


def _check_subnets(configs: Sequence[IPAMConfig], driver: str) -> None:
    wrong = []
    for config in configs:
        try:
            network = ipam.parse_subnet(config.subnet)
        except ValueError:
            wrong.append(f"invalid subnet {config.subnet}: invalid CIDR block notation")
            continue
        if network.network_address != ipaddress.ip_interface(config.subnet).ip:
            wrong.append(f"invalid subnet {config.subnet}: it should be {network}")
        if config.gateway:
            wrong += _outside("gateway", config.gateway, config.gateway, network)
        for name, text in (config.auxiliary_addresses or {}).items():
            wrong += _outside("auxiliary address", name, text, network)
        if config.ip_range:
            wrong += _range_outside(config.ip_range, network)
    if wrong:
        raise InvalidArgument("\n".join(["invalid network config:", *wrong]))
    for version in (4, 6):
        if driver == "bridge" and sum((":" in config.subnet) == (version == 6) for config in configs) > 1:
            raise Forbidden("bridge driver doesn't support multiple subnets")


def _outside(kind: str, shown: str, text: str, network: ipam.Network) -> list[str]:
    """shown: what the words call it by."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [f"invalid {kind} {shown}: invalid address"]
    is_inside = "%" not in text and address in network
    return [] if is_inside else [f"invalid {kind} {shown}: parent subnet {network} doesn't contain this address"]


def _range_outside(text: str, network: ipam.Network) -> list[str]:
    try:
        part = ipam.parse_subnet(text)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if part.network_address != ipaddress.ip_interface(text).ip:
        return [f"invalid ip-range {text}: it should be {part}"]
    if part.version != network.version or not part.subnet_of(network):  # type: ignore[arg-type]
        return [f"invalid ip-range {text}: parent subnet {network} doesn't contain ip-range"]
    return []


def from_configuration(body: NetworkCreate, source: NetworkRow | None) -> NetworkCreate:
    """A request that names a configuration network, with what that says. source: the network of this name. Raises Forbidden, NotFound."""
    name = body.config_from.network if body.config_from is not None else ""
    if not name:
        return body
    if body.config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if source is None or not source.config_only:
        raise NotFound(f'configuration network "{name}" does not exist')
    if body.labels or body.options or _configs(body) or body.enable_ipv6:
        raise Forbidden("user specified configurations are not supported if the network depends on a configuration network")
    configs = [
        IPAMConfig(
            subnet=item.subnet, ip_range=item.ip_range, gateway="" if item.implied else item.gateway,
            auxiliary_addresses=item.auxiliary or None,
        )
        for item in source.subnets
    ]  # fmt: skip
    found = msgspec.structs.replace(body.ipam, config=configs) if body.ipam is not None else None
    return msgspec.structs.replace(
        body, labels=source.labels, options=source.options, enable_ipv4=source.enable_ipv4, enable_ipv6=source.enable_ipv6,
        ipam=found or networkoptions.ipam_of(configs),
    )  # fmt: skip


def row_of(
    body: NetworkCreate,
    network_id: str,
    created: int,
    taken: Iterable[ipam.Network],
    routes: Iterable[ipam.Network],
    pools: ipam.Pools,
    defaults: dict[str, str],
) -> NetworkRow:
    """What is stored. taken: subnets of the other networks; routes: where the host's routes go, which a free pool must not overlap.

    defaults: options of daemon.json for the driver, which the request's go before.
    Raises Forbidden when a subnet asked for overlaps another network's, SystemFailure when there is no free one.
    """
    others = [] if body.config_only else list(taken)
    subnets: list[Subnet] = []
    for config in _configs(body):
        subnets.append(_subnet(config, [*others, *(ipaddress.ip_network(subnet.subnet) for subnet in subnets)]))
    wanted = {4: body.enable_ipv4 is not False, 6: bool(body.enable_ipv6)}
    used = [*others, *routes]
    for version in (4, 6):
        if wanted[version] and not body.config_only and not any(subnet.version == version for subnet in subnets):
            free = pools.free(version, used)
            subnets.append(Subnet(str(free.network), str(free.ip), asked=False))
    return NetworkRow(
        id=network_id, name=body.name, created=created, driver="null" if body.config_only else body.driver or "bridge",
        subnets=tuple(subnets), internal=body.internal, attachable=body.attachable, enable_ipv4=wanted[4], enable_ipv6=wanted[6],
        options={**({} if body.config_only else defaults), **(body.options or {})}, labels=body.labels or {},
        ipam_options=None if body.ipam is None else body.ipam.options, config_only=body.config_only,
        config_from=body.config_from.network if body.config_from is not None else "",
    )  # fmt: skip


def _subnet(config: IPAMConfig, taken: Iterable[ipam.Network]) -> Subnet:
    network = ipaddress.ip_network(config.subnet)
    if ipam.overlaps(network, taken):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    auxiliary = config.auxiliary_addresses or {}
    gateway = config.gateway or ipam.first_free(network, config.ip_range, () if network.version == 4 else auxiliary.values())
    for name, address in auxiliary.items():
        if ipaddress.ip_address(address) == ipaddress.ip_address(gateway):
            raise Forbidden(f"failed to allocate secondary ip address ({name}:{address}): Address already in use")
    return Subnet(config.subnet, gateway, config.ip_range, dict(auxiliary), implied=not config.gateway)


def check_mac(text: str) -> None:
    """Raises InvalidArgument for what is no MAC address in colon form; "" is none at all."""
    if text and not _MAC_ADDRESS.fullmatch(text):
        raise InvalidArgument(f"invalid MAC address {text}")


def check_endpoint(row: NetworkRow, settings: EndpointSettings) -> None:
    """What a container may ask for on a network: addresses where the subnet was the user's choice. Raises InvalidArgument."""
    check_mac(settings.mac_address)
    asked = settings.ipam_config
    wanted = [(4, asked.ipv4_address if asked else ""), (6, asked.ipv6_address if asked else "")]
    wrong = []
    if row.name in _PREDEFINED:
        if any(text for _, text in wanted):
            wrong.append("user specified IP address is supported on user defined networks only")
        if settings.aliases:
            wrong.append("network-scoped alias is supported only for containers in user defined networks")
    else:
        for version, text in wanted:
            wrong += _address_problems(row, version, text) if text else []
    wrong += _link_local_problems((asked.link_local_ips if asked else None) or ())
    wrong += _sysctl_problems((settings.driver_opts or {}).get(endpoints.SYSCTLS))
    if wrong:
        raise InvalidArgument("\n".join(["invalid endpoint settings:", *(wrong if len(wrong) == 1 else [f"* {text}" for text in wrong])]))


def _link_local_problems(given: Sequence[str]) -> list[str]:
    """Of --link-local-ip."""
    found = []
    for text in given:
        try:
            is_valid = not ipam.parse_address(text).is_unspecified
        except ValueError:
            is_valid = False
        if not is_valid:
            found.append(f"invalid link-local IP address: {text}")
    return found


def _sysctl_problems(text: str | None) -> list[str]:
    """Of an interface's own sysctls. The client writes its name in small letters."""
    found = []
    for sysctl in text.split(",") if text is not None else ():
        words = sysctl.split(".", 4)
        if len(words) != 5 or words[1] not in ("ipv4", "ipv6", "mpls") or words[3] not in ("IFNAME", "ifname"):
            found.append(
                f"unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', "
                "'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
    return found


def _address_problems(row: NetworkRow, version: int, text: str) -> list[str]:
    found = []
    try:
        address = ipam.parse_address(text)
        is_valid = address.version == version
    except ValueError:
        is_valid = False
    if not is_valid:
        found.append(f"invalid IPv{version} address: {text}")
    asked = [subnet for subnet in row.subnets if subnet.asked and subnet.version == version]
    if not asked:
        found.append("user specified IP address is supported only when connecting to networks with user configured subnets")
    elif not is_valid or not any(address in ipaddress.ip_network(subnet.subnet) for subnet in asked):
        found.append(f"no configured subnet or ip-range contain the IP address {text}")
    return found
