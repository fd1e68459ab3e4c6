"""Containers on their networks: an address on each, the netns with its interfaces, published ports; the runner's Networking."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

import msgspec

from sampan.engine import endpoints, links, networkspec
from sampan.engine.containerstore import Container, Containers
from sampan.engine.nameservice import NameService
from sampan.engine.networkfiles import DnsDefaults, NetworkFiles
from sampan.engine.networkstore import Network, NetworkStore
from sampan.engine.paths import Paths
from sampan.engine.runs import Sandbox
from sampan.errors import Conflict, EngineError, Forbidden, InvalidArgument, NotFound, SystemFailure
from sampan.ids import new_id
from sampan.network import announcing, sandbox
from sampan.network.bridge import Place, remove_strays
from sampan.network.exposure import Exposure, Target
from sampan.network.ports import Binding, PortRequest, Published, port_requests
from sampan.network.sublinks import KINDS
from sampan.spec.docker_api.network import EndpointSettings
from sampan.state.containers import EndpointState

log = logging.getLogger(__name__)

Result = TypeVar("Result")
JOINING = "failed to set up container networking: "
NONE_AND_MORE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"


Extend = Callable[[Sequence[PortRequest]], Awaitable[tuple[Published, ...]]]


class Joined(msgspec.Struct, frozen=True):
    """A running container's places after one was added."""

    endpoints: tuple[EndpointState, ...]
    custody: Mapping[str, int]
    """Descriptors that are to live as long as the container, whoever dies; they stay ours."""


