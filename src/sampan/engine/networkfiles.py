"""A container's /etc/hosts, /etc/hostname and /etc/resolv.conf: what network/resolvconf.py makes of its networks and options."""

import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sampan.engine.containerstore import Container
from sampan.engine.networkstore import Network, NetworkStore
from sampan.errors import InvalidArgument, SystemFailure
from sampan.network import resolvconf
from sampan.quoting import go_quote
from sampan.state.containers import EndpointState

HOST_NAME = "host.docker.internal"
"""The host, by its address on the container's own network (docker has it on desktops only)."""


_MADE = ".made"
"""Ends the name of a copy: the file as we made it, to tell what its user changed."""
_MOST = 1 << 20


class DnsDefaults(msgspec.Struct, frozen=True):
    """What daemon.json says of names: servers, search domains and options for containers that are given none of their own."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()
    host: Sequence[str] = ()
    """The host's addresses, instead of those it has on the container's network (host-gateway-ips)."""


class NetworkFiles:
    """Writes them."""

    def __init__(self, networks: NetworkStore, dns: DnsDefaults) -> None:
        self._networks = networks
        self._dns = dns

    def write(
        self, container: Container, endpoints: Sequence[EndpointState], directory: str, linked: Sequence[tuple[str, str]] = ()
    ) -> None:
        """All three of a container about to start, for these places on networks. linked: (address, names) of others.

        Raises InvalidArgument, SystemFailure.
        """
        for name, text in self._texts(container, endpoints, linked).items():
            _write(Path(directory, name), text)
            _write(Path(directory, name + _MADE), text)

    def update(
        self, container: Container, endpoints: Sequence[EndpointState], directory: str, linked: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Of a running container: as docker does, what its user wrote into hosts stays there, and a resolv.conf of his is left alone."""
        for name, text in self._texts(container, endpoints, linked).items():
            current, made = _head(Path(directory, name)), _head(Path(directory, name + _MADE))
            if current is None:
                continue
            is_edited = bool(made) and current != made  # without the copy a former version made the file
            if is_edited and name != "hosts":
                continue
            _write(Path(directory, name), resolvconf.merged(current, made or "", text) if is_edited else text)
            _write(Path(directory, name + _MADE), text)

    def _texts(self, container: Container, endpoints: Sequence[EndpointState], linked: Sequence[tuple[str, str]]) -> dict[str, str]:
        hostname = container.config.hostname
        own = f"{hostname}.{container.config.domainname}" if container.config.domainname else hostname
        own = f"{own} {own.partition('.')[0]}" if "." in own else own
        extra = [pair for item in container.host_config.extra_hosts or () for pair in self._extra_hosts(item, endpoints)]
        if not has_name_service(self._networks, endpoints) and all(name != HOST_NAME for _, name in extra):
            extra += [(address, HOST_NAME) for address in self.host_addresses(self._joined(endpoints))]
        addresses = [(address, own) for state in endpoints for address in (state.ip, state.ip6) if address]
        return {
            "hosts": resolvconf.hosts([*extra, *linked], addresses),
            "hostname": hostname + "\n",
            "resolv.conf": self._resolv_conf(container, endpoints),
        }

    def _joined(self, endpoints: Sequence[EndpointState]) -> list[Network]:
        found = (self._networks.get(state.network_name) for state in endpoints)
        return [network for network in found if network is not None]

    def _extra_hosts(self, item: str, endpoints: Sequence[EndpointState]) -> list[tuple[str, str]]:
        """(address, name) of one --add-host."""
        name, _, host = item.partition(":")
        if host != "host-gateway":
            return [(host, name)]
        default = self._networks.get("bridge")
        addresses = self.host_addresses([*self._joined(endpoints), *([default] if default is not None else [])])
        if not addresses:
            raise InvalidArgument("unable to derive the IP value for host-gateway")
        return [(address, name) for address in addresses]

    def host_addresses(self, networks: Iterable[Network]) -> Sequence[str]:
        """What the host is to a container on these networks: its addresses on the first one where it has any."""
        bridges = [network.bridge for network in networks if network.bridge is not None]
        return (bridges and self._dns.host) or next((bridge.host_addresses for bridge in bridges if bridge.host_addresses), ())

    def upstream(self, container: Container) -> Sequence[str]:
        """The name servers that a container's embedded one asks."""
        servers = container.host_config.dns or self._dns.servers
        text = _read(resolvconf.HOST_FILE)
        return resolvconf.upstream(_read(resolvconf.host_file(text)) if not servers else "", servers)

    def _resolv_conf(self, container: Container, endpoints: Sequence[EndpointState]) -> str:
        host, default = container.host_config, self._dns
        servers, search, options = host.dns or default.servers, host.dns_search or default.search, host.dns_options or default.options
        _check_servers(servers)
        text = _read(resolvconf.HOST_FILE)
        if host.network_mode == "host" and not (servers or search or options):
            return text
        source = resolvconf.host_file(text)
        if source != resolvconf.HOST_FILE:
            text = _read(source)
        if has_name_service(self._networks, endpoints):
            return resolvconf.internal_resolv_conf(text, servers, search, options, source)
        return resolvconf.resolv_conf(text, servers, search, options, source, ipv6=any(state.ip6 for state in endpoints))


def has_name_service(networks: NetworkStore, endpoints: Sequence[EndpointState]) -> bool:
    """Whether one of the networks is of the user's own making: then the container's name server is the embedded one."""
    found = (networks.get(state.network_name) for state in endpoints)
    return any(network is not None and not network.is_predefined for network in found)


def _check_servers(servers: Iterable[str]) -> None:
    """Nobody is to look a name server up by a name. Raises SystemFailure in docker's words."""
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise SystemFailure(f"bad nameserver address {server}: ParseAddr({go_quote(server)}): unable to parse IP") from None


def _write(path: Path, text: str) -> None:
    """In place: a bind mount in a running container shows the file's inode, not its name."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, text.encode(errors="surrogateescape"))
    finally:
        os.close(fd)


def _head(path: Path) -> str | None:
    """What a container's file says; "" where there is none; None when it is too large to be touched: its user can write into it."""
    try:
        with path.open(errors="surrogateescape") as file:
            text = file.read(_MOST + 1)
    except OSError:
        return ""
    return text if len(text) <= _MOST else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
