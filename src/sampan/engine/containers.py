"""ContainerService: docker's calls on containers, each a use case over the registry and the runner."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress

import msgspec

from sampan.digest import ChainId
from sampan.engine import links, listing, merging, names, processes, showing, updating
from sampan.engine.containerstore import Container
from sampan.engine.control import Control
from sampan.engine.creating import Creator
from sampan.engine.images import ImageService
from sampan.engine.limits import host_limits
from sampan.engine.probing import HealthMonitor
from sampan.engine.runner import Runner
from sampan.engine.signals import means_end, signal_number, stop_signal
from sampan.errors import Conflict, EngineError, InvalidArgument, NotFound, NotModified, SystemFailure
from sampan.filters import Filters, labels_match
from sampan.linux import pty
from sampan.snapshot.api import Layer, Usage
from sampan.spec.docker_api.container import (
    CreateRequest,
    CreateResponse,
    HostConfig,
    PruneReport,
    TopResponse,
    UpdateRequest,
    UpdateResponse,
    WaitResponse,
)
from sampan.spec.docker_api.inspect import ContainerInspect, ContainerSummary
from sampan.waiting import to_the_end

log = logging.getLogger(__name__)

DEFAULT_STOP_SECONDS = 10


class Wait:
    """A wait that has begun (services.PendingWait)."""

    def __init__(self, container: Container, done: Callable[[], bool]) -> None:
        self._container, self._done = container, done

    async def result(self) -> WaitResponse:
        """The exit code, once the condition holds."""
        async with self._container.changed:
            await self._container.changed.wait_for(self._done)
        return WaitResponse(status_code=self._container.state.exit_code)


def _signal_for(failure: str, signal: str) -> int:
    """A signal's number, 0 for none. Raises InvalidArgument that begins with `failure`."""
    try:
        return signal_number(signal) if signal else 0
    except InvalidArgument as error:
        raise InvalidArgument(f"{failure}: {error.message}") from None


