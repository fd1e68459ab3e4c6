"""The packet filter as the engine wants it to be: which networks and published ports there are; put back when somebody takes it away."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from sampan.errors import SystemFailure
from sampan.linux.nftables import NftablesError
from sampan.network import firewall
from sampan.network.firewall import Zone
from sampan.network.ports import Published
from sampan.network.watch import REMOVED, RulesetWatch

log = logging.getLogger(__name__)


class Rules:
    """One for an engine. Every method is for the event loop's thread; what blocks runs in a worker."""

    def __init__(self, table: str, *, forward: bool = True) -> None:
        """forward: whether the host is made to forward packets (daemon.json's ip-forward)."""
        self.forward = forward
        self._table = table
        self._firewall: firewall.Firewall | None = None
        self._watch: RulesetWatch | None = None
        self._zones: dict[str, Zone] = {}
        self._published: dict[Published, str] = {}
        self._opened: dict[str, Sequence[Published]] = {}
        self.warning = ""
        """Why there are no rules on this host, for the log and `docker info`."""

    @property
    def usable(self) -> bool:
        """Whether there are rules: without them no port can be published."""
        return self._firewall is not None

    async def start(self, zones: Sequence[Zone] = ()) -> bool:
        """Make the table anew with these networks, in one transaction: what was there holds until then.

        Whether it has them: of some that cannot be it has none, and they are to be added one by one. A host without a table is a warning.
        """
        try:
            self._firewall = await asyncio.to_thread(firewall.Firewall, self._table, ipv6=firewall.has_ipv6())
            self._zones = await asyncio.to_thread(self._create, self._firewall, zones)
            self._watch = RulesetWatch(self._table, self._restore)
        except (NftablesError, OSError) as error:
            self._firewall = None
            self.warning = f"nftables cannot be used: no masquerade and no published ports: {error}"
            log.warning("%s", self.warning)

        else:
            await self._open_forwarding(self._zones.values())
        return len(self._zones) == len(zones)

    @staticmethod
    def _create(rules: firewall.Firewall, zones: Sequence[Zone]) -> dict[str, Zone]:
        try:
            rules.create(zones)
        except NftablesError:
            if not zones:
                raise
            rules.create()
            return {}
        return {zone.bridge: zone for zone in zones}

    @staticmethod
    async def _open_forwarding(zones: Iterable[Zone]) -> None:
        outward = [zone for zone in zones if not zone.internal]
        ipv6 = [zone.bridge for zone in outward if zone.has_ipv6]
        await asyncio.to_thread(firewall.open_forwarding, [zone.bridge for zone in outward], ipv6)

    async def stop(self, remove: bool) -> None:
        """End the watch; with remove take all rules away, too."""
        if self._watch is not None:
            await self._watch.stop()
        if remove and self._firewall is not None:
            for zone in self._zones.values():
                await asyncio.to_thread(firewall.close_forwarding, zone.bridge)
            try:
                await asyncio.to_thread(self._firewall.remove)
            except NftablesError as error:
                log.warning("table %s: %s", self._table, error)

    async def add(self, zone: Zone) -> None:
        """Have a network under the rules. Raises SystemFailure."""
        if self._firewall is None:
            return
        if zone.bridge in self._zones:
            await self.drop(zone.bridge)
        try:
            await self._apply(self._firewall, self._firewall.add, zone)
        except NftablesError as error:
            raise SystemFailure(f"failed to set up the rules of {zone.bridge}: {error}") from error
        self._zones[zone.bridge] = zone
        await self._open_forwarding([zone])

    async def _apply(self, rules: firewall.Firewall, change: Callable[..., None], *args: object) -> None:
        """A change, made in a table that may have been flushed without the watch having put it back yet. Raises NftablesError."""
        try:
            await asyncio.to_thread(change, *args)
        except NftablesError:
            if await asyncio.to_thread(rules.is_there):
                raise
            await self._restore(REMOVED)
            await asyncio.to_thread(change, *args)

    async def drop(self, bridge: str) -> None:
        """Forget a network. Never raises."""
        zone = self._zones.pop(bridge, None)
        if zone is None or self._firewall is None:
            return
        try:
            await asyncio.to_thread(self._firewall.drop, zone)
        except NftablesError as error:
            log.warning("rules of %s: %s", bridge, error)
        await asyncio.to_thread(firewall.close_forwarding, bridge)

    async def publish(self, forwarded: Mapping[Published, str]) -> None:
        """Let connections to ports of the host through to containers' addresses, in one transaction. Raises NftablesError."""
        if self._firewall is None or not forwarded:
            return
        await self._apply(self._firewall, self._firewall.publish, forwarded)
        self._published.update(forwarded)

    async def open(self, opened: Mapping[str, Sequence[Published]]) -> None:
        """Let hosts with a route reach these ports, too, of containers on routed networks, in one transaction. Raises NftablesError."""
        if self._firewall is None or not opened:
            return
        await self._apply(self._firewall, self._firewall.open, opened)
        for address, ports in opened.items():
            self._opened[address] = [*self._opened.get(address, ()), *ports]

    async def shut(self, address: str, ports: Sequence[Published]) -> None:
        """Take that back. Never raises."""
        left = [port for port in self._opened.pop(address, ()) if port not in ports]
        if left:
            self._opened[address] = left
        needed = {(port.protocol, port.port) for port in left}
        closed = [port for port in ports if (port.protocol, port.port) not in needed]
        if self._firewall is None or not closed:
            return
        try:
            await asyncio.to_thread(self._firewall.open, {address: closed}, verb="delete")
        except NftablesError as error:
            log.debug("ports of %s: %s", address, error)

    async def withdraw(self, ports: Sequence[Published]) -> None:
        """Take them back. Never raises."""
        known = [port for port in ports if self._published.pop(port, None)]
        if self._firewall is None or not known:
            return
        try:
            await asyncio.to_thread(self._firewall.withdraw, known)
        except NftablesError:  # one that is not there, because its rules were taken away
            await asyncio.to_thread(self._withdraw_each, self._firewall, known)

    @staticmethod
    def _withdraw_each(rules: firewall.Firewall, ports: Sequence[Published]) -> None:
        for port in ports:
            try:
                rules.withdraw([port])
            except NftablesError as error:
                log.debug("port %d: %s", port.host_port, error)

    async def _restore(self, why: str) -> None:
        """Put back what somebody took away: our own table, for a reason, or the ways through the host's filter."""
        rules = self._firewall
        if rules is None:
            return
        if not why:
            await self._open_forwarding(list(self._zones.values()))
            return
        log.warning("%s: making table %s anew", why, rules.table)
        try:
            # Without a break for the event loop: no container comes or goes between the table and its elements.
            rules.create(self._zones.values())
            if self._watch is not None:
                self._watch.made_anew()
            rules.publish(self._published)
            rules.open(self._opened)
        except NftablesError as error:
            log.warning("table %s: %s", rules.table, error)
