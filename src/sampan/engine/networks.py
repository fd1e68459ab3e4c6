"""Joins containers to networks: bridge, host and none; and shows them. The bridge driver is network/bridge.py."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sampan.clock import rfc3339nano
from sampan.engine.registry import Container, Containers
from sampan.engine.runner import Sandbox
from sampan.errors import InvalidArgument, NotFound, NotImplementedYet
from sampan.ids import new_id
from sampan.spec.docker_api.network import NetworkInspect
from sampan.state.containers import EndpointState, MetaRepository

Filters = Mapping[str, Sequence[str]]


class NetworkService:
    """Networks as the API shows them, and the runner's NetworkPort."""

    def __init__(self, containers: Containers, meta: MetaRepository) -> None:
        self._containers = containers
        self._ids = {name: self._stable_id(meta, name) for name in ("host", "none")}
        self._created = rfc3339nano(time.time_ns())

    @staticmethod
    def _stable_id(meta: MetaRepository, name: str) -> str:
        found = meta.get(f"network-{name}")
        if found is None:
            found = new_id()
            meta.put(f"network-{name}", found)
        return found

    # the runner's side

    async def attach(self, container: Container) -> Sandbox:
        """A place on the network of its mode. Raises NotImplementedYet."""
        mode = container.host_config.network_mode
        if mode == "host":
            return Sandbox(-1, EndpointState(self._ids["host"], "host", endpoint_id=new_id()))
        if mode == "none":
            return Sandbox(None, EndpointState(self._ids["none"], "none", endpoint_id=new_id()))
        if container.host_config.port_bindings or container.host_config.publish_all_ports:
            raise NotImplementedYet("publishing ports: the bridge driver is not implemented by Sampan yet")
        # Until the bridge driver is there a container on `bridge` has a network namespace of its own with loopback only.
        return Sandbox(None, EndpointState(self._ids["none"], "bridge", endpoint_id=new_id()))

    async def detach(self, container: Container) -> None:
        """Nothing outlives the container's own network namespace."""

    def write_files(self, container: Container, endpoint: EndpointState, directory: Path) -> None:
        """hostname, hosts and resolv.conf of a container about to start."""
        hostname = container.config.hostname
        own = f"{hostname}.{container.config.domainname}\t{hostname}" if container.config.domainname else hostname
        lines = [
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "fe00::\tip6-localnet",
            "ff00::\tip6-mcastprefix",
            "ff02::1\tip6-allnodes",
            "ff02::2\tip6-allrouters",
        ]
        for extra in container.host_config.extra_hosts or ():
            name, separator, address = extra.partition(":" if "=" not in extra else "=")
            if not separator:
                raise InvalidArgument(f'bad format for add-host: "{extra}"')
            lines.append(f"{address}\t{name}")
        if endpoint.ip:
            lines.append(f"{endpoint.ip}\t{own}")
        self._write(directory / "hosts", "\n".join(lines) + "\n")
        self._write(directory / "hostname", hostname + "\n")
        self._write(directory / "resolv.conf", self._resolv_conf(container))

    @staticmethod
    def _resolv_conf(container: Container) -> str:
        host = container.host_config
        try:
            text = Path("/etc/resolv.conf").read_text()
        except OSError:
            text = ""
        kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", ";"))]
        if host.dns:
            kept = [*(line for line in kept if not line.startswith("nameserver")), *(f"nameserver {server}" for server in host.dns)]
        if host.dns_search:
            kept = [*(line for line in kept if not line.startswith(("search", "domain"))), f"search {' '.join(host.dns_search)}"]
        if host.dns_options:
            kept = [*(line for line in kept if not line.startswith("options")), f"options {' '.join(host.dns_options)}"]
        return "\n".join(kept) + "\n"

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
        found = [self._show(name) for name in ("host", "none")]
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
                return self._show(name)
        raise NotFound(f"network {ref} not found")

    def _show(self, name: str) -> NetworkInspect:
        return NetworkInspect(name=name, id=self._ids[name], created=self._created, driver="null" if name == "none" else "host")