class ContainerService:
    """See api/services.py for the contract of each method."""

    def __init__(self, creator: Creator, runner: Runner, control: Control, images: ImageService, health: HealthMonitor) -> None:
        self._creator = creator
        self._runner = runner
        self._containers = runner.containers
        self._snapshots = runner.snapshots
        self._events = runner.events
        self._control = control
        self._images = images
        self._health = health
        self._pruning = asyncio.Lock()

    # create

    async def create(self, name: str, request: CreateRequest, platform: str) -> CreateResponse:
        """Make a container. See engine/creating.py."""
        return await self._creator.create(name, request, platform)

    # look

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> Sequence[ContainerSummary]:
        """Containers, newest first; limit > 0 and filters on state imply all."""
        ordered = sorted(self._containers, key=lambda item: item.created, reverse=True)
        chosen = listing.select(ordered, filters, self._containers.find, self._image_ids, self._runner.paths.volumes)
        everything = (
            all
            or limit > 0
            or bool(filters.get("status"))
            or bool(filters.get("exited"))
            or bool(filters.get("before"))
            or bool(filters.get("since"))
        )
        if not everything:
            chosen = [item for item in chosen if item.is_active]
        if limit > 0:
            chosen = chosen[:limit]
        result = []
        for container in chosen:
            usage = await self._usage(container) if size else None
            image_size = self._image_size(container) if size else 0
            result.append(showing.summary(container, self._image_now(container), usage, image_size, self._runner.paths.volumes))
        return result

    def _image_ids(self, ref: str) -> set[str]:
        with suppress(EngineError):
            return {self._images.resolve(ref).id}
        return set()

    def _image_now(self, container: Container) -> str | None:
        with suppress(EngineError):
            return self._images.resolve(container.image_name).id
        return None

    async def _usage(self, container: Container) -> Usage:
        """Of its writable tree: nothing when that is gone, as it may be at any moment while others are looked at."""
        with suppress(NotFound, FileNotFoundError):
            return await self._snapshots.usage(container.id)
        return Usage(0, 0)

    def _image_size(self, container: Container) -> int:
        return sum(layer.size for layer in self._layers(container))

    def _layers(self, container: Container) -> Iterator[Layer]:
        name = ChainId(container.chain_id) if container.chain_id else None
        while name is not None and (layer := self._snapshots.layer(name)) is not None:
            yield layer
            name = layer.parent

    def chain(self, ref: str) -> Sequence[ChainId]:
        """The layers that a container stands on, top first. Raises NotFound."""
        return [layer.name for layer in self._layers(self._containers.find(ref))]

    def inspect(self, ref: str) -> ContainerInspect:
        """Everything about one container but its sizes."""
        container = self._containers.find(ref)
        shown = links.shown(container, self._containers)
        return showing.inspect(container, self._runner.paths, self._snapshots, self._runner.logs.path(container), shown)

    async def inspect_with_sizes(self, ref: str) -> ContainerInspect:
        """Everything about one container."""
        container = self._containers.find(ref)
        usage = await self._usage(container)
        return msgspec.structs.replace(self.inspect(ref), size_rw=usage.size, size_root_fs=usage.size + self._image_size(container))

    async def top(self, ref: str, ps_args: str) -> TopResponse:
        """Processes of a running container, by the host's ps."""
        container = self._containers.find(ref)
        if not container.is_running:
            raise container.not_running()
        result = await processes.top(self._runner.layout, self._runner.paths.cgroup_of(container), ps_args)
        self._events.publish(container, "top")
        return result

    # run

    async def start(self, ref: str) -> None:
        """Start. NotModified if it runs already."""
        container = self._containers.find(ref)
        if container.is_active and not container.state.paused:
            raise NotModified("")
        async with container.lock:
            if container.state.paused:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.is_active:
                raise NotModified("")
            await self._start(container)

    async def _start(self, container: Container) -> None:
        """At somebody's wish: its restart policy begins to count anew. The caller holds the lock."""
        await self._settled(container)
        try:
            self._containers.set_state(container, msgspec.structs.replace(container.state, restart_count=0, backoff=0))
            await self._runner.start(container)
        except Exception:  # whatever it is: `docker run --rm` waits until the container is gone
            if container.host_config.auto_remove:
                container.removing = True
                await self._runner.discard(container, volumes=True)
            raise

    @staticmethod
    async def _settled(container: Container) -> None:
        """Wait for the last of an ended run, before the next begins. Raises Conflict when the container is to go."""
        await container.settled.wait()
        if container.removing:
            raise Conflict("container is marked for removal and cannot be started")

    async def stop(self, ref: str, *, timeout: int | None, signal: str) -> None:
        """Signal, wait, kill. NotModified if stopped."""
        container = self._containers.find(ref)
        number = _signal_for(f"cannot stop container: {ref}", signal)
        async with container.lock:
            if container.state.status == "restarting":
                await self._cancel_restart(container)
                self._events.publish(container, "stop")
                return
            if not container.is_running:
                raise NotModified("")
        # Not under the lock: the wait may be long, and a shorter stop or `rm -f` must not wait for it.
        await self._stop(container, timeout, number)
        self._events.publish(container, "stop")

    async def _stop(self, container: Container, timeout: int | None, number: int) -> None:
        seconds = timeout if timeout is not None else container.config.stop_timeout
        seconds = DEFAULT_STOP_SECONDS if seconds is None else seconds
        await self._control.stop(container, number or stop_signal(container.config), None if seconds < 0 else seconds)

    async def _cancel_restart(self, container: Container) -> None:
        """The caller holds the lock."""
        if container.restart_timer is not None:
            container.restart_timer.cancel()
        self._containers.note_state(container, msgspec.structs.replace(container.state, status="exited", manually_stopped=True))
        await container.notify()

    async def restart(self, ref: str, *, timeout: int | None, signal: str) -> None:
        """Stop and start."""
        container = self._containers.find(ref)
        number = _signal_for(f"Cannot restart container {ref}", signal)
        container.restarts += 1
        try:
            if container.is_running:
                await self._stop(container, timeout, number)  # not under the lock, as in stop
                self._events.publish(container, "stop")
            async with container.lock:
                if container.state.status == "restarting":
                    await self._cancel_restart(container)
                if not container.is_running:
                    await self._start(container)
        except EngineError as error:
            raise SystemFailure(f"Cannot restart container {ref}: {error.message}") from error
        finally:
            container.restarts -= 1
        self._events.publish(container, "restart")

    async def kill(self, ref: str, signal: str) -> None:
        """Send a signal. Conflict if not running."""
        if signal.isdecimal() and int(signal) > 64:
            raise InvalidArgument(f"cannot kill container: {ref}: the linux daemon does not support signal {int(signal)}")
        try:
            number = signal_number(signal or "SIGKILL")
            container = self._containers.find(ref)
        except (InvalidArgument, NotFound) as error:
            raise type(error)(f"cannot kill container: {ref}: {error.message}") from None
        ends = means_end(container.config, number)
        async with container.lock:
            if container.state.status == "restarting":
                if ends:
                    await self._cancel_restart(container)
                return
            if not container.is_running:
                raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
            if ends:
                self._containers.note_state(container, msgspec.structs.replace(container.state, manually_stopped=True))
            self._events.publish(container, "kill", {"signal": str(number)})
            if not self._control.send(container, number):
                raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
        if ends and container.state.paused:
            await self._control.thaw(container)
            self._health.begin(container)  # it may not heed the signal
        if number == 9:
            await self._control.wait_for_end(container)

    async def pause(self, ref: str, *, frozen: bool) -> None:
        """Freeze or thaw."""
        container = self._containers.find(ref)
        async with container.lock:
            if not container.is_running:
                raise container.not_running() if frozen else Conflict(f"Container {container.id} is not paused")
            if frozen == container.state.paused:
                raise Conflict(f"Container {container.id} is {'already' if frozen else 'not'} paused")
            await self._control.freeze(container, frozen=frozen)
            if frozen:
                self._health.end(container)
            else:
                self._health.begin(container)
            self._events.publish(container, "pause" if frozen else "unpause")

    async def rename(self, ref: str, name: str) -> None:
        """Give another name."""
        container = self._containers.find(ref)
        name = name.removeprefix("/")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        if not names.VALID.fullmatch(name):
            raise InvalidArgument(f"Error when allocating new name: Invalid container name (/{name}), only {names.ALLOWED} are allowed")
        if name == container.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        old = container.name
        try:
            self._containers.rename(container, name)
        except Conflict as error:
            raise Conflict(f"Error when allocating new name: {error.message}") from None
        self._events.publish(container, "rename", {"oldName": f"/{old}"})

    async def update(self, ref: str, request: UpdateRequest) -> UpdateResponse:
        """Change limits, restart policy and published ports.

        InvalidArgument, Conflict: see engine/updating.py; SystemFailure: the kernel refuses a limit, or a port cannot be had.
        """
        container = self._containers.find(ref)
        removed, added = [updating.port_name(port) for port in request.publish_rm or ()], request.publish_add or {}
        async with container.lock:
            try:
                if container.removing:
                    raise Conflict('container is marked for removal and cannot be "update"')
                host, warnings = updating.updated(container.host_config, request, host_limits())
                if removed or added:
                    host = updating.republished(container.config, host, removed, added)
                    if host.network_mode == "host" and added:
                        warnings.append(merging.PORTS_DISCARDED)
                await to_the_end(self._change(container, host, removed, added))
            except (Conflict, SystemFailure) as error:
                raise type(error)(f"Cannot update container {container.id}: {error.message}") from None
        self._events.publish(container, "update")
        return UpdateResponse(warnings=warnings or None, port_bindings=host.port_bindings if removed or added else None)

    async def _change(self, container: Container, host: HostConfig, removed: Sequence[str], added: updating.PortBindings) -> None:
        """Have a container what its HostConfig says from now on: all of it, or on failure none. The caller holds its lock."""
        if not container.is_running:
            self._containers.set_host_config(container, host)
            return
        async with AsyncExitStack() as undo:
            places = None
            if removed or added:
                places = await undo.enter_async_context(self._runner.network.republished(container, removed, added))
            await undo.enter_async_context(self._control.limited(container, host))
            state = container.state if places is None else msgspec.structs.replace(container.state, endpoints=places)
            self._containers.set_host_config(container, host, state)

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Delete. Conflict if running and not force. link: only the link `container/alias`."""
        if link:
            return await self._remove_link(ref)
        container = self._containers.find(ref)
        if container.removing:
            raise Conflict(f"removal of container {ref} is already in progress")
        if not force:
            self._check_stopped(container, ref)
        container.removing = True
        try:
            if container.is_running:
                await self._control.kill(container)  # before the lock: what holds it may wait for just that end
            async with container.lock:
                if container.removed.is_set():  # it was one with --rm, whose start failed just now
                    return None
                if not force:
                    self._check_stopped(container, ref)  # a start was under way
                if container.state.status == "restarting":
                    await self._cancel_restart(container)
                if container.is_running:
                    await self._control.kill(container)
                await container.settled.wait()
                await self._runner.discard(container, volumes=volumes)
        except BaseException:
            container.removing = False
            raise

    @staticmethod
    def _check_stopped(container: Container, ref: str) -> None:
        """Raise Conflict, in docker's words, where only force removes."""
        if container.state.paused:
            raise Conflict(f'cannot remove container "{ref}": container is paused and must be unpaused first')
        if container.is_active:
            words = f"container is {container.state.status}: stop the container before removing or force remove"
            raise Conflict(f'cannot remove container "{ref}": {words}')

    async def _remove_link(self, path: str) -> None:
        container, _ = links.without(path, self._containers)
        async with container.lock:
            container, host = links.without(path, self._containers)
            self._containers.set_host_config(container, host)
            if container.is_running:
                self._runner.network.write_files(container, container.state.endpoints, self._runner.paths.container(container.id))

    async def auto_remove(self, container: Container) -> None:
        """--rm: an ended container goes by itself. What waits to start it finds `removing`."""
        container.removing = True
        async with container.lock:
            if self._containers.get(container.id) is container:
                await self._runner.discard(container, volumes=True)

    async def wait(self, ref: str, condition: str) -> Wait:
        """Begin to wait."""
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        container = self._containers.find(ref)
        before = container.exits
        if condition in ("", "not-running"):
            return Wait(container, lambda: container.exited.is_set() and (container.exits > before or not container.is_active))
        if condition == "next-exit":
            return Wait(container, lambda: container.exits > before and container.exited.is_set())
        return Wait(container, container.removed.is_set)

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        """Set the terminal's size, if there is one. Raises Conflict when the container does not run."""
        container = self._containers.find(ref)
        if not container.is_running or container.live is None:
            raise Conflict(f"container {container.id} is not running")
        if container.live.pty is not None:  # without a terminal it is a success that does nothing, as in docker
            pty.set_size(container.live.pty, height, width)
        self._events.publish(container, "resize", {"height": str(height), "width": str(width)})

    async def prune(self, filters: Filters) -> PruneReport:
        """Remove all stopped containers that match."""
        listing.check(filters, ("until", "label", "label!"))
        until = listing.until_ns(filters, self._runner.clock.now_ns())
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        async with self._pruning:
            return await self._prune(filters, until)

    async def _prune(self, filters: Filters, until: int | None) -> PruneReport:
        removed, freed = [], 0
        for container in self._containers:
            labels = container.config.labels or {}
            if (
                container.is_active
                or container.removing
                or (until is not None and container.created > until)
                or not labels_match(labels, filters.get("label", ()))
                or any(labels_match(labels, [text]) for text in filters.get("label!", ()))
            ):
                continue
            usage = await self._usage(container)
            try:
                await self.remove(container.id, force=False, volumes=False, link=False)
            except EngineError as error:  # started or removed meanwhile, or it cannot be removed
                log.info("container %s is not pruned: %s", container.id, error.message)
                continue
            removed.append(str(container.id))
            freed += usage.size
        self._events.pruned(freed)
        return PruneReport(containers_deleted=removed or None, space_reclaimed=freed)
