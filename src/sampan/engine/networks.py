"""What users do with networks: make, show, join, leave and remove them."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from sampan.clock import Clock, rfc3339nano
from sampan.engine import endpoints, listing, networkoptions, networkspec, sandboxes
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerstore import Container, Containers
from sampan.engine.networkstore import Network, NetworkStore
from sampan.engine.paths import Paths
from sampan.engine.sandboxes import Sandboxes
from sampan.errors import Conflict, EngineError, Forbidden, InvalidArgument, NotFound, SystemFailure
from sampan.filters import Filters, check_keys, labels_match
from sampan.ids import new_id
from sampan.linux.netlink import Netlink
from sampan.network import ipam
from sampan.network.bridge import Bridge, BridgeSettings
from sampan.network.rules import Rules
from sampan.network.starting import BrokenBridge, start_all
from sampan.network.sublinks import Sublinks
from sampan.spec.docker_api.network import (
    IPAM,
    ConfigReference,
    EndpointResource,
    EndpointSettings,
    IPAMConfig,
    NetworkCreate,
    NetworkCreated,
    NetworkInspect,
    NetworksPruned,
)
from sampan.state.containers import EndpointState
from sampan.state.networks import NetworkRow, Subnet

log = logging.getLogger(__name__)

_HOST = "cannot connect container to host network - container must be created in host network mode"
_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_LEAVING = "is marked for removal and cannot be connected or disconnected to the network"
_NAMES_MAX = 5
_NOWHERE = "container cannot be disconnected from host network or connected to host network"


class NetworkDefaults(msgspec.Struct, frozen=True):
    """What daemon.json says of networks that users make."""

    pools: ipam.Pools
    options: Mapping[str, Mapping[str, str]] = {}
    """By driver."""
    ip: str = "0.0.0.0"
    """Where their ports are published: docker has it for the default network only, but who wants loopback means all."""


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
        defaults: NetworkDefaults,
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
        self._defaults = defaults
        self._making = asyncio.Lock()
        """One network after the other is made or removed: what one takes the next must see."""

    @property
    def warnings(self) -> list[str]:
        """What of the networks does not work on this host."""
        found = [self._rules.warning] if self._rules.warning else []
        if self._store.get("bridge") is None:
            found.append("the default bridge network is not available: containers can use networks of their own, host and none")
        for network in self._store:
            found += [*network.bridge.warnings, *filter(None, [network.bridge.problem])] if network.bridge is not None else []
        return [f"WARNING: {text}" for text in (*found, *self._exposed())]

    def _exposed(self) -> list[str]:
        """What of the containers the host's neighbours reach: docker publishes on all addresses unless told otherwise, and few know."""
        names = [
            container.name
            for container in self._containers
            if container.is_running
            and any(not ipaddress.ip_address(port.host_ip).is_loopback for state in container.state.endpoints for port in state.ports)
        ]
        if not names:
            return []
        shown = ", ".join(sorted(names)[:_NAMES_MAX]) + (f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else "")
        return [f"published ports of {shown} can be reached from other hosts, whatever ufw or firewalld say (see docs/networking.md)"]

    # make and remove

    async def create(self, body: NetworkCreate) -> NetworkCreated:
        """A network of the user's own. Raises EngineError in docker's words, leaving nothing."""
        body = networkspec.with_families(body, self._defaults.options.get(body.driver or "bridge", {}))
        networkspec.check(body)
        async with self._making:
            self._store.check_name(body.name)
            row = self._row_of(body)
            bridge = None if row.config_only else segment(row, self._rules, str(self._paths.exec_root), self._defaults.ip)
            if bridge is not None:
                self._check_interface(row, bridge.settings)
            # Stored first: what a kill leaves half made is made at the next start.
            network = self._store.add(row, bridge)
            try:
                if bridge is not None:
                    await bridge.start()
            except BaseException:
                await self._remove_bridge(network)
                self._store.remove(network)
                raise
        self._events.publish_of_network(network.row, "create")
        return NetworkCreated(id=row.id)

    def _row_of(self, body: NetworkCreate) -> NetworkRow:
        """Raises EngineError."""
        source = self._store.get(body.config_from.network) if body.config_from is not None else None
        body = networkspec.from_configuration(body, source.row if source is not None else None)
        taken = [subnet for network in self._store if network.bridge is not None for subnet in network.bridge.subnets]
        with Netlink() as netlink:
            routes = ipam.routed([*netlink.routes(), *(netlink.routes(socket.AF_INET6) if body.enable_ipv6 else ())])
        defaults = dict(self._defaults.options.get(body.driver or "bridge", {}))
        return networkspec.row_of(body, new_id(), self._clock.now_ns(), taken, routes, self._defaults.pools, defaults)

    def _check_interface(self, row: NetworkRow, settings: BridgeSettings) -> None:
        """No two networks on one bridge; a parent of macvlans has any number of them, but in mode passthru. Raises Forbidden."""
        for network in self._on_interface(settings.bridge):
            if row.driver == "bridge":
                raise Forbidden(
                    f"cannot create network {row.id} ({settings.bridge}): conflicts with network "
                    f"{network.id} ({settings.bridge}): networks have same bridge name"
                )
            already = f"macvlan network {network.id} is already using parent interface {settings.bridge}"
            if settings.mode == "passthru":
                raise Forbidden(f"cannot use mode passthru, {already}")
            if network.bridge is not None and network.bridge.settings.mode == "passthru":
                raise Forbidden(f"{already} in mode passthru")

    def _on_interface(self, name: str) -> list[Network]:
        return [network for network in self._store if network.bridge is not None and network.bridge.settings.bridge == name]

    async def _remove_bridge(self, network: Network) -> None:
        """Unless others are on it, as several networks can be on one VLAN."""
        if network.bridge is not None and self._on_interface(network.bridge.settings.bridge) == [network]:
            await network.bridge.remove()

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
            if network.row.config_only and any(other.row.config_from == network.name for other in self._store):
                raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
            network.removing = True
            await self._remove_bridge(network)
            self._store.remove(network)
        self._events.publish_of_network(network.row, "destroy")

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
            try:
                await self.remove(network.id)
                removed.append(network.name)
            except (Forbidden, NotFound):  # in use, or somebody else was faster
                continue
            except SystemFailure as error:  # the others can go all the same
                log.warning("network %s is not removed: %s", network.name, error)
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
                raise Conflict(sandboxes.SHARED if mode == "host" else _HOST)
            if mode.startswith("container:"):
                raise Conflict(sandboxes.SHARED)
            if container.is_running and network.name in endpoints.configured(container):
                raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
            if "none" in (mode, network.name):
                raise Forbidden(sandboxes.NONE_AND_MORE)
            before = container.networking
            joined: sandboxes.Joined | None = None
            endpoints.with_settings(container, network.name, settings)
            try:
                joined = await self._places.connect(container, network, settings) if container.is_running else None
                if joined is None:
                    self._containers.set_networking(container)
                else:
                    if joined.custody:
                        await self._hold(container, joined.custody)
                    self._changed(container, joined.endpoints)
            except BaseException:
                container.networking = before
                if joined is not None:
                    await self._take_back(container, network, joined.endpoints)
                raise
        if joined is not None:
            self._events.publish_network(container, "connect", network.row)

    async def _take_back(self, container: Container, network: Network, joined: Sequence[EndpointState]) -> None:
        """A connect that could not be noted: a container that runs leaves again. Never raises."""
        if not container.is_running:
            return
        left = next(state for state in joined if state.network_name == network.name)
        container.state = msgspec.structs.replace(container.state, endpoints=endpoints.without(joined, network.name))
        try:
            states = await self._places.disconnect(container, network, left)
            if container.is_running:
                self._changed(container, states)
        except Exception as error:  # the disk may be full: what is stored is put right by the next change
            log.warning("container %s on network %s: %s", container.id, network.name, error)

    def _check_present(self, container: Container) -> None:
        """The caller holds its lock, and may have waited for that."""
        if container.removing or self._containers.get(container.id) is not container:
            raise Conflict(f"container {container.id} {_LEAVING}")

    def _changed(self, container: Container, states: Sequence[EndpointState]) -> None:
        """Note a running container's new places, and tell its files."""
        self._containers.set_networking(container, msgspec.structs.replace(container.state, endpoints=tuple(states)))
        self._places.update_files(container, states)

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
            if name not in endpoints.configured(container) or container.host_config.network_mode.startswith("container:"):
                article = "" if container.is_running else "the "
                raise Conflict(f"container {container.id} is not connected to {article}network {name}")
            before = container.networking
            left = next((state for state in container.state.endpoints if state.network_name == name), None)
            endpoints.with_settings(container, name, None)
            try:
                states = self._places.without(container, name)
                # Stored first: what a kill leaves is an interface of nobody, which goes at the next start.
                self._containers.set_networking(container, msgspec.structs.replace(container.state, endpoints=states))
            except BaseException:
                container.networking = before
                raise
            if container.is_running and network is not None:
                self._changed(container, await self._places.disconnect(container, network, left))
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
        check_keys(filters, _FILTERS)
        kinds = filters.get("type", ())
        for kind in kinds:
            if kind not in ("custom", "builtin"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        try:
            dangling = listing.boolean(filters, "dangling")
        except InvalidArgument:
            raise InvalidArgument('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")') from None
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
                name=container.name, endpoint_id=place.endpoint_id, mac_address=place.mac,
                ipv4_address=f"{place.ip}/{place.prefix_len}" if place.ip else "",
                ipv6_address=f"{place.ip6}/{place.prefix_len6}" if place.ip6 else "",
            )
            for container, place in self._places.on(network)
        }  # fmt: skip

    def _show(self, network: Network) -> NetworkInspect:
        row = network.row
        shown = NetworkInspect(
            name=row.name, id=row.id, created=rfc3339nano(row.created), driver=row.driver, enable_ipv4=row.enable_ipv4,
            enable_ipv6=row.enable_ipv6, internal=row.internal, attachable=row.attachable, options=row.options, labels=row.labels,
            config_only=row.config_only, config_from=ConfigReference(network=row.config_from),
            ipam=IPAM(
                driver="default", options=row.ipam_options,
                config=[
                    IPAMConfig(
                        subnet=item.subnet, gateway=_shown_gateway(row, item), ip_range=item.ip_range,
                        auxiliary_addresses=item.auxiliary or None,
                    )
                    for item in row.subnets
                ],
            ),
        )  # fmt: skip
        if not network.is_predefined or network.bridge is None:
            return shown
        config = [IPAMConfig(subnet=str(gateway.network), gateway=str(gateway.ip)) for gateway in network.bridge.gateways]
        return msgspec.structs.replace(
            shown, ipam=IPAM(driver="default", config=config), options=networkoptions.default_options(network.bridge.settings),
            enable_ipv6=network.bridge.settings.ipv6,
        )  # fmt: skip


