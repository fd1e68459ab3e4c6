"""What a run has to do with others: its place on networks, what a build lends it, what is done at the turns of its life."""

import contextlib
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from sampan.engine.containerstore import Container
from sampan.network.ports import Binding
from sampan.runtime import plan
from sampan.state.containers import EndpointState


class Sandbox(msgspec.Struct, frozen=True):
    """A container's place on its networks. netns is -1 for the host's, None for one the child makes itself; else it is the caller's."""

    netns: int | None
    endpoints: tuple[EndpointState, ...]
    custody: Mapping[str, int] = {}
    """More descriptors, by name, that are to live as long as the container, whoever dies; they stay the network's own."""
    environment: tuple[str, ...] = ()
    """Variables that tell of what it is linked to."""

    @property
    def descriptors(self) -> dict[str, int]:
        """That of its netns by its name in a launch, if there is one."""
        return {"netns": self.netns} if self.netns is not None and self.netns >= 0 else {}


class Lent:
    """What one run has that no record knows of: a later start of the container has none of it. Owns its descriptors."""

    def __init__(self) -> None:
        self.mounts: list[plan.Mount] = []
        self.fds: dict[str, int] = {}
        """By the names that the mounts give them."""
        self.environment: list[str] = []

    def close(self) -> None:
        """May be called twice."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}


class Networking(Protocol):
    """What the runner needs of networks; see engine/sandboxes.py."""

    def check(self, container: Container) -> None:
        """Refuse what a container about to be created cannot have. Raises InvalidArgument."""

    def started(self, container: Container) -> None:
        """Its process runs, and its state says so."""

    async def attach(self, container: Container, netns: int | None = None) -> Sandbox:
        """Addresses, netns and published ports for a container about to start. Raises EngineError.

        netns: an empty one that its user namespace owns, the network's from then on.
        """

    async def detach(self, container: Container) -> None:
        """Take them back. Never raises."""

    def republished(
        self, container: Container, removed: Collection[str], added: Mapping[str, Sequence[Binding] | None]
    ) -> contextlib.AbstractAsyncContextManager[tuple[EndpointState, ...]]:
        """Other published ports for a running container, and its places then; undone when the context ends by an exception."""

    def write_files(self, container: Container, endpoints: Sequence[EndpointState], directory: str) -> None:
        """Write hostname, hosts and resolv.conf."""


async def _nothing(_container: Container, _maps: plan.UserMaps | None = None) -> None: ...


class RunHooks(msgspec.Struct, frozen=True):
    """What others of the engine do at the turns of a container's life."""

    started: Callable[[Container], Awaitable[None]] = _nothing
    """Its process runs; events and logs of this run come after."""
    ended: Callable[[Container], None] = lambda _container: None
    """Its process has ended."""
    auto_remove: Callable[[Container], Awaitable[None]] = _nothing
    """A run of a container with --rm is over."""
    quiesce: Callable[[Container], Awaitable[None]] = _nothing
    """Waits until no worker is at its tree, before that is mounted or removed."""
    leave: Callable[[Container], Awaitable[None]] = _nothing
    """Waits until nobody is at its directory, before that is removed; its state says already that it will be."""
    give_to_user: Callable[[Container, plan.UserMaps | None], Awaitable[None]] = _nothing
    """Has its `:U` mounts belong to its user, before they are mounted."""
    discarded: Callable[[], None] = lambda: None
    """A container's tree is gone: layers that only it needed can go."""
    network_took: Callable[[str, float], None] = lambda _action, _seconds: None
    """How long it took to `allocate` or to `release` what a container has of networks."""
