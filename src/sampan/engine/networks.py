"""What users do with networks: make, show, join, leave and remove them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from sampan.clock import Clock, rfc3339nano
from sampan.engine import listing, networkspec, sandboxes
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerstore import Container, Containers
from sampan.engine.networkstore import Network, NetworkStore
from sampan.engine.paths import Paths
from sampan.engine.sandboxes import Sandboxes
from sampan.errors import Conflict, EngineError, Forbidden, InvalidArgument, NotFound
from sampan.filters import Filters, labels_match
from sampan.ids import new_id
from sampan.linux.netlink import Netlink
from sampan.network import ipam
from sampan.network.bridge import Bridge
from sampan.network.rules import Rules
from sampan.spec.docker_api.network import (
    IPAM,
    EndpointResource,
    EndpointSettings,
    IPAMConfig,
    NetworkCreate,
    NetworkCreated,
    NetworkInspect,
    NetworksPruned,
)
from sampan.state.containers import EndpointState

_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_HOST = "cannot connect container to host network - container must be created in host network mode"
_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_LEAVING = "is marked for removal and cannot be connected or disconnected to the network"
_NOWHERE = "container cannot be disconnected from host network or connected to host network"


Hold = Callable[[Container, Mapping[str, int]], Awaitable[None]]


class NetworkService:
    """The API's networks. Every method is for the event loop's thread."""

    def __init__(
        self,
        store: NetworkStore,
        places: Sandboxes,
        containers: Containers,
        rules: Rules,
        events: ContainerEvents,
        paths: Paths,
        clock: Clock,
        hold: Hold,
    ) -> None:
        """hold: gives descriptors of a running container to those who keep them when sampand dies."""
        self._store = store
        self._places = places
        self._containers = containers
        self._rules = rules
        self._events = events
        self._paths = paths
        self._clock = clock
        self._hold = hold
        self._making = asyncio.Lock()
        """One network after the other is made or removed: what one takes the next must see."""

    @property
    def warnings(self) -> list[str]:
        """What of the networks does not work on this host."""
        found = [self._rules.warning] if self._rules.warning else []
        if self._store.get("bridge") is None:
            found.append("the default bridge network is not available: containers can use networks of their own, host and none")
        for network in self._store:
            found += network.bridge.warnings if network.bridge is not None else []
        return [f"WARNING: {text}" for text in found]

    # make and remove

    async def create(self, body: NetworkCreate) -> NetworkCreated:
        """A network of the user's own. Raises EngineError in docker's words, leaving nothing."""
        networkspec.check(body)
        async with self._making:
            self._store.check_name(body.name)
            network_id = new_id()
            taken = [network.bridge.subnet for network in self._store if network.bridge is not None]
            with Netlink() as netlink:
                routes = ipam.routed(netlink.routes())
            row = networkspec.row_of(body, network_id, self._clock.now_ns(), taken, routes)
            settings = networkspec.bridge_settings(row, str(self._paths.exec_root))
            for network in self._store:
                if network.bridge is not None and network.bridge.settings.bridge == settings.bridge:
                    raise Forbidden(
                        f"cannot create network {network_id} ({settings.bridge}): conflicts with network "
                        f"{network.id} ({settings.bridge}): networks have same bridge name"
                    )
            # Stored first: what a kill leaves half made is made at the next start.
            network = self._store.add(row, Bridge(settings, self._rules))
            try:
                await self._bridge_of(network).start()
            except BaseException:
                await self._bridge_of(network).remove()
                self._store.remove(network)
                raise
        self._events.publish_of_network(network.row, "create")
        return NetworkCreated(id=network_id)

    async def remove(self, ref: str) -> None:
        """Remove a network that no running container is on. Raises NotFound, Forbidden."""
        network = self._store.find(ref)
        if network.is_predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        async with self._making:
            if self._store.get(network.name) is not network:
                raise NotFound(f"network {ref} not found")
            users = [f'name:"{container.name}" id:"{place.endpoint_id[:12]}"' for container, place in self._places.on(network)]
            if users:
                raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({', '.join(users)})")
            network.removing = True
            await self._bridge_of(network).remove()
            self._store.remove(network)
        self._events.publish_of_network(network.row, "destroy")

    @staticmethod
    def _bridge_of(network: Network) -> Bridge:
        """That of a network of the user's own."""
        assert network.bridge is not None
        return network.bridge

    async def prune(self, filters: Filters) -> NetworksPruned:
        """Remove all of the users' own networks that no container uses, stopped ones included, as docker does."""
        listing.check(filters, ("until", "label", "label!"))
        until = listing.until_ns(filters, self._clock.now_ns())
        removed = []
        for network in self._store:
            if (
                network.is_predefined
                or (until is not None and network.row.created > until)
                or not labels_match(network.row.labels, filters.get("label", ()))
                or any(labels_match(network.row.labels, [text]) for text in filters.get("label!", ()))
            ):
                continue
            with contextlib.suppress(Forbidden, NotFound):
                await self.remove(network.id)
                removed.append(network.name)
        self._events.networks_pruned()
        return NetworksPruned(networks_deleted=removed or None)

    # join and leave

    async def connect(self, ref: str, container_ref: str, settings: EndpointSettings) -> None:
        """Put a container on one more network: at once when it runs, else at its next start. Raises EngineError, changing nothing."""
        network, container = self._store.find(ref), self._containers.find(container_ref)
        networkspec.check_endpoint(network.row, settings)
        async with container.lock:
            self._check_present(container)
            mode = container.host_config.network_mode
            if network.name == "host" or mode == "host":
                raise Conflict(_SHARED if mode == "host" else _HOST)
            if mode.startswith("container:"):
                raise Conflict(_SHARED)
            if network.name in sandboxes.configured(container):
                raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
            if "none" in (mode, network.name) and (network.name == "none" or mode == "none"):
                raise Forbidden("container cannot be connected to multiple networks with one of the networks in private (none) mode")
            before = container.networking
            sandboxes.with_settings(container, network.name, settings)
            try:
                joined = await self._places.connect(container, network, settings) if container.is_running else None
                if joined is None:
                    self._containers.set_networking(container)
                else:
                    self._changed(container, sandboxes.replaced(container.state.endpoints, network.name, joined.state))
                    if joined.custody:
                        await self._hold(container, joined.custody)
            except BaseException:
                container.networking = before
                raise
        if joined is not None:
            self._events.publish_network(container, "connect", network.row)

    def _check_present(self, container: Container) -> None:
        """The caller holds its lock, and may have waited for that."""
        if container.removing or self._containers.get(container.id) is not container:
            raise Conflict(f"container {container.id} {_LEAVING}")

    def _changed(self, container: Container, endpoints: Sequence[EndpointState]) -> None:
        """Note a running container's new places, and tell its files."""
        self._containers.set_networking(container, msgspec.structs.replace(container.state, endpoints=tuple(endpoints)))
        self._places.write_files(container, endpoints, self._paths.container(container.id))

    async def disconnect(self, ref: str, container_ref: str, *, force: bool) -> None:
        """Take a container off a network. force: one that is not there is no error. Raises EngineError."""
        try:
            container = self._containers.find(container_ref)
        except NotFound:
            if force:
                raise NotFound(f"endpoint {container_ref} not found") from None
            raise
        async with container.lock:
            self._check_present(container)
            network = self._known(ref, container)
            name = network.name if network is not None else ref
            if name == "host" and container.host_config.network_mode == "host":
                raise Conflict(_NOWHERE)
            if name not in sandboxes.configured(container) or container.host_config.network_mode.startswith("container:"):
                article = "" if container.is_running else "the "
                raise Conflict(f"container {container.id} is not connected to {article}network {name}")
            if container.is_running and network is not None:
                await self._places.disconnect(container, network)
            sandboxes.with_settings(container, name, None)
            endpoints = sandboxes.replaced(container.state.endpoints, name, None)
            if container.is_running:
                self._changed(container, endpoints)
            else:
                self._containers.set_networking(container, msgspec.structs.replace(container.state, endpoints=endpoints))
        if network is not None:
            self._events.publish_network(container, "disconnect", network.row)

    def _known(self, ref: str, container: Container) -> Network | None:
        """The network; None for one that is gone, which a stopped container may still be said to be on."""
        try:
            return self._store.find(ref)
        except NotFound:
            if container.is_running:
                raise
            return None

    # look

    async def list(self, filters: Filters) -> Sequence[NetworkInspect]:
        """All networks that match. Raises InvalidArgument."""
        for key in filters:
            if key not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        kinds = filters.get("type", ())
        for kind in kinds:
            if kind not in ("custom", "builtin"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        dangling = listing.boolean(filters, "dangling")
        found = []
        for network in self._store:
            shown = self._show(network)
            if (
                all(any(value in getattr(shown, key) for value in filters[key]) for key in ("name", "id") if filters.get(key))
                and all(getattr(shown, key) in filters[key] for key in ("driver", "scope") if filters.get(key))
                and labels_match(network.row.labels, filters.get("label", ()))
                and (not kinds or ("builtin" if network.is_predefined else "custom") in kinds)
                and (dangling is None or network.is_predefined < (not self._joined(network)) == dangling)
            ):
                found.append(shown)
        return found

    async def inspect(self, ref: str) -> NetworkInspect:
        """One network by ID, name or ID prefix, with its running containers. Raises NotFound."""
        network = self._store.find(ref)
        return msgspec.structs.replace(self._show(network), containers=self._joined(network))

    def _joined(self, network: Network) -> dict[str, EndpointResource]:
        """The containers with a place on it; on host and none, which have no places, those that run."""
        if network.bridge is None:
            return {
                container.id: EndpointResource(name=container.name, endpoint_id=state.endpoint_id)
                for container in self._containers
                if container.is_running
                for state in container.state.endpoints
                if state.network_name == network.name
            }
        return {
            container.id: EndpointResource(
                name=container.name, endpoint_id=place.endpoint_id, mac_address=place.mac, ipv4_address=f"{place.ip}/{place.prefix_len}"
            )
            for container, place in self._places.on(network)
        }

    def _show(self, network: Network) -> NetworkInspect:
        row = network.row
        shown = NetworkInspect(
            name=row.name, id=row.id, created=rfc3339nano(row.created), driver=row.driver, enable_ipv6=row.enable_ipv6,
            internal=row.internal, attachable=row.attachable, options=row.options, labels=row.labels,
            ipam=IPAM(
                driver="default", options=row.ipam_options,
                config=[
                    IPAMConfig(subnet=item.subnet, gateway=item.gateway, ip_range=item.ip_range, auxiliary_addresses=item.auxiliary or None)
                    for item in row.subnets
                ],
            ),
        )  # fmt: skip
        if not network.is_predefined or network.bridge is None:
            return shown
        gateway = network.bridge.gateway
        config = [IPAMConfig(subnet=str(gateway.network), gateway=str(gateway.ip))]
        return msgspec.structs.replace(
            shown, ipam=IPAM(driver="default", config=config), options=networkspec.default_options(network.bridge.settings)
        )


async def open_networks(store: NetworkStore, rules: Rules, default: Bridge | None, owner: str, now_ns: int) -> list[str]:
    """Have every network's bridge up, at the start of the engine with exec-root owner; what cannot be is said."""
    failed = []
    if default is not None:
        store.add_predefined("bridge", now_ns, default)
    for name in ("host", "none"):
        store.add_predefined(name, now_ns)
    for row in store.stored():
        bridge = Bridge(networkspec.bridge_settings(row, owner), rules)
        try:
            await bridge.start()
        except EngineError as error:
            failed.append(f"network {row.name}: {error.message}")
        store.load(row, bridge)
    return failed
