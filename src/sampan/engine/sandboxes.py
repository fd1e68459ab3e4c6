"""Containers on their networks: an address on each, the netns with its interfaces, published ports; the runner's NetworkPort."""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Mapping, Sequence

import msgspec

from sampan.engine import networkfiles, networkspec
from sampan.engine.containerstore import Container, Containers
from sampan.engine.nameservice import NameService
from sampan.engine.networkstore import Network, NetworkStore
from sampan.engine.runner import Sandbox
from sampan.errors import Conflict, EngineError, NotFound, SystemFailure
from sampan.ids import new_id
from sampan.linux import pidfd
from sampan.network import sandbox
from sampan.network.bridge import Place
from sampan.network.exposure import Exposure
from sampan.network.ports import Published, port_requests
from sampan.spec.docker_api.network import EndpointSettings
from sampan.state.containers import EndpointState, PublishedBinding

log = logging.getLogger(__name__)

JOINING = "failed to set up container networking: "


class Joined(msgspec.Struct, frozen=True):
    """A running container's new place."""

    state: EndpointState
    custody: Mapping[str, int]
    """Descriptors that are to live as long as the container, whoever dies; they stay ours."""


class Sandboxes:
    """One for an engine. Every method is for the event loop's thread; what blocks runs in a worker."""

    def __init__(self, containers: Containers, networks: NetworkStore, exposure: Exposure, dns: networkfiles.DnsDefaults) -> None:
        self._containers = containers
        self._networks = networks
        self._exposure = exposure
        self._files = networkfiles.NetworkFiles(networks, dns)
        self._dns = NameService(self._files)
        self._places: dict[str, dict[str, Place]] = {}
        """Container ID → network name → what it has there."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Wait for what is being deleted. Containers' sockets of the name service stay in custody."""
        await self._dns.close()
        if self._tasks:
            await asyncio.gather(*self._tasks)

    # a start and an end

    async def attach(self, container: Container) -> Sandbox:
        """A place on each of its networks, the netns and the published ports. Raises EngineError, leaving nothing."""
        mode = container.host_config.network_mode
        if mode.startswith("container:"):
            return self._shared(self._containers.find(mode.removeprefix("container:")))
        chosen = self._chosen(container)
        if chosen[0][0].bridge is None or container.config.network_disabled:
            only = chosen[0][0] if chosen[0][0].bridge is None else self._find("none")
            return Sandbox(-1 if only.name == "host" else None, (EndpointState(only.id, only.name, endpoint_id=new_id()),))
        await self.detach(container)
        places = self._places[container.id] = {}
        try:
            for network, _ in chosen:
                if network.bridge is not None:
                    await network.bridge.ensure()
            for network, settings in chosen:
                places[network.name] = self._take(container, network, settings)
            gateway = gateway_network(chosen)
            ports: tuple[Published, ...] = ()
            if gateway is not None:
                ports = await self._hold_ports(container, gateway, places[gateway.name])
            interfaces = [
                network.bridge.interface(places[network.name], f"eth{number}", default_route=network is gateway)
                for number, (network, _) in enumerate(chosen)
                if network.bridge is not None
            ]
            netns = await asyncio.to_thread(sandbox.make, interfaces)
            custody: Mapping[str, int] = {}
            try:
                if ports:
                    await self._exposure.open(container.id)
                if _has_names(chosen):
                    custody = await self._dns.start(container, netns, chosen)
            except BaseException:
                os.close(netns)
                raise
        except BaseException as error:
            await self.detach(container)
            if isinstance(error, OSError):
                raise SystemFailure(f"{JOINING}{error}") from error
            raise
        states = tuple(
            _state(network, places[network.name], f"eth{number}", ports if network is gateway else ())
            for number, (network, _) in enumerate(chosen)
        )
        self._announce(container, states)
        return Sandbox(netns, states, custody)

    def _find(self, ref: str) -> Network:
        try:
            return self._networks.find(ref)
        except NotFound as error:
            raise NotFound(JOINING + error.message) from error

    @staticmethod
    def _shared(other: Container) -> Sandbox:
        if not other.is_running or not other.state.pid:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        try:
            return Sandbox(netns_of(other), ())
        except OSError as error:
            raise SystemFailure(f"{JOINING}{error}") from error

    def _chosen(self, container: Container) -> list[tuple[Network, EndpointSettings]]:
        """Its networks in the order of their interfaces: that of its mode, then the others by name."""
        mode = container.host_config.network_mode
        asked = configured(container)
        found = [(self._find(name), settings) for name, settings in sorted(asked.items(), key=lambda item: (item[0] != mode, item[0]))]
        for network, settings in found:
            networkspec.check_endpoint(network.row, settings)
            if network.bridge is None and len(found) > 1:
                raise Conflict(f"{JOINING}container cannot be connected to multiple networks, one of which is {network.name}")
        return found

    @staticmethod
    def _take(container: Container, network: Network, settings: EndpointSettings) -> Place:
        assert network.bridge is not None
        if network.removing:
            raise NotFound(f"{JOINING}network {network.id} not found")
        asked = settings.ipam_config.ipv4_address if settings.ipam_config else ""
        try:
            return network.bridge.take(asked, settings.mac_address or container.config.mac_address)
        except EngineError as error:
            raise type(error)(JOINING + error.message) from error

    async def _hold_ports(self, container: Container, network: Network, place: Place) -> tuple[Published, ...]:
        host = container.host_config
        asked = port_requests(container.config.exposed_ports, host.port_bindings, host.publish_all_ports)
        if not asked or network.bridge is None or network.row.internal:
            return ()
        return await self._exposure.hold(container.id, container.name, place.ip, asked, network.bridge.default_ip)

    async def detach(self, container: Container) -> None:
        """Take addresses and ports back. Never raises."""
        await self._dns.stop(container.id)
        await self._exposure.close(container.id)
        for name, place in self._places.pop(container.id, {}).items():
            await self._leave(container, name, place)

    async def _leave(self, container: Container, name: str, place: Place) -> None:
        network = self._networks.get(name)
        if network is None:
            return
        network.names.remove(container.id)
        if network.bridge is not None:
            await network.bridge.release(place)
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(sandbox.delete_link, place.veth))  # some 20 ms: nobody waits
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _announce(self, container: Container, states: Sequence[EndpointState]) -> None:
        """Have its names known on the networks that have a name service."""
        for state in states:
            network = self._networks.get(state.network_name)
            if network is not None and not network.is_predefined and state.ip:
                network.names.add(container.id, dns_names(container, network.name), [networkfiles.address(state.ip)])

    # while it runs

    async def connect(self, container: Container, network: Network, settings: EndpointSettings) -> Joined | None:
        """Put a running container on one more network; None when it ended meanwhile. Raises EngineError, leaving it as it was."""
        assert network.bridge is not None
        await network.bridge.ensure()
        place = self._take(container, network, settings)
        self._places.setdefault(container.id, {})[network.name] = place
        name = _free_name([state.interface for state in container.state.endpoints])
        chosen = self._chosen(container)
        custody: Mapping[str, int] = {}
        try:
            netns = netns_of(container)
            try:
                interface = network.bridge.interface(place, name, default_route=gateway_network(chosen) is network)
                await asyncio.to_thread(sandbox.join, netns, interface)
                if _has_names(chosen) and not self._dns.serves(container):
                    custody = await self._dns.start(container, netns, chosen)
            finally:
                os.close(netns)
        except BaseException as error:
            if self._forget(container, network, place):
                await self._leave(container, network.name, place)
            if isinstance(error, ProcessLookupError):
                return None
            if isinstance(error, OSError):
                raise SystemFailure(f"{JOINING}{error}") from error
            raise
        if self._places.get(container.id, {}).get(network.name) is not place:  # its end has given it back already
            await self._dns.stop(container.id)
            await asyncio.to_thread(sandbox.delete_link, place.veth)
            return None
        state = _state(network, place, name, ())
        self._announce(container, [state])
        self._dns.changed(container, chosen)
        return Joined(state, custody)

    def _forget(self, container: Container, network: Network, place: Place) -> bool:
        """Whether a place was still noted as the container's."""
        places = self._places.get(container.id, {})
        if places.get(network.name) is not place:
            return False
        del places[network.name]
        return True

    async def disconnect(self, container: Container, network: Network) -> None:
        """Take a running container off a network; its default route goes by one of the others. Raises SystemFailure."""
        place = self._places.get(container.id, {}).pop(network.name, None)
        if place is None:
            return
        if any(state.ports for state in container.state.endpoints if state.network_name == network.name):
            await self._exposure.close(container.id)
        await self._leave(container, network.name, place)
        left_over = [(item, settings) for item, settings in self._chosen(container) if item is not network and item.bridge is not None]
        self._dns.changed(container, left_over)
        following = gateway_network(left_over)
        gateway = str(following.bridge.gateway.ip) if following is not None and following.bridge is not None else ""
        with contextlib.suppress(OSError):
            netns = netns_of(container)
            try:
                await asyncio.to_thread(sandbox.route, netns, gateway)
            finally:
                os.close(netns)

    def write_files(self, container: Container, endpoints: Sequence[EndpointState], directory: str) -> None:
        """hostname, hosts and resolv.conf of a container about to start, or whose networks changed. Raises InvalidArgument."""
        self._files.write(container, endpoints, directory)

    # after a restart of sampand

    async def reconcile(self) -> None:
        """Take again what the running containers have; once, before any container is started or its end is handled. Never raises."""
        for container in self._containers:
            if not container.is_running:
                continue
            places = self._places[container.id] = {}
            for state in container.state.endpoints:
                network = self._networks.get(state.network_name)
                if network is None or network.bridge is None or not state.veth:
                    continue
                if not network.bridge.take_again(state.ip):
                    log.warning("address %s of container %s is not free", state.ip, container.id)
                places[network.name] = Place(
                    ip=state.ip, veth=state.veth, prefix_len=state.prefix_len, gateway=state.gateway, mac=state.mac,
                    endpoint_id=state.endpoint_id,
                )  # fmt: skip
                if state.ports:
                    await self._exposure.reopen(container.id, state.ip, [_published(binding) for binding in state.ports])
            self._announce(container, container.state.endpoints)
        await self._remove_strays()

    async def resume(self) -> None:
        """Have the name servers of running containers answer again, once what others held for them has come."""
        for container in self._containers:
            live = container.live
            if not container.is_running or live is None or container.host_config.network_mode.startswith("container:"):
                continue
            try:
                chosen = self._chosen(container)
                if not _has_names(chosen) or self._dns.resume(container, live.held(), chosen):
                    continue
                netns = netns_of(container)
                try:
                    await self._dns.start(container, netns, chosen)
                finally:
                    os.close(netns)
            except (EngineError, OSError) as error:
                log.warning("container %s has no name service: %s", container.id, error)

    async def _remove_strays(self) -> None:
        kept = self.veths()
        for network in self._networks:
            if network.bridge is not None:
                await asyncio.to_thread(network.bridge.remove_strays, kept)

    # look

    def on(self, network: Network) -> list[tuple[Container, Place]]:
        """Who has a place on a network: containers that run, start or end."""
        found = [(self._containers.get(key), places.get(network.name)) for key, places in self._places.items()]
        return [(container, place) for container, place in found if container is not None and place is not None]

    def veths(self) -> set[str]:
        """The names of all interfaces on the host that are some container's."""
        return {place.veth for places in self._places.values() for place in places.values()}


