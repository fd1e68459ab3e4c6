"""Events of containers, with docker's attributes."""

from collections.abc import Mapping

from sampan.engine.containerstore import Container
from sampan.events.bus import EventBus
from sampan.state.networks import NetworkRow


class ContainerEvents:
    """Publishes on the bus."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def publish(self, container: Container, action: str, extra: Mapping[str, str] | None = None) -> None:
        """An event of a container; extra goes to its attributes."""
        attributes = {**(container.config.labels or {}), "image": container.image_name, "name": container.name, **(extra or {})}
        self._bus.publish("container", action, container.id, attributes)

    def publish_networks(self, container: Container, action: str) -> None:
        """connect or disconnect, of all networks of the current run."""
        for endpoint in container.state.endpoints:
            kind = endpoint.driver or {"none": "null", "host": "host"}.get(endpoint.network_name, "bridge")
            self._publish_network(container, action, endpoint.network_id, endpoint.network_name, kind)

    def publish_network(self, container: Container, action: str, network: NetworkRow) -> None:
        """connect or disconnect, of one network."""
        self._publish_network(container, action, network.id, network.name, network.driver)

    def _publish_network(self, container: Container, action: str, network_id: str, name: str, driver: str) -> None:
        self._bus.publish("network", action, network_id, {"container": container.id, "name": name, "type": driver})

    def publish_of_network(self, network: NetworkRow, action: str) -> None:
        """create or destroy."""
        self._bus.publish("network", action, network.id, {"name": network.name, "type": network.driver})

    def networks_pruned(self) -> None:
        """Unused networks were removed."""
        self._bus.publish("network", "prune", "", {"reclaimed": "0"})

    def pruned(self, reclaimed: int) -> None:
        """Stopped containers were removed: the bytes that gave."""
        self._bus.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
