"""From a request for a network to what is stored of it, and to its bridge's settings. Pure; docker 28's words for what is wrong."""

import ipaddress
from collections.abc import Sequence

from sampan.errors import Forbidden, InvalidArgument, NotFound, NotImplementedYet, SystemFailure, Unavailable
from sampan.network import ipam
from sampan.network.bridge import BridgeSettings
from sampan.spec.docker_api.network import EndpointSettings, IPAMConfig, NetworkCreate
from sampan.state.networks import NetworkRow, Subnet

BRIDGE = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"
_NOT_A_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)
_ENDPOINT = "invalid endpoint settings:\n"
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")


def check(body: NetworkCreate) -> None:
    """Refuse what is wrong, or not there. Raises EngineError."""
    if not body.name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if body.scope == "swarm":
        raise Unavailable("cannot create a swarm scoped network when swarm is not active")
    if body.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if body.config_only or (body.config_from is not None and body.config_from.network):
        raise NotImplementedYet("networks that are only configuration: not implemented by Sampan yet")
    driver = body.driver or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise Unavailable(_NOT_A_SWARM)
    if driver in ("macvlan", "ipvlan"):
        raise NotImplementedYet(f"network driver {driver}: not implemented by Sampan yet")
    if driver != "bridge":
        raise NotFound(f'plugin "{driver}" not found')
    if body.ipam is not None and body.ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{body.ipam.driver}" not found')
    if body.enable_ipv4 is False:
        raise (
            NotImplementedYet("networks without IPv4: not implemented by Sampan yet")
            if body.enable_ipv6
            else InvalidArgument("IPv4 or IPv6 must be enabled")
        )
    if body.enable_ipv6:
        raise NotImplementedYet("IPv6 in networks: not implemented by Sampan yet")
    _check_subnets([] if body.ipam is None else body.ipam.config or [])
    example = Subnet("10.0.0.0/8", "10.0.0.1")
    bridge_settings(NetworkRow(id="0" * 64, name=body.name, created=0, subnets=(example,), options=body.options or {}))


def _check_subnets(configs: Sequence[IPAMConfig]) -> None:
    wrong = []
    for config in configs:
        try:
            network = ipaddress.ip_network(config.subnet, strict=False)
        except ValueError:
            wrong.append(f"invalid subnet {config.subnet}: invalid CIDR block notation")
            continue
        if "/" not in config.subnet:
            wrong.append(f"invalid subnet {config.subnet}: invalid CIDR block notation")
            continue
        if str(network.network_address) != config.subnet.partition("/")[0]:
            wrong.append(f"invalid subnet {config.subnet}: it should be {network}")
        given = [("gateway", config.gateway), *(("auxiliary address", found) for found in (config.auxiliary_addresses or {}).values())]
        for kind, text in given:
            wrong += _outside(kind, text, network) if text else []
        if config.ip_range:
            wrong += _range_outside(config.ip_range, network)
    if wrong:
        raise InvalidArgument("\n".join(["invalid network config:", *wrong]))
    if any(":" in config.subnet for config in configs):
        raise NotImplementedYet("IPv6 in networks: not implemented by Sampan yet")
    if len(configs) > 1:
        raise NotImplementedYet("bridge driver doesn't support multiple subnets")


