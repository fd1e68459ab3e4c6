"""All networks of an engine at its start: what rules they need comes by one transaction, however many there are."""

from collections.abc import Sequence

from sampan.errors import EngineError, SystemFailure
from sampan.network.bridge import Bridge, BridgeSettings
from sampan.network.firewall import Zone
from sampan.network.rules import Rules


class BrokenBridge(Bridge):
    """A network that cannot be made of what is stored of it: nothing joins it, and why not is told."""

    def __init__(self, settings: BridgeSettings, rules: Rules, problem: str) -> None:
        """settings: its names and the subnets that no other may have."""
        super().__init__(settings, rules)
        self._problem = problem

    async def prepare(self) -> Zone | None:
        """Raises SystemFailure."""
        raise SystemFailure(f"network {self.settings.name} cannot be made of what is stored: {self._problem}")


async def start_all(bridges: Sequence[Bridge], rules: Rules, *, filtered: bool) -> dict[Bridge, EngineError]:
    """Start networks and the rules; what failed, and why. filtered: whether there are to be rules at all."""
    zones: dict[Bridge, Zone | None] = {}
    failed: dict[Bridge, EngineError] = {}
    for bridge in bridges:
        try:
            zones[bridge] = await bridge.prepare()
        except EngineError as error:
            failed[bridge] = error
    wanted = [zone for zone in zones.values() if zone is not None]
    together = await rules.start(wanted) if filtered else True
    for bridge, zone in zones.items():
        try:
            if zone is not None and not together:
                await rules.add(zone)
            await bridge.finish()
        except EngineError as error:
            failed[bridge] = error
    return failed
