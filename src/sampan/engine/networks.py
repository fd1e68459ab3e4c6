"""Joins containers to networks: bridge, host and none; and shows them. The bridge driver is network/bridge.py."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sampan.clock import rfc3339nano
from sampan.engine.containerstore import Container, Containers
from sampan.engine.runner import Sandbox
from sampan.errors import InvalidArgument, NotFound, NotImplementedYet
from sampan.filters import Filters
from sampan.ids import new_id
from sampan.network import resolvconf
from sampan.network.bridge import BridgeNetwork, Place
from sampan.network.ports import Published, port_requests
from sampan.spec.docker_api.network import IPAM, EndpointResource, EndpointSettings, IPAMConfig, NetworkInspect
from sampan.state.containers import EndpointState, MetaRepository, PublishedBinding


class DnsDefaults(msgspec.Struct, frozen=True):
    """The name servers, search domains and options of daemon.json: for containers that are given none of their own."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()


class NetworkService:
    """Networks as the API shows them, and the runner's NetworkPort."""

    def __init__(
        self, containers: Containers, meta: MetaRepository, bridge: BridgeNetwork | None = None, dns: DnsDefaults | None = None
    ) -> None:
        """bridge is a started driver; None (bridge=none, or it could not start) leaves host and none."""
        self._containers = containers
        self._bridge = bridge
        self._dns = dns or DnsDefaults()
        names = ("host", "none") if bridge is None else ("bridge", "host", "none")
        self._ids = {name: self._stable_id(meta, name) for name in names}
        self._created = rfc3339nano(time.time_ns())

    @staticmethod
    def _stable_id(meta: MetaRepository, name: str) -> str:
        found = meta.get(f"network-{name}")
        if found is None:
            found = new_id()
            meta.put(f"network-{name}", found)
        return found

    @property
    def warnings(self) -> list[str]:
        """What of the default bridge does not work on this host."""
        if self._bridge is None:
            return ["WARNING: the default bridge network is not available: containers can use the networks host and none only"]
        return [f"WARNING: {text}" for text in self._bridge.warnings]

    # the runner's side

    async def attach(self, container: Container) -> Sandbox:
        """A place on the network of its mode. Raises NotImplementedYet."""
        mode = container.host_config.network_mode
        if mode == "host":
            return Sandbox(-1, EndpointState(self._ids["host"], "host", endpoint_id=new_id()))
        if mode == "none" or container.config.network_disabled:
            return Sandbox(None, EndpointState(self._ids["none"], "none", endpoint_id=new_id()))
        if mode.startswith("container:"):
            raise NotImplementedYet(f"network mode {mode}: not implemented by Sampan yet")
        if mode not in ("", "default", "bridge"):
            raise NotFound(f"failed to set up container networking: network {mode} not found")
        if self._bridge is None:
            raise NotFound("failed to set up container networking: network bridge not found")
        host = container.host_config
        asked = port_requests(container.config.exposed_ports, host.port_bindings, host.publish_all_ports)
        wanted = (container.networking.endpoints_config or {}).get(mode or "default") or EndpointSettings()
        mac = wanted.mac_address or container.config.mac_address
        endpoint = await self._bridge.attach(container.id, container.name.removeprefix("/"), asked, mac)
        published = tuple(PublishedBinding(f"{item.port}/{item.protocol}", item.host_ip, item.host_port) for item in endpoint.ports)
        return Sandbox(
            endpoint.netns,
            EndpointState(
                self._ids["bridge"], "bridge", endpoint_id=new_id(), ip=endpoint.ip, prefix_len=endpoint.prefix_len,
                gateway=endpoint.gateway, mac=endpoint.mac, ports=published, veth=endpoint.veth,
            ),
        )  # fmt: skip

    async def detach(self, container: Container) -> None:
        """Take address and ports back. Never raises."""
        if self._bridge is not None:
            await self._bridge.detach(container.id)

    async def reconcile(self) -> None:
        """Give the driver what the running containers have; once, before any container is started or its end is handled."""
        if self._bridge is not None:
            endpoints = ((item.id, item.state.endpoint) for item in self._containers if item.is_running)
            await self._bridge.reconcile({key: _place(endpoint) for key, endpoint in endpoints if endpoint is not None and endpoint.veth})

    def write_files(self, container: Container, endpoint: EndpointState, directory: str) -> None:
        """hostname, hosts and resolv.conf of a container about to start."""
        hostname = container.config.hostname
        own = f"{hostname}.{container.config.domainname}" if container.config.domainname else hostname
        own = f"{own} {own.partition('.')[0]}" if "." in own else own
        extra = []
        for item in container.host_config.extra_hosts or ():
            name, separator, address = item.partition(":" if "=" not in item else "=")
            if not separator:
                raise InvalidArgument(f'bad format for add-host: "{item}"')
            if address == "host-gateway":
                if self._bridge is None:
                    raise InvalidArgument("unable to derive the IP value for host-gateway")
                address = str(self._bridge.gateway.ip)
            extra.append((address, name))
        self._write(Path(directory, "hosts"), resolvconf.hosts(extra, (endpoint.ip, own) if endpoint.ip else None))
        self._write(Path(directory, "hostname"), hostname + "\n")
        self._write(Path(directory, "resolv.conf"), self._resolv_conf(container))

    def _resolv_conf(self, container: Container) -> str:
        host, default = container.host_config, self._dns
        servers, search, options = host.dns or default.servers, host.dns_search or default.search, host.dns_options or default.options
        text = _read(resolvconf.HOST_FILE)
        if host.network_mode == "host" and not (servers or search or options):
            return text
        source = resolvconf.host_file(text)
        if source != resolvconf.HOST_FILE:
            text = _read(source)
        return resolvconf.resolv_conf(text, servers, search, options, source)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """In place: a bind mount in a running container shows the file's inode, not its name."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    # the API's side

    async def list(self, filters: Filters) -> Sequence[NetworkInspect]:
        """All networks that match."""
        for key in filters:
            if key not in ("dangling", "driver", "id", "label", "name", "scope", "type"):
                raise InvalidArgument(f"invalid filter '{key}'")
        found = [self._show(name) for name in self._ids]
        for key in ("name", "id", "driver", "scope"):
            values = filters.get(key)
            if values:
                found = [item for item in found if any(value in getattr(item, key) for value in values)]
        if filters.get("label") or "custom" in filters.get("type", ()):
            return []
        return found

    async def inspect(self, ref: str) -> NetworkInspect:
        """One network by ID, name or ID prefix. Raises NotFound."""
        for name, network_id in self._ids.items():
            if ref in (name, network_id) or (len(ref) > 2 and network_id.startswith(ref)):
                return self._show(name, containers=True)
        raise NotFound(f"network {ref} not found")

    def _show(self, name: str, *, containers: bool = False) -> NetworkInspect:
        joined: dict[str, EndpointResource] = {}
        for item in self._containers if containers else ():
            endpoint = item.state.endpoint
            if item.is_running and endpoint is not None and endpoint.network_name == name:
                joined[item.id] = EndpointResource(
                    name=item.name.removeprefix("/"), endpoint_id=endpoint.endpoint_id, mac_address=endpoint.mac,
                    ipv4_address=f"{endpoint.ip}/{endpoint.prefix_len}" if endpoint.ip else "",
                )  # fmt: skip
        driver = {"none": "null"}.get(name, name)
        shown = NetworkInspect(name=name, id=self._ids[name], created=self._created, driver=driver, containers=joined)
        if name != "bridge" or self._bridge is None:
            return shown
        return msgspec.structs.replace(shown, ipam=self._ipam(self._bridge), options=_options(self._bridge))

    @staticmethod
    def _ipam(bridge: BridgeNetwork) -> IPAM:
        gateway = bridge.gateway
        return IPAM(driver="default", config=[IPAMConfig(subnet=str(gateway.network), gateway=str(gateway.ip))])


def _place(endpoint: EndpointState) -> Place:
    ports = []
    for item in endpoint.ports:
        number, _, protocol = item.port.partition("/")
        ports.append(Published(int(number), protocol, item.host_ip, item.host_port))
    return Place(ip=endpoint.ip, veth=endpoint.veth, ports=tuple(ports))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _options(bridge: BridgeNetwork) -> dict[str, str]:
    return {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": str(bridge.settings.icc).lower(),
        "com.docker.network.bridge.enable_ip_masquerade": str(bridge.settings.ip_masq).lower(),
        "com.docker.network.bridge.host_binding_ipv4": bridge.default_ip,
        "com.docker.network.bridge.name": bridge.bridge,
        "com.docker.network.driver.mtu": str(bridge.settings.mtu),
    }
