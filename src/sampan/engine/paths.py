"""Where the engine keeps what belongs to one container."""

import os
from pathlib import Path

import msgspec

from sampan.engine.containerstore import Container


class Paths(msgspec.Struct, frozen=True):
    """The engine's roots, and a container's places below them."""

    data_root: Path
    exec_root: Path
    cgroup_parent: str

    def container(self, container_id: str) -> str:
        """The directory of one container. Text, not a Path: it is on the way of every inspect."""
        return f"{self.data_root}/containers/{container_id}"

    @property
    def volumes(self) -> str:
        """The directory of all volumes."""
        return f"{self.data_root}/volumes"

    @property
    def runtimes(self) -> str:
        """Where OCI runtimes keep what they know of containers."""
        return f"{self.exec_root}/runtimes"

    def runtime(self, container_id: str) -> str:
        """The same of one container: `--root` of its runtime."""
        return f"{self.runtimes}/{container_id}"

    def log(self, container_id: str) -> str:
        """Where its log segments are."""
        return f"{self.container(container_id)}/log"

    def cgroup(self, container_id: str, parent: str = "") -> str:
        """Its cgroup, below each hierarchy's root. parent: what was asked for (`--cgroup-parent`); "" = the engine's own."""
        above = os.path.normpath(f"/{parent}").strip("/") if parent else self.cgroup_parent
        return f"{above}/{container_id}" if above else container_id

    def cgroup_of(self, container: Container) -> str:
        """A container's cgroup, below the parent that it asked for."""
        return self.cgroup(container.id, container.host_config.cgroup_parent)
