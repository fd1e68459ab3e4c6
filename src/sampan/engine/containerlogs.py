"""What a container's log settings come to: checked at create, told to the keeper at start, shown by inspect."""

from typing import Any

from sampan.engine.containerstore import Container
from sampan.engine.launching import command_of
from sampan.engine.paths import Paths
from sampan.logs import options


class ContainerLogs:
    """Log settings of all containers of one engine."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def attributes(self, container: Container) -> dict[str, str]:
        """The labels, variables and tag that each line carries (`logs --details`). Raises InvalidArgument for a bad template."""
        chosen = container.host_config.log_config
        if chosen.type == "none":
            return {}
        info = options.LogInfo(
            container_id=container.id,
            name=container.name,
            image_id=container.image_id,
            image_name=container.image_name,
            command=" ".join(command_of(container.config)),
            labels=container.config.labels or {},
            env=tuple(container.config.env or ()),
        )
        return options.attributes(chosen.config or {}, info)

    def check(self, container: Container) -> None:
        """Raises InvalidArgument for settings that cannot be had."""
        chosen = container.host_config.log_config
        options.validate(chosen.type, chosen.config or {})
        self.attributes(container)

    def settings(self, container: Container) -> dict[str, Any]:
        """LOG of the keeper's protocol."""
        chosen, directory = container.host_config.log_config, self._paths.container(container.id)
        return options.log_settings(chosen.type, chosen.config or {}, container.id, directory, self.attributes(container))

    def path(self, container: Container) -> str:
        """LogPath of inspect: the driver's file, "" when it has none."""
        return options.log_path(container.host_config.log_config.type, container.id, self._paths.container(container.id))
