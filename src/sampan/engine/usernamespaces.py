"""Which user namespace a container gets (`userns-remap`), and its descriptors for a launch.

Every run has one of its own, as rights in a user namespace are rights over all that it owns; who shares another's network, IPC or PID
namespace shares its user namespace, too, as in docker. Nobody holds one: it lives as long as a process in it does, whoever of us dies.
"""

import os
from collections.abc import Mapping
from types import MappingProxyType

from sampan.engine.containerstore import Container, Containers
from sampan.engine.joining import PREFIX
from sampan.errors import Conflict, InvalidArgument, SystemFailure
from sampan.linux import idmap
from sampan.runtime.client import RequestRefused, SupervisorClient
from sampan.runtime.plan import UserMaps
from sampan.spec.docker_api.container import HostConfig


class UserNamespace:
    """A container's, and a network namespace that it owns, if one was made. Owns the descriptors until they are taken.

    maps: None: the host's, and no descriptors.
    """

    def __init__(self, maps: UserMaps | None = None, fds: Mapping[str, int] = MappingProxyType({})) -> None:
        self.maps, self.fds = maps, dict(fds)

    def take_network(self) -> int | None:
        """The network namespace, the caller's from then on."""
        return self.fds.pop("netns", None)

    def close(self) -> None:
        """May be called twice."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


class UserNamespaces:
    """One for an engine. maps: those of daemon.json; None: containers' users are the host's."""

    def __init__(self, maps: UserMaps | None, supervisor: SupervisorClient, containers: Containers) -> None:
        self.maps = maps
        self._supervisor, self._containers = supervisor, containers

    def maps_of(self, host: HostConfig) -> UserMaps | None:
        """Of the one that a container is to have; None: it is to have none."""
        return None if host.userns_mode == "host" else self.maps

    def root_of(self, host: HostConfig) -> tuple[int, int]:
        """(uid, gid) of a container's root on the host."""
        maps = self.maps_of(host)
        return (0, 0) if maps is None else (idmap.outside(maps.uids, 0), idmap.outside(maps.gids, 0))

    async def open(self, container: Container) -> UserNamespace:
        """That of a run that begins. Raises EngineError."""
        host = container.host_config
        maps = self.maps_of(host)
        if maps is None:
            return UserNamespace()
        check(host)
        for mode in (host.network_mode, host.ipc_mode, host.pid_mode):
            if mode.startswith(PREFIX):
                return self._of(self._containers.find(mode.removeprefix(PREFIX)))
        try:
            return UserNamespace(maps, await self._supervisor.user_namespace(maps, net=host.network_mode != "none"))
        except RequestRefused as error:
            raise SystemFailure(f"cannot make a user namespace: {error.message.lower()}") from error

    def _of(self, other: Container) -> UserNamespace:
        """Another's, which runs."""
        failure = f"cannot join a namespace of container {other.id}: "
        maps = maps_of_run(other)
        if other.is_running and maps is None:
            raise Conflict(f"{failure}it is in the host's user namespace (--userns=host)")
        try:
            fd = idmap.of_process(other.state.pid)
        except ProcessLookupError:
            raise Conflict(f"{failure}it is not running") from None
        live = other.live
        if live is None or live.has_ended:  # then the number may be another's
            os.close(fd)
            raise Conflict(f"{failure}it is not running")
        return UserNamespace(maps, {"userns": fd})


def maps_of_run(container: Container) -> UserMaps | None:
    """Of the user namespace in which a container runs; None: the host's."""
    maps = container.state.user_maps
    return None if maps is None else UserMaps(*maps)


def check(host: HostConfig) -> None:
    """What a container with a user namespace cannot have (moby verifyPlatformContainerSettings). Raises InvalidArgument."""
    if host.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running "
            "privileged mode"
        )
    if host.network_mode == "host":
        raise InvalidArgument("cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == "host":
        raise InvalidArgument("cannot share the host PID namespace when user namespaces are enabled")
