"""Drivers' options of networks (`-o`, docker's keys): what they come to. Pure; docker 28's words for what is wrong."""

from collections.abc import Mapping, Sequence

from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.linux.netlink import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from sampan.network import ipam
from sampan.network.bridge import BridgeSettings
from sampan.spec.docker_api.network import IPAM, IPAMConfig
from sampan.state.networks import NetworkRow, Subnet

BRIDGE = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"
PREFIX = "com.docker.network.container_iface_prefix"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
_HOST_ADDRESSES = ("com.docker.network.host_ipv4", "com.docker.network.host_ipv6")
_ADDRESSES = (f"{BRIDGE}host_binding_ipv4", *_HOST_ADDRESSES)
_NOT_YET = (f"{BRIDGE}trusted_host_interfaces", *_HOST_ADDRESSES)
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_LONGEST_PREFIX = 11
"""Bytes: a number comes behind it, and the kernel takes 15."""


def check(name: str, driver: str, options: Mapping[str, str], *, internal: bool) -> None:
    """Raises InvalidArgument, NotImplementedYet."""
    if driver == "bridge":
        _check_bridge(options)
    example = (Subnet("10.0.0.0/8", "10.0.0.1"),)
    settings_of(NetworkRow(id="0" * 64, name=name, created=0, driver=driver, subnets=example, options=dict(options), internal=internal))


def _check_bridge(options: Mapping[str, str]) -> None:
    """What is refused of a new network only: that a former version stored it is no reason not to start."""
    for key in _ADDRESSES:
        try:
            ipam.parse_address(options.get(key, "0.0.0.0"))
        except ValueError:
            raise InvalidArgument(f"failed to parse {key} value: {options[key]} (nil ip)") from None
    for version in (4, 6):
        key = f"{BRIDGE}gateway_mode_ipv{version}"
        if options.get(key) == "":
            raise InvalidArgument(f"failed to parse {key} value:  (unknown gateway mode )")
    for key in _NOT_YET:
        if options.get(key):
            raise NotImplementedYet(f"{key}: not implemented by Sampan yet")