def _outside(kind: str, text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> list[str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [f"invalid {kind} {text}: invalid address"]
    return [] if address in network else [f"invalid {kind} {text}: parent subnet {network} doesn't contain this address"]


def _range_outside(text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> list[str]:
    try:
        part = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if str(part.network_address) != text.partition("/")[0]:
        return [f"invalid ip-range {text}: it should be {part}"]
    if part.version != network.version or not part.subnet_of(network):  # type: ignore[arg-type]
        return [f"invalid ip-range {text}: parent subnet {network} doesn't contain ip-range"]
    return []


def row_of(
    body: NetworkCreate, network_id: str, created: int, taken: Sequence[ipaddress.IPv4Network], routes: Sequence[ipaddress.IPv4Network]
) -> NetworkRow:
    """What is stored. taken: subnets of the other networks; routes: where the host's routes go, which a free pool must not overlap.

    Raises Forbidden when the subnet asked for overlaps another network's, SystemFailure when there is no free one.
    """
    configs = [] if body.ipam is None else body.ipam.config or []
    if configs:
        config = configs[0]
        network = ipaddress.IPv4Network(config.subnet)
        if any(network.overlaps(other) for other in taken):
            raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
        auxiliary = config.auxiliary_addresses or {}
        gateway = config.gateway or _first_free(network, config.ip_range, auxiliary.values())
        for name, address in auxiliary.items():
            if address == gateway:
                raise Forbidden(f"failed to allocate secondary ip address ({name}:{address}): Address already in use")
        subnet = Subnet(config.subnet, gateway, config.ip_range, dict(auxiliary))
    else:
        free = ipam.free_pool([*taken, *routes], words="all predefined address pools have been fully subnetted")
        subnet = Subnet(str(free.network), str(free.ip), asked=False)
    return NetworkRow(
        id=network_id, name=body.name, created=created, subnets=(subnet,), internal=body.internal, attachable=body.attachable,
        options=body.options or {}, ipam_options=None if body.ipam is None else body.ipam.options, labels=body.labels or {},
    )  # fmt: skip


def _first_free(network: ipaddress.IPv4Network, ip_range: str, taken: object) -> str:
    pool = ipaddress.IPv4Network(ip_range) if ip_range else network
    used = {ipaddress.IPv4Address(address) for address in taken}  # type: ignore[attr-defined]
    for address in pool.hosts():
        if address not in used and address != network.network_address:
            return str(address)
    raise SystemFailure("no available IPv4 addresses on this network's address pools")


def bridge_settings(row: NetworkRow, owner: str = "") -> BridgeSettings:
    """The bridge of a stored network of the engine with this exec-root. Raises InvalidArgument for an option's value that means nothing."""
    subnet = row.subnets[0]
    options = row.options
    mode = options.get(f"{BRIDGE}gateway_mode_ipv4", "nat")
    if mode not in _GATEWAY_MODES:
        raise InvalidArgument(f"failed to parse {BRIDGE}gateway_mode_ipv4 value: {mode} (unknown gateway mode {mode})")
    if mode != "nat":
        raise NotImplementedYet(f"{BRIDGE}gateway_mode_ipv4={mode}: not implemented by Sampan yet")
    mtu = options.get(MTU, "1500")
    if not (mtu.isascii() and mtu.isdecimal() and len(mtu) < 6):
        raise InvalidArgument(f'failed to parse {MTU} value: {mtu} (strconv.Atoi: parsing "{mtu}": invalid syntax)')
    name = options.get(f"{BRIDGE}name") or f"br-{row.id[:12]}"
    if len(name.encode()) > 15 or "/" in name or any(letter.isspace() for letter in name) or name in (".", ".."):
        raise InvalidArgument(f"invalid bridge name: {name}")
    return BridgeSettings(
        bridge=name, name=row.name, bip=f"{subnet.gateway}/{subnet.subnet.partition('/')[2]}", fixed_cidr=subnet.ip_range,
        owner=owner, reserved=tuple(subnet.auxiliary.values()), mtu=int(mtu) or 1500, internal=row.internal,
        icc=_boolean(options, "enable_icc", True), ip_masq=_boolean(options, "enable_ip_masquerade", True),
        ip=options.get(f"{BRIDGE}host_binding_ipv4") or "0.0.0.0",
    )  # fmt: skip


def _boolean(options: dict[str, str], name: str, default: bool) -> bool:
    text = options.get(BRIDGE + name)
    if text is None:
        return default
    found = _BOOLEANS.get(text.lower())
    if found is None:
        raise InvalidArgument(f'failed to parse {BRIDGE}{name} value: {text} (strconv.ParseBool: parsing "{text}": invalid syntax)')
    return found


def default_options(settings: BridgeSettings) -> dict[str, str]:
    """What docker shows of the default bridge's options."""
    return {
        f"{BRIDGE}default_bridge": "true",
        f"{BRIDGE}enable_icc": str(settings.icc).lower(),
        f"{BRIDGE}enable_ip_masquerade": str(settings.ip_masq).lower(),
        f"{BRIDGE}host_binding_ipv4": settings.ip or "0.0.0.0",
        f"{BRIDGE}name": settings.bridge,
        MTU: str(settings.mtu),
    }


def check_endpoint(row: NetworkRow, settings: EndpointSettings) -> None:
    """An address may be asked for where the subnet was the user's choice. Raises InvalidArgument."""
    wanted = settings.ipam_config.ipv4_address if settings.ipam_config else ""
    if not wanted:
        return
    if not row.subnets or not row.subnets[0].asked:
        raise InvalidArgument(
            f"{_ENDPOINT}user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    try:
        inside = ipaddress.ip_address(wanted) in ipaddress.ip_network(row.subnets[0].subnet)
    except ValueError:
        raise InvalidArgument(f"{_ENDPOINT}invalid IPv4 address: {wanted}") from None
    if not inside:
        raise InvalidArgument(f"{_ENDPOINT}no configured subnet or ip-range contain the IP address {wanted}")