def _shown_gateway(row: NetworkRow, subnet: Subnet) -> str:
    """As docker: only where it was asked for, or the subnet was found with it; none where the bridge has no address."""
    mode = row.options.get(f"{networkoptions.BRIDGE}gateway_mode_ipv{subnet.version}")
    return "" if subnet.implied or mode == "isolated" else subnet.gateway


def segment(row: NetworkRow, rules: Rules, owner: str, ip: str) -> Bridge:
    """What a stored network is made by. ip: where its ports are published. Raises InvalidArgument."""
    settings = networkoptions.settings_of(row, owner, ip)
    return Bridge(settings, rules) if row.driver == "bridge" else Sublinks(settings, rules, row.driver)


def _segment_of_stored(row: NetworkRow, rules: Rules, owner: str, ip: str) -> Bridge | None:
    """As segment(), but never raises: one row that means nothing (any more) must not keep the engine from starting."""
    if row.config_only:
        return None
    try:
        return segment(row, rules, owner, ip)
    except Exception as error:
        log.exception("network %s", row.name)
        gateways = {subnet.version: f"{subnet.gateway}/{subnet.subnet.partition('/')[2]}" for subnet in row.subnets if _is_whole(subnet)}
        settings = BridgeSettings(bridge=f"br-{row.id[:12]}", name=row.name, owner=owner, bip=gateways.get(4, ""), bip6=gateways.get(6, ""))
        return BrokenBridge(settings, rules, error.message if isinstance(error, EngineError) else str(error))