def netns_of(container: Container) -> int:
    """A descriptor of a running container's netns; the caller closes it. Raises OSError: ProcessLookupError when it has ended."""
    try:
        netns = os.open(f"/proc/{container.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    if container.live is None or container.live.pidfd < 0 or pidfd.has_ended(container.live.pidfd):  # then its number may be another's
        os.close(netns)
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return netns


def configured(container: Container) -> dict[str, EndpointSettings]:
    """What a container asks for of its networks, by their names: that of its mode, unless something else is said."""
    asked = container.networking.endpoints_config or {container.host_config.network_mode: None}
    return {name: settings or EndpointSettings() for name, settings in asked.items()}


def _has_names(chosen: Sequence[tuple[Network, EndpointSettings]]) -> bool:
    """Whether one of the networks is of the user's own making: those have a name service."""
    return any(not network.is_predefined for network, _ in chosen)


def gateway_network(chosen: Sequence[tuple[Network, EndpointSettings]]) -> Network | None:
    """The one that has the default route: the highest GwPriority, then the first by name; None where all are internal."""
    candidates = [(network, settings) for network, settings in chosen if not network.row.internal]
    return min(candidates, key=lambda item: (-item[1].gw_priority, item[0].name))[0] if candidates else None


def dns_names(container: Container, network: str) -> list[str]:
    """What a container is called on a network of the user's own; the first one is its reverse name."""
    settings = configured(container).get(network) or EndpointSettings()
    names = [container.name, *(settings.aliases or ()), container.id[:12], container.config.hostname]
    return list(dict.fromkeys(name for name in names if name))


def _free_name(taken: Sequence[str]) -> str:
    return next(name for name in (f"eth{number}" for number in range(len(taken) + 1)) if name not in taken)


def _state(network: Network, place: Place, interface: str, ports: Sequence[Published]) -> EndpointState:
    published = tuple(PublishedBinding(f"{item.port}/{item.protocol}", item.host_ip, item.host_port) for item in ports)
    return EndpointState(
        network.id, network.name, endpoint_id=place.endpoint_id, ip=place.ip, prefix_len=place.prefix_len,
        gateway="" if network.row.internal else place.gateway, mac=place.mac, ports=published, veth=place.veth, interface=interface,
    )  # fmt: skip


def _published(binding: PublishedBinding) -> Published:
    number, _, protocol = binding.port.partition("/")
    return Published(int(number), protocol, binding.host_ip, binding.host_port)


def replaced(endpoints: Sequence[EndpointState], network: str, new: EndpointState | None) -> tuple[EndpointState, ...]:
    """The end-points with one network's put in, exchanged or taken out."""
    kept = tuple(state for state in endpoints if state.network_name != network)
    return (*kept, new) if new is not None else kept


def with_settings(container: Container, network: str, settings: EndpointSettings | None) -> None:
    """What a container asks for on a network, noted in its networking; None: it asks no more."""
    asked: dict[str, EndpointSettings | None] = dict(configured(container))
    if settings is None:
        asked.pop(network, None)
    else:
        asked[network] = settings
    container.networking = msgspec.structs.replace(container.networking, endpoints_config=asked)