class Sandboxes:
    """One for an engine. Every method is for the event loop's thread; what blocks runs in a worker."""

    def __init__(self, containers: Containers, networks: NetworkStore, exposure: Exposure, dns: DnsDefaults, paths: Paths) -> None:
        self._containers = containers
        self._networks = networks
        self._exposure = exposure
        self._files = NetworkFiles(networks, dns)
        self._paths = paths
        self._dns = NameService(self._files)
        self._places: dict[str, dict[str, Place]] = {}
        """Container ID → network name → what it has there."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._making = asyncio.Lock()
        """One netns after the other: the kernel has one lock for it (rtnl), and threads side by side only contend for the interpreter."""
        self._announcing: set[asyncio.Task[None]] = set()
        self._cut = False
        """Whether somebody was put on or taken off a network when the former sampand was killed: default routes may be missing."""

    async def stop(self) -> None:
        """Wait for what is being deleted. Containers' sockets of the name service stay in custody."""
        await self._dns.close()
        for task in self._announcing:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks)

    def check(self, container: Container) -> None:
        """At create: what it asks for of networks that are there. Raises InvalidArgument."""
        for name, settings in endpoints.configured(container).items():
            network = self._networks.get(name)
            if network is not None:
                try:
                    networkspec.check_endpoint(network.row, settings)
                except InvalidArgument as error:
                    raise InvalidArgument(f"invalid config for network {name}: {error.message}") from None

    # a start and an end

    async def attach(self, container: Container, netns: int | None = None) -> Sandbox:
        """A place on each of its networks, the netns and the published ports. Raises EngineError, leaving nothing.

        netns: an empty one that its user namespace owns, ours from now on.
        """
        with contextlib.ExitStack() as unused:
            if netns is not None:
                unused.callback(os.close, netns)
            return await self._attach(container, netns, unused)

    async def _attach(self, container: Container, empty: int | None, unused: contextlib.ExitStack) -> Sandbox:
        mode = container.host_config.network_mode
        if mode.startswith("container:"):
            return self._shared(self._containers.find(mode.removeprefix("container:")))
        chosen = self._chosen(container)
        if not chosen or chosen[0][0].bridge is None or container.config.network_disabled:
            only = chosen[0][0] if chosen and chosen[0][0].bridge is None else self._find("none")
            return Sandbox(-1 if only.name == "host" else None, (EndpointState(only.id, only.name, endpoint_id=new_id()),))
        links.check(container, self._containers)
        await self.detach(container)
        places = self._places[container.id] = {}
        gateways = endpoints.gateways(chosen)
        names = endpoints.interface_names(chosen)
        try:
            for network, _ in chosen:
                if network.bridge is not None:
                    await network.bridge.ensure()
            for network, settings in chosen:
                places[network.name] = self._take(container, network, settings)
            ports = await self._hold_ports(container, gateways.published)
            interfaces = [
                endpoints.interface_of(network, settings, places[network.name], name, gateways.versions_of(network))
                for name, (network, settings) in zip(names, chosen, strict=True)
            ]
            async with self._making:
                unused.pop_all()
                netns = await asyncio.to_thread(sandbox.make, interfaces, empty)
            self._announce_addresses(netns, interfaces)
            custody: Mapping[str, int] = {}
            try:
                await self._open_ports(container)
                if endpoints.has_names(chosen):
                    custody = await self._dns.start(container, netns, chosen)
            except BaseException:
                os.close(netns)
                raise
        except BaseException as error:
            await self.detach(container)
            if isinstance(error, OSError):
                raise SystemFailure(f"{JOINING}{(error.strerror or str(error)).lower()}") from error
            raise
        states = [endpoints.state_of(network, places[network.name], name) for name, (network, _) in zip(names, chosen, strict=True)]
        self._announce(container, states)
        variables = tuple(links.environment(container, self._containers))
        return Sandbox(netns, endpoints.with_ports(states, gateways.published, ports), custody, variables)

    def _find(self, ref: str, network_id: str = "") -> Network:
        network = self._networks.get(ref)
        if network is None:
            raise NotFound(f"{JOINING}network {network_id or ref} not found")
        return network

    @staticmethod
    def _shared(other: Container) -> Sandbox:
        if not other.is_running or not other.state.pid:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        try:
            return Sandbox(netns_of(other), ())
        except OSError as error:
            raise SystemFailure(f"{JOINING}{error}") from error

    def _chosen(self, container: Container) -> list[tuple[Network, EndpointSettings]]:
        """Its networks in the order of their interfaces: that of its mode, then the others by name. Raises EngineError."""
        mode = container.host_config.network_mode
        known = {state.network_name: state.network_id for state in container.state.endpoints}
        asked = sorted(endpoints.configured(container).items(), key=lambda item: (item[0] != mode, item[0]))
        found = [(self._networks.get(name) or self._by_ref(name, known.get(name, "")), settings) for name, settings in asked]
        for network, settings in found:
            networkspec.check_endpoint(network.row, settings)
            if network.row.config_only:
                raise Forbidden(f"{JOINING}cannot create endpoint on configuration-only network")
            if network.bridge is None and len(found) > 1:
                raise Conflict(JOINING + (SHARED if network.name == "host" else NONE_AND_MORE))
        return found

    def _by_ref(self, ref: str, network_id: str) -> Network:
        """By an ID, as some clients say it."""
        try:
            return self._networks.find(ref)
        except NotFound:
            raise NotFound(f"{JOINING}network {network_id or ref} not found") from None

    @staticmethod
    def _take(container: Container, network: Network, settings: EndpointSettings) -> Place:
        assert network.bridge is not None
        if network.removing:
            raise NotFound(f"{JOINING}network {network.id} not found")
        asked = settings.ipam_config
        mac = settings.mac_address or (container.config.mac_address if network.name == container.host_config.network_mode else "")
        try:
            return network.bridge.take(asked.ipv4_address if asked else "", mac, asked.ipv6_address if asked else "")
        except EngineError as error:
            raise type(error)(JOINING + error.message) from error

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
        if place.veth:
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(sandbox.delete_link, place.veth))  # some 20 ms: nobody waits
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _announce_addresses(self, netns: int, interfaces: Sequence[sandbox.Interface]) -> None:
        """In the background: nobody waits for it, not even the engine's end."""
        task = asyncio.get_running_loop().create_task(announcing.announce(os.dup(netns), interfaces))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    def _announce(self, container: Container, states: Sequence[EndpointState]) -> None:
        """Have its names known on the networks that have a name service."""
        for state in states:
            network = self._networks.get(state.network_name)
            if network is not None and not network.is_predefined:
                addresses = [ipaddress.ip_address(address) for address in (state.ip, state.ip6) if address]
                network.names.add(container.id, endpoints.dns_names(container, network.name), addresses)

    def started(self, container: Container) -> None:
        """It runs: those that are linked to it learn its address."""
        for other in self._containers:
            if other.is_running and any(linked.container is container for linked in links.of(other, self._containers)):
                self.update_files(other, other.state.endpoints)

    # published ports

    async def _hold_ports(self, container: Container, gateway: Network | None) -> tuple[Published, ...]:
        """Take them on the host for the container's place on the gateway's network. Raises SystemFailure."""
        host = container.host_config
        asked = port_requests(container.config.exposed_ports, host.port_bindings, host.publish_all_ports)
        if not asked or gateway is None or gateway.bridge is None or not gateway.bridge.publishes:
            return ()
        target = endpoints.target_of(self._places[container.id][gateway.name])
        bridge = gateway.bridge
        return await self._exposure.hold(container.id, container.name, target, asked, bridge.default_ip, routed=bridge.routed)

    async def _open_ports(self, container: Container) -> None:
        if self._exposure.holds(container.id):
            await self._exposure.open(container.id)

    async def _ports_at(self, container: Container, gateway: Network | None, had: Sequence[Published]) -> tuple[Published, ...]:
        """A running container's ports, which it had elsewhere, where they belong now. Raises SystemFailure."""
        if gateway is None or gateway.bridge is None or not gateway.bridge.publishes:
            await self._exposure.close(container.id)
            return ()
        if self._exposure.holds(container.id):
            await self._exposure.move(container.id, endpoints.target_of(self._places[container.id][gateway.name]))
            return tuple(had)
        ports = await self._hold_ports(container, gateway)
        await self._open_ports(container)
        return ports

    @contextlib.asynccontextmanager
    async def republished(
        self, container: Container, removed: Collection[str], added: Mapping[str, Sequence[Binding] | None]
    ) -> AsyncIterator[tuple[EndpointState, ...]]:
        """Other published ports for a running container, and its places then. removed: its own ports, as in `80/tcp`.

        They are as they were when the context ends by an exception. Raises EngineError.
        """
        gateway = endpoints.gateways(self._chosen(container)).published
        place = self._places.get(container.id, {}).get(gateway.name) if gateway is not None else None
        if gateway is None or gateway.bridge is None or place is None or not gateway.bridge.publishes:
            yield container.state.endpoints
            return
        bridge, target = gateway.bridge, endpoints.target_of(place)
        before = endpoints.published([binding for state in container.state.endpoints for binding in state.ports])
        gone = [port for port in before if f"{port.port}/{port.protocol}" in removed]

        async def extend(requests: Sequence[PortRequest]) -> tuple[Published, ...]:
            if not self._is_at(container, gateway, place):  # its end has freed all
                return ()
            return await self._exposure.extend(container.id, container.name, target, requests, bridge.default_ip, routed=bridge.routed)

        async with contextlib.AsyncExitStack() as undo:
            await self._exposure.release(container.id, gone)
            undo.push_async_callback(self._take_back, container, gone, extend)
            more = await extend(port_requests((), added, False))
            undo.push_async_callback(self._exposure.release, container.id, more)
            kept = [port for port in before if port not in gone]
            yield endpoints.with_ports(container.state.endpoints, gateway, (*kept, *more))
            undo.pop_all()

    @staticmethod
    async def _take_back(container: Container, ports: Sequence[Published], extend: Extend) -> None:
        """Have again what was freed, unless somebody was faster."""
        for port in ports:
            try:
                await extend([port.again()])
            except EngineError as error:
                log.warning("port %d of container %s: %s", port.host_port, container.id, error)

    # while it runs

    async def connect(self, container: Container, network: Network, settings: EndpointSettings) -> Joined | None:
        """Put a running container on one more network; None when it ended meanwhile. Raises EngineError, leaving it as it was."""
        if network.bridge is None:
            raise Forbidden(f"{JOINING}cannot create endpoint on configuration-only network")
        await network.bridge.ensure()
        place = self._take(container, network, settings)
        self._places.setdefault(container.id, {})[network.name] = place
        before = container.state.endpoints
        had = endpoints.published([binding for item in before for binding in item.ports])
        chosen: list[tuple[Network, EndpointSettings]] = []
        name = endpoints.asked_name(settings) or endpoints.free_name(network.bridge.settings.prefix, [state.interface for state in before])
        custody: Mapping[str, int] = {}
        try:
            chosen = self._chosen(container)
            gateways = endpoints.gateways(chosen)
            netns = netns_of(container)
            try:
                interface = endpoints.interface_of(network, settings, place, name, gateways.versions_of(network))
                await asyncio.to_thread(sandbox.join, netns, interface)
                self._announce_addresses(netns, [interface])
                if endpoints.has_names(chosen) and not self._dns.serves(container):
                    custody = await self._dns.start(container, netns, chosen)
            finally:
                os.close(netns)
            state = endpoints.state_of(network, place, name)
            states = (*before, state)
            if gateways.published is network and self._is_at(container, network, place):
                states = endpoints.with_ports(states, network, await self._ports_at(container, network, had))
        except BaseException as error:
            if custody:
                await self._dns.stop(container.id)
            is_ours = await self._take_off(container, network, place, name)
            if is_ours and chosen:
                await self._go_back(container, [item for item in chosen if item[0] is not network], had)
            if isinstance(error, ProcessLookupError) or (isinstance(error, OSError) and not is_ours):
                return None
            if isinstance(error, OSError):
                raise SystemFailure(f"{JOINING}{(error.strerror or str(error)).lower()}") from error
            raise
        if not self._is_at(container, network, place):  # its end has given all back already
            await self._dns.stop(container.id)
            await self._exposure.close(container.id)
            await self._take_off(container, network, place, name)
            return None
        self._announce(container, [state])
        self._dns.changed(container, chosen)
        return Joined(states, custody)

    async def _go_back(self, container: Container, chosen: endpoints.Chosen, had: Sequence[Published]) -> None:
        """A container's default routes and ports, after a change that failed, as they were on these networks. Never raises."""
        await self._route(container, chosen)
        gateway = endpoints.gateways(chosen).published
        place = self._places.get(container.id, {}).get(gateway.name) if gateway is not None else None
        if had and place is not None and not self._exposure.holds(container.id):
            await self._exposure.reopen({container.id: (endpoints.target_of(place), had)})

    async def _take_off(self, container: Container, network: Network, place: Place, interface: str) -> bool:
        """Have a running container leave a place; whether it still had it: its end gives all back. Never raises.

        Waited for: the bridge stays until the interface is gone, and its name inside is free then.
        """
        if place.veth:
            await asyncio.to_thread(sandbox.delete_link, place.veth)
        else:
            with contextlib.suppress(OSError):
                await self._inside(container, lambda netns: sandbox.leave(netns, interface))
        if not self._is_at(container, network, place):
            return False
        del self._places[container.id][network.name]
        await self._leave(container, network.name, msgspec.structs.replace(place, veth=""))
        return True

    def _is_at(self, container: Container, network: Network, place: Place) -> bool:
        """Whether a place is still the container's."""
        return self._places.get(container.id, {}).get(network.name) is place

    def without(self, container: Container, name: str) -> tuple[EndpointState, ...]:
        """A container's places but that on a network, which it asks for no more; the ports go by one of the others. Raises EngineError."""
        states = endpoints.without(container.state.endpoints, name)
        ports = endpoints.published([binding for state in container.state.endpoints for binding in state.ports])
        if not ports or not container.is_running:
            return states
        return endpoints.with_ports(states, endpoints.gateways(self._chosen(container)).published, ports)

    async def disconnect(self, container: Container, network: Network, left: EndpointState | None) -> tuple[EndpointState, ...]:
        """Take a running container off a network; its default route and its ports go by one of the others. Its places then.

        left: its place there, which its state has no more. Raises SystemFailure.
        """
        states = container.state.endpoints
        others = [(item, settings) for item, settings in self._chosen(container) if item.bridge is not None]
        place = self._places.get(container.id, {}).get(network.name)
        if place is None:
            return states
        await self._route(container, others)  # before its interface goes: who is killed between the two has left a trace
        if not await self._take_off(container, network, place, left.interface if left is not None else ""):
            return container.state.endpoints
        self._dns.changed(container, others)
        if left is not None and left.ports:
            published = endpoints.gateways(others).published
            had = endpoints.published(left.ports)
            states = endpoints.with_ports(states, published, await self._ports_at(container, published, had))
        return states

    async def _route(self, container: Container, chosen: endpoints.Chosen) -> None:
        """Have a running container's default routes go by these of its networks. Never raises."""
        places = self._places.get(container.id, {})
        names = {state.network_name: state.interface for state in container.state.endpoints}
        gateways = endpoints.gateways(chosen)
        interfaces = [
            network.bridge.interface(places[network.name], names.get(network.name, ""), default_routes=gateways.versions_of(network))
            for network, _ in chosen
            if network.bridge is not None and network.name in places
        ]
        with contextlib.suppress(OSError):
            await self._inside(container, lambda netns: sandbox.route(netns, interfaces))

    @staticmethod
    async def _inside(container: Container, work: Callable[[int], Result]) -> Result:
        """What some work on a running container's netns comes to, in a worker. Raises OSError."""
        netns = netns_of(container)
        try:
            return await asyncio.to_thread(work, netns)
        finally:
            os.close(netns)

    def write_files(self, container: Container, states: Sequence[EndpointState], directory: str) -> None:
        """hostname, hosts and resolv.conf of a container about to start. Raises InvalidArgument, SystemFailure."""
        self._files.write(container, states, directory, links.hosts(container, self._containers))

    def update_files(self, container: Container, states: Sequence[EndpointState]) -> None:
        """Those of a running container whose networks changed. Raises InvalidArgument, SystemFailure."""
        self._files.update(container, states, self._paths.container(container.id), links.hosts(container, self._containers))

    # after a restart of sampand

    async def reconcile(self) -> None:
        """Take again what the running containers have; once, before any container is started or its end is handled. Never raises."""
        published: dict[str, tuple[Target, list[Published]]] = {}
        for container in self._containers:
            if not container.is_running:
                continue
            places = self._places[container.id] = {}
            for state in container.state.endpoints:
                network = self._networks.get(state.network_name)
                if network is None or network.bridge is None or not (state.ip or state.ip6):
                    continue
                places[network.name] = endpoints.place_of(state)
                if not network.bridge.take_again(places[network.name]):
                    log.warning("the addresses of container %s on network %s are not free", container.id, network.name)
                if state.ports:
                    published[container.id] = endpoints.target_of(state), endpoints.published(state.ports)
            self._announce(container, container.state.endpoints)
        await self._exposure.reopen(published)
        await self._remove_strays()

    async def resume(self) -> None:
        """Have the name servers of running containers answer again, once what others held for them has come."""
        for container in self._containers:
            live = container.live
            if not container.is_running or live is None or container.host_config.network_mode.startswith("container:"):
                continue
            try:
                chosen = self._chosen(container)
                cut = await self._remove_sublinks(container) or self._cut
                if cut and self._places.get(container.id):
                    await self._route(container, chosen)
                if not endpoints.has_names(chosen) or self._dns.resume(container, live.held(), chosen):
                    continue
                netns = netns_of(container)
                try:
                    await self._dns.start(container, netns, chosen)
                finally:
                    os.close(netns)
            except (EngineError, OSError) as error:
                log.warning("container %s has no name service: %s", container.id, error)

    async def _remove_sublinks(self, container: Container) -> bool:
        """Remove macvlans that no place is stored of from a container; whether there was one. Raises OSError."""
        if all(network.row.driver not in KINDS for network in self._networks):
            return False
        kept = [state.interface for state in container.state.endpoints if state.driver in KINDS]
        return await self._inside(container, lambda netns: sandbox.remove_strays(netns, kept))

    async def _remove_strays(self) -> None:
        bridges = [network.bridge.settings.bridge for network in self._networks if network.bridge is not None]
        self._cut = await asyncio.to_thread(remove_strays, bridges, self.veths())

    # look

    def on(self, network: Network) -> list[tuple[Container, Place]]:
        """Who has a place on a network: containers that run, start or end."""
        found = [(self._containers.get(key), places.get(network.name)) for key, places in self._places.items()]
        return [(container, place) for container, place in found if container is not None and place is not None]

    def veths(self) -> set[str]:
        """The names of all interfaces on the host that are some container's."""
        return {place.veth for places in self._places.values() for place in places.values() if place.veth}


def netns_of(container: Container) -> int:
    """A descriptor of a running container's netns; the caller closes it. Raises OSError: ProcessLookupError when it has ended."""
    try:
        netns = os.open(f"/proc/{container.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    live = container.live
    if live is None or live.has_ended:  # then its number may be another's
        os.close(netns)
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return netns
