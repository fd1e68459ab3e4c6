"""SIGHUP: daemon.json is read again, and what may change while the engine runs is taken over (moby daemon/reload.go)."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sampan.daemon.config import DaemonConfig
from sampan.daemon.daemonjson import ConfigError

log = logging.getLogger("sampand")

RELOADABLE: Final = frozenset((
    "debug", "default_runtime", "insecure_registries", "labels", "live_restore", "log_level", "max_concurrent_downloads",
    "max_concurrent_uploads", "max_download_attempts", "mirrors", "registry_mirrors", "runtimes", "shutdown_timeout",
))  # fmt: skip


class Reloader:
    """Holds the configuration in force."""

    def __init__(
        self,
        config: DaemonConfig,
        read: Callable[[], DaemonConfig],
        apply: Callable[[DaemonConfig], None],
        publish: Callable[[Mapping[str, str]], None],
    ) -> None:
        """read: the configuration as it would be at a start now; raises ConfigError. publish: docker's event `reload` of the daemon."""
        self.config = config
        self._read, self._apply, self._publish = read, apply, publish

    def reload(self) -> None:
        """Take over what can be; a mistake leaves everything as it was, and the log says so."""
        try:
            wanted = self._read()
        except ConfigError as error:
            log.error("the configuration stays as it is: %s", error)
            return
        changed = {name for name in DaemonConfig.__struct_fields__ if getattr(wanted, name) != getattr(self.config, name)}
        taken: dict[str, Any] = {name: getattr(wanted, name) for name in changed & RELOADABLE}
        self.config = msgspec.structs.replace(self.config, **taken)
        self._apply(self.config)
        log.info("configuration reloaded: %s", ", ".join(sorted(map(_key, taken))) or "nothing has changed")
        if left := sorted(map(_key, changed - RELOADABLE)):
            log.warning("in force after a restart only, which leaves containers running: %s", ", ".join(left))
        self._publish({_key(name): _text(getattr(self.config, name)) for name in sorted(RELOADABLE)})


def _key(name: str) -> str:
    return name.replace("_", "-")


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode() if isinstance(value, (tuple, Mapping)) else str(value).lower()
