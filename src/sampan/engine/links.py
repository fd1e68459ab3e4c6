"""Legacy links on the default bridge network: what a container learns of another at its start, by its environment and its hosts file.

As dockerd 28 (daemon/links, container/env.go): on networks of users' own links are names of the name service (engine/nameservice.py).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from sampan.engine.containerstore import Container, Containers
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.spec.docker_api.container import HostConfig


class Linked(NamedTuple):
    """A container that another is linked to."""

    container: Container
    alias: str


def resolved(host: HostConfig, containers: Containers) -> HostConfig:
    """With containers' IDs in place of their names: a link outlives a renaming. Raises InvalidArgument."""
    if not host.links:
        return host
    found = []
    for text in host.links:
        name, _, alias = text.partition(":")
        alias = alias or name.rpartition("/")[2]
        if not name or ":" in alias:
            raise InvalidArgument(f"bad format for links: {text}")
        try:
            container = containers.find(name)
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {name}: {error.message}") from None
        if container.host_config.network_mode == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
            )
        found.append(f"{container.id}:{alias.rpartition('/')[2]}")
    return msgspec.structs.replace(host, links=found)


def without(path: str, containers: Containers) -> tuple[Container, HostConfig]:
    """The container of a link `container/alias`, and its HostConfig without that link. Raises NotFound, Conflict in docker's words."""
    name, _, alias = path.strip("/").rpartition("/")
    if not name:
        containers.find(path)
        raise Conflict("Conflict, cannot remove the default link name of the container")
    container = containers.find(name)
    links = container.host_config.links or []
    left = [text for text in links if text.partition(":")[2] != alias]
    if len(left) == len(links):
        raise NotFound(f"No such container: {path}")
    return container, msgspec.structs.replace(container.host_config, links=left or None)


def of(container: Container, containers: Containers) -> Iterator[Linked]:
    """Its links on the default bridge network; a container that was removed is none any more."""
    if container.host_config.network_mode != "bridge":
        return
    for text in container.host_config.links or ():
        key, _, alias = text.partition(":")
        found = containers.get(key)
        if found is not None:
            yield Linked(found, alias)


def shown(container: Container, containers: Containers) -> list[str] | None:
    """HostConfig.Links of inspect."""
    return [f"/{linked.container.name}:/{container.name}/{linked.alias}" for linked in of(container, containers)] or None


def address_of(container: Container) -> str:
    """On the default bridge network; "" for none."""
    return next((state.ip for state in container.state.endpoints if state.network_name == "bridge"), "") if container.is_running else ""


def check(container: Container, containers: Containers) -> None:
    """At a start. Raises Conflict, InvalidArgument in docker's words."""
    for linked in of(container, containers):
        if not linked.container.is_running:
            raise Conflict(f"Cannot link to a non running container: /{linked.container.name} AS /{container.name}/{linked.alias}")
        if not address_of(linked.container):
            raise InvalidArgument(f"container {linked.container.id} not attached to default bridge network")


def hosts(container: Container, containers: Containers) -> list[tuple[str, str]]:
    """(address, names) of its links that run, for its hosts file."""
    found = []
    for other, alias in of(container, containers):
        address = address_of(other)
        names = [alias, other.config.hostname, *([other.name] if alias != other.name else [])]
        if address:
            found.append((address, " ".join(name for name in names if name)))
    return found


def environment(container: Container, containers: Containers) -> list[str]:
    """Variables that tell of its links."""
    return [line for linked in of(container, containers) for line in _variables(container, linked)]


def _variables(container: Container, linked: Linked) -> Iterator[str]:
    address = address_of(linked.container)
    alias = linked.alias.replace("-", "_").upper()
    ports = sorted(_ports(linked.container))
    if ports:
        number, protocol = ports[0]
        yield f"{alias}_PORT={protocol}://{address}:{number}"
    for first, last, protocol in _runs(ports):
        if first != last:
            start = f"{alias}_PORT_{first}_{protocol.upper()}"
            yield f"{start}_START={protocol}://{address}:{first}"
            yield f"{start}_END={protocol}://{address}:{last}"
            yield f"{start}_PORT_START={first}"
            yield f"{start}_PORT_END={last}"
        for number in range(first, last + 1):
            yield from _of_port(alias, address, number, protocol)
    yield f"{alias}_NAME=/{container.name}/{linked.alias}"
    for line in linked.container.config.env or ():
        name, separator, value = line.partition("=")
        if separator and name not in ("HOME", "PATH"):
            yield f"{alias}_ENV_{name}={value}"


def _of_port(alias: str, address: str, number: int, protocol: str) -> Iterator[str]:
    start = f"{alias}_PORT_{number}_{protocol.upper()}"
    yield f"{start}={protocol}://{address}:{number}"
    yield f"{start}_ADDR={address}"
    yield f"{start}_PORT={number}"
    yield f"{start}_PROTO={protocol}"


def _ports(container: Container) -> set[tuple[int, str]]:
    found = set()
    for text in (*(container.config.exposed_ports or ()), *(container.host_config.port_bindings or ())):
        number, _, protocol = text.partition("/")
        if number.isascii() and number.isdecimal() and len(number) < 6:
            found.add((int(number), protocol or "tcp"))
    return found


def _runs(ports: Sequence[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """(first, last, protocol) of ports that follow each other."""
    for protocol in sorted({protocol for _, protocol in ports}):
        numbers = [number for number, other in ports if other == protocol]
        first = last = numbers[0]
        for number in numbers[1:]:
            if number != last + 1:
                yield first, last, protocol
                first = number
            last = number
        yield first, last, protocol
