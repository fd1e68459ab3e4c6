"""What a container's log settings come to: checked at create, told to the keeper at start, shown by inspect."""

from typing import Any

from sampan.engine.containerstore import Container
from sampan.engine.launching import command_of
from sampan.engine.paths import Paths
from sampan.logs import journald, options
from sampan.logs.journald import JournaldSink
from sampan.logs.outgoing import Sink
from sampan.logs.syslog import SyslogSink


class ContainerLogs:
    """Log settings of all containers of one engine."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def attributes(self, container: Container) -> dict[str, str]:
        """The labels, variables and tag that each line carries (`logs --details`). Raises InvalidArgument for a bad template."""
        chosen = container.host_config.log_config
        if chosen.type == "none":
            return {}
        found = options.attributes(chosen.config or {}, self._info(container))
        return {name: value for key, value in found.items() if (name := journald.field_name(key))} if chosen.type == "journald" else found

    @staticmethod
    def _info(container: Container) -> options.LogInfo:
        return options.LogInfo(
            container_id=container.id,
            name=container.name,
            image_id=container.image_id,
            image_name=container.image_name,
            command=" ".join(command_of(container.config)),
            labels=container.config.labels or {},
            env=tuple(container.config.env or ()),
        )

    def sink(self, container: Container) -> Sink | None:
        """The connection to its driver's server; None for a driver without one."""
        chosen = container.host_config.log_config
        config = chosen.config or {}
        if chosen.type not in options.WITH_SERVER:
            return None
        info = self._info(container)
        tag = options.tag_of(config, info)
        if chosen.type == "syslog":
            return SyslogSink(config, tag)
        own = {
            "CONTAINER_ID": container.id[:12], "CONTAINER_ID_FULL": container.id, "CONTAINER_NAME": container.name, "CONTAINER_TAG": tag,
            "IMAGE_NAME": container.image_name, "SYSLOG_IDENTIFIER": tag,
        }  # fmt: skip
        return JournaldSink({**own, **{name: value for name, value in self.attributes(container).items() if name != "TAG"}})

    def is_blocking(self, container: Container) -> bool:
        """Whether the container waits for its driver's server."""
        return (container.host_config.log_config.config or {}).get("mode", "") != "non-blocking"

    def is_readable(self, container: Container) -> bool:
        """Whether there is something for `logs`."""
        return bool(self.settings(container)["driver"] != "none")

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
        chosen = container.host_config.log_config
        return options.log_path(chosen.type, chosen.config or {}, container.id, self._paths.container(container.id))

    def compressed_path(self, container: Container) -> str:
        """LogPath, if the files rotated away from there are compressed; else ""."""
        chosen = container.host_config.log_config
        return self.path(container) if options.compresses(chosen.type, chosen.config or {}) else ""
