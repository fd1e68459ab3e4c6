"""Networks and endpoints (moby api/types/network; API v1.51)."""

from sampan.spec.docker_api.base import Body, GoInt, always


class EndpointIPAMConfig(Body, frozen=True, kw_only=True):
    """Addresses asked for."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointSettings(Body, frozen=True, kw_only=True):
    """A container's place on one network."""

    ipam_config: EndpointIPAMConfig | None = always(None)
    links: list[str] | None = always(None)
    aliases: list[str] | None = always(None)
    mac_address: str = always("")
    driver_opts: dict[str, str] | None = always(None)
    gw_priority: GoInt = always(0)
    network_id: str = always("")
    endpoint_id: str = always("")
    gateway: str = always("")
    ip_address: str = always("")
    ip_prefix_len: GoInt = always(0)
    ipv6_gateway: str = always("")
    global_ipv6_address: str = always("")
    global_ipv6_prefix_len: GoInt = always(0)
    dns_names: list[str] | None = always(None)


class NetworkingConfig(Body, frozen=True, kw_only=True):
    """Networks to join at create."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class IPAMConfig(Body, frozen=True, kw_only=True):
    """One subnet of a network."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Body, frozen=True, kw_only=True):
    """Address management of a network."""

    driver: str = always("")
    options: dict[str, str] | None = always(None)
    config: list[IPAMConfig] | None = always(None)


class ConfigReference(Body, frozen=True, kw_only=True):
    """The network whose configuration is used."""

    network: str = always("")


class EndpointResource(Body, frozen=True, kw_only=True):
    """A container in a network's inspect; addresses in CIDR form."""

    name: str = always("")
    endpoint_id: str = always("")
    mac_address: str = always("")
    ipv4_address: str = always("")
    ipv6_address: str = always("")


class NetworkInspect(Body, frozen=True, kw_only=True):
    """GET /networks/{id}, and one entry of GET /networks (whose Containers is always empty from API 1.28 on)."""

    name: str = always("")
    id: str = always("")
    created: str = always("0001-01-01T00:00:00Z")
    scope: str = always("local")
    driver: str = always("")
    enable_ipv4: bool = always(True)
    enable_ipv6: bool = always(False)
    ipam: IPAM = always(IPAM(driver="default"))
    internal: bool = always(False)
    attachable: bool = always(False)
    ingress: bool = always(False)
    config_from: ConfigReference = always(ConfigReference())
    config_only: bool = always(False)
    containers: dict[str, EndpointResource] = always({})
    options: dict[str, str] = always({})
    labels: dict[str, str] = always({})


class NetworkCreate(Body, frozen=True, kw_only=True):
    """POST /networks/create."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam: IPAM | None = None
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkCreated(Body, frozen=True, kw_only=True):
    """The answer to it."""

    id: str = always("")
    warning: str = always("")


class NetworkConnect(Body, frozen=True, kw_only=True):
    """POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(Body, frozen=True, kw_only=True):
    """POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


class NetworksPruned(Body, frozen=True, kw_only=True):
    """POST /networks/prune."""

    networks_deleted: list[str] | None = always(None)


class PortBindingShown(Body, frozen=True, kw_only=True):
    """A published port as inspect shows it."""

    host_ip: str = always("")
    host_port: str = always("")


class Address(Body, frozen=True, kw_only=True):
    """A secondary address (never filled)."""

    addr: str = always("")
    prefix_len: GoInt = always(0)


class NetworkSettings(Body, frozen=True, kw_only=True):
    """NetworkSettings of a container's inspect; the flat fields repeat the default bridge's endpoint."""

    bridge: str = always("")
    sandbox_id: str = always("")
    sandbox_key: str = always("")
    ports: dict[str, list[PortBindingShown] | None] | None = always({})
    hairpin_mode: bool = always(False)
    link_local_ipv6_address: str = always("")
    link_local_ipv6_prefix_len: GoInt = always(0)
    secondary_ip_addresses: list[Address] | None = always(None)
    secondary_ipv6_addresses: list[Address] | None = always(None)
    endpoint_id: str = always("")
    gateway: str = always("")
    global_ipv6_address: str = always("")
    global_ipv6_prefix_len: GoInt = always(0)
    ip_address: str = always("")
    ip_prefix_len: GoInt = always(0)
    ipv6_gateway: str = always("")
    mac_address: str = always("")
    networks: dict[str, EndpointSettings] = always({})


class SummaryNetworkSettings(Body, frozen=True, kw_only=True):
    """NetworkSettings of a container in a list."""

    networks: dict[str, EndpointSettings] = always({})
