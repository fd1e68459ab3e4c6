"""Events of containers, with docker's attributes."""

from collections.abc import Mapping

from sampan.engine.containerstore import Container
from sampan.events.bus import EventBus


class ContainerEvents:
    """Publishes on the bus."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def publish(self, container: Container, action: str, extra: Mapping[str, str] | None = None) -> None:
        """An event of a container; extra goes to its attributes."""
        attributes = {**(container.config.labels or {}), "image": container.image_name, "name": container.name, **(extra or {})}
        self._bus.publish("container", action, container.id, attributes)

    def publish_network(self, container: Container, action: str) -> None:
        """connect or disconnect, of the network of the current run."""
        endpoint = container.state.endpoint
        if endpoint is not None:
            kind = {"none": "null"}.get(endpoint.network_name, endpoint.network_name)
            attributes = {"container": container.id, "name": endpoint.network_name, "type": kind}
            self._bus.publish("network", action, endpoint.network_id, attributes)

    def pruned(self, reclaimed: int) -> None:
        """Stopped containers were removed: the bytes that gave."""
        self._bus.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