def _is_whole(subnet: Subnet) -> bool:
    """Whether a stored subnet is one, with a gateway."""
    try:
        return ipaddress.ip_address(subnet.gateway) in ipaddress.ip_network(subnet.subnet)
    except ValueError:
        return False


async def open_networks(
    store: NetworkStore, rules: Rules, default: Bridge | None, owner: str, ip: str, now_ns: int, *, filtered: bool
) -> list[str]:
    """Have every network and its rules up, at the start of the engine with exec-root owner; what cannot be is said.

    filtered: whether there are to be rules.
    """
    stored = [(row, _segment_of_stored(row, rules, owner, ip)) for row in store.stored()]
    bridges = [bridge for bridge in (default, *(bridge for _, bridge in stored)) if bridge is not None]
    failed = await start_all(bridges, rules, filtered=filtered)
    if default is not None and default not in failed:
        store.add_predefined("bridge", now_ns, default)
    for name in ("host", "none"):
        store.add_predefined(name, now_ns)
    for row, bridge in stored:
        store.load(row, bridge)
    for bridge, error in failed.items():
        bridge.problem = error.message
    alone = [] if default not in failed else ["containers can use the networks host and none only"]
    return [*alone, *(f"network {bridge.settings.name}: {error.message}" for bridge, error in failed.items())]