def families(ipv4: bool | None, ipv6: bool | None, options: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether a network has IPv4 and IPv6, by its request or else by its options. Raises InvalidArgument."""

    def chosen(asked: bool | None, key: str, usual: bool) -> bool:
        if asked is not None or key not in options:
            return usual if asked is None else asked
        found = _BOOLEANS.get(options[key].lower())
        if found is None:
            raise InvalidArgument(f'driver-opt "{key}" is not a valid bool')
        return found

    return chosen(ipv4, ENABLE_IPV4, True), chosen(ipv6, ENABLE_IPV6, False)


def settings_of(row: NetworkRow, owner: str = "", ip: str = "0.0.0.0") -> BridgeSettings:
    """Of a stored network of the engine with this exec-root. ip: where ports are published, unless the network's options say it.

    Raises InvalidArgument for an option's value that means nothing.
    """
    return _bridge(row, owner, ip) if row.driver == "bridge" else _sublinks(row, owner)


def _bridge(row: NetworkRow, owner: str, ip: str) -> BridgeSettings:
    options = row.options
    modes = [_mode(options, f"gateway_mode_ipv{version}", internal=row.internal) for version in (4, 6)]
    name = options.get(f"{BRIDGE}name") or f"br-{row.id[:12]}"
    _check_interface("bridge name", name, 15)
    prefix = options.get(PREFIX) or "eth"
    _check_interface("interface prefix", prefix, _LONGEST_PREFIX)
    (bip, part, reserved), (bip6, part6, reserved6) = (_subnet(row, version) for version in (4, 6))
    return BridgeSettings(
        bridge=name, name=row.name, owner=owner, mtu=_mtu(options), internal=row.internal, mode=modes[0], mode6=modes[1], prefix=prefix,
        ipv4=bool(bip), bip=bip, fixed_cidr=part, ipv6=bool(bip6), bip6=bip6, fixed_cidr6=part6, reserved=(*reserved, *reserved6),
        icc=_boolean(options, "enable_icc", True), ip_masq=_boolean(options, "enable_ip_masquerade", True),
        inhibit=_boolean(options, "inhibit_ipv4", False), ip=options.get(f"{BRIDGE}host_binding_ipv4") or ip,
    )  # fmt: skip


def _sublinks(row: NetworkRow, owner: str) -> BridgeSettings:
    options, driver = row.options, row.driver
    modes, usual = (MACVLAN_MODES, "bridge") if driver == "macvlan" else (IPVLAN_MODES, "l2")
    mode = options.get(f"{driver}_mode") or usual
    if mode not in modes:
        raise InvalidArgument(f"requested {driver} mode '{mode}' is not valid, '{usual}' mode is the {driver} driver default")
    flag = (options.get("ipvlan_flag") if driver == "ipvlan" else "") or "bridge"
    if flag not in IPVLAN_FLAGS:
        raise InvalidArgument(f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default")
    parent = options.get("parent", "")
    _check_interface("parent interface", parent or "none", 15)
    (bip, part, reserved), (bip6, part6, reserved6) = (_subnet(row, version) for version in (4, 6))
    further = [subnet for version in (4, 6) for subnet in row.of(version)[1:]]
    return BridgeSettings(
        bridge=parent or f"{'dm' if driver == 'macvlan' else 'di'}-{row.id[:12]}", dummy=not parent, name=row.name, owner=owner, mtu=0,
        internal=row.internal or not parent, mode=mode, flag=flag, ipv4=bool(bip), bip=bip, fixed_cidr=part,
        ipv6=bool(bip6), bip6=bip6, fixed_cidr6=part6, more=tuple((_gateway(subnet), subnet.ip_range) for subnet in further),
        reserved=(*reserved, *reserved6, *(address for subnet in further for address in subnet.auxiliary.values())),
    )  # fmt: skip


def _gateway(subnet: Subnet) -> str:
    return f"{subnet.gateway}/{subnet.subnet.partition('/')[2]}"


def _subnet(row: NetworkRow, version: int) -> tuple[str, str, tuple[str, ...]]:
    """(gateway with the subnet's length, the part that addresses are given of, reserved ones); empty without this family."""
    subnet = row.subnet(version)
    if subnet is None:
        return "", "", ()
    return _gateway(subnet), subnet.ip_range, tuple(subnet.auxiliary.values())


def _mode(options: Mapping[str, str], key: str, *, internal: bool) -> str:
    mode = options.get(BRIDGE + key) or "nat"
    if mode not in _GATEWAY_MODES:
        raise InvalidArgument(f"failed to parse {BRIDGE}{key} value: {mode} (unknown gateway mode {mode})")
    if mode == "isolated" and not internal:
        raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
    return mode


def _mtu(options: Mapping[str, str]) -> int:
    text = options.get(MTU, "1500")
    if text.removeprefix("-").isascii() and text.removeprefix("-").isdecimal() and text.startswith("-") and len(text) < 8:
        raise InvalidArgument(f"invalid MTU number: {text}")
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise InvalidArgument(f'failed to parse {MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)')
    return int(text) or 1500


def _check_interface(what: str, name: str, most: int) -> None:
    """Raises InvalidArgument for what the kernel would not take, or takes for a pattern, as nft and iptables do."""
    if (
        len(name.encode(errors="replace")) > most
        or any(letter in '/:"\\%' or letter.isspace() or not letter.isprintable() for letter in name)
        or name.endswith(("*", "+"))
        or name in (".", "..")
    ):
        raise InvalidArgument(f"invalid {what}: {name}")


def _boolean(options: Mapping[str, str], name: str, default: bool) -> bool:
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


def ipam_of(configs: Sequence[IPAMConfig]) -> IPAM:
    """The address management of a request that has none of its own."""
    return IPAM(driver="default", config=list(configs))
