"""Starts containers and sees their ends: the joint of snapshots, network, keeper and supervisor. One Runner for all containers.

Each step of a start is undone when a later one fails (AsyncExitStack). Whatever a kill -9 leaves half done, restore.py finds.
"""

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sampan.clock import Clock
from sampan.engine import cdi, health, joining, launching, restarting, timezones
from sampan.engine.background import Background
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerlogs import ContainerLogs
from sampan.engine.containermounts import ContainerMounts, Opened
from sampan.engine.containerstore import Container, Containers, Live
from sampan.engine.launch_failures import StartFailure, start_failure
from sampan.engine.paths import Paths
from sampan.engine.runs import Lent, Networking, RunHooks, Sandbox
from sampan.engine.runtimes import Runtimes
from sampan.engine.usernamespaces import UserNamespace, UserNamespaces
from sampan.errors import EngineError, Unavailable, full_disk
from sampan.linux import pidfd
from sampan.runtime import cgroups, ocispec, plan, recovery
from sampan.runtime.client import KeeperClient, Launched, LaunchError, RequestRefused, SupervisorClient
from sampan.snapshot.api import Snapshots
from sampan.state.containers import ContainerState, EndpointState

log = logging.getLogger(__name__)

END_TRIES = 250
"""How often the processes left in a cgroup are killed, 20 ms apart."""
DRAIN_SECONDS = 30.0
"""How long the end of a container waits for its last output to reach the log."""


class Runner:
    """See the module."""

    def __init__(
        self,
        containers: Containers,
        snapshots: Snapshots,
        supervisor: SupervisorClient,
        keeper: KeeperClient,
        network: Networking,
        mounts: ContainerMounts,
        events: ContainerEvents,
        background: Background,
        logs: ContainerLogs,
        clock: Clock,
        paths: Paths,
        settings: launching.LaunchSettings,
        userns: UserNamespaces,
        runtimes: Runtimes,
    ) -> None:
        self.containers = containers
        self.snapshots = snapshots
        self.supervisor = supervisor
        self.keeper = keeper
        self.network = network
        self.mounts = mounts
        self.events = events
        self.background = background
        self.logs = logs
        self.clock = clock
        self.paths = paths
        self.settings = settings
        self.userns = userns
        self.runtimes = runtimes
        self.layout = cgroups.host_layout()
        self.hooks = RunHooks()
        """Set once, where the objects meet."""
        self._inodes: dict[str, recovery.Inodes] = {}
        """Of the stdio pipes of runs that are being started; then they are in the container's state."""
        self._handled: set[str] = set()
        self._early: dict[str, list[Callable[[], object]]] = {}
        """Events of a run whose start is still being noted here: a process may end before the reply to its launch is read."""

    # start

    async def start(self, container: Container, lent: Lent | None = None) -> None:
        """Start a stopped container; the caller holds its lock. Raises StartFailure and other EngineErrors, leaving it stopped.

        lent: for this run only; it stays the caller's.
        """
        run = container.state.run + 1
        key = f"{container.id}.{run}"
        self._early[key] = []
        try:
            async with contextlib.AsyncExitStack() as undo:
                userns = await self.userns.open(container)
                undo.callback(userns.close)
                command = self.runtimes.command(container.host_config, remapped=userns.maps is not None)
                launched, held, endpoints = await self._launch(container, key, command, lent or Lent(), userns, undo)
                userns.close()
                live = Live(key, launched.pidfd, stdin=held.pop("stdin", None), pty=launched.pty, outputs=held)
                state = msgspec.structs.replace(
                    container.state,
                    status="running",
                    pid=launched.pid,
                    start_time=launched.start_time,
                    run=run,
                    exit_code=0,
                    error="",
                    oom_killed=False,
                    started_at=launched.started_at,
                    finished_at=0,
                    manually_stopped=False,
                    endpoints=endpoints,
                    user_maps=userns.maps.as_tuple() if userns.maps is not None else None,
                    boot_id=self.supervisor.link.boot_id,
                    pipes=msgspec.structs.astuple(self._inodes.pop(key, recovery.Inodes())),
                    health=health.begun(container.state.health) if health.check_of(container.config) else None,
                    runtime=command,
                )
                self.containers.set_state(container, state)
                container.live = live
                container.exited.clear()
                undo.pop_all()
        except BaseException as error:
            self._early.pop(key, None)
            self._inodes.pop(key, None)
            # A run's number is used once: what is left of this one somewhere cannot be taken for the next.
            state = msgspec.structs.replace(container.state, run=run)
            failure = error if isinstance(error, EngineError) else full_disk(error)
            if failure is not None:
                code = failure.exit_code if isinstance(failure, StartFailure) else 128
                state = msgspec.structs.replace(state, exit_code=code, error=failure.message)
            self.containers.note_state(container, state)
            if failure is None or failure is error:
                raise
            raise failure from None
        try:
            await self._tell_of_start(container)
        finally:  # its end must be heard of
            for again in self._early.pop(key, ()):
                again()

    async def _tell_of_start(self, container: Container) -> None:
        """Whatever fails: it runs, and who was told that its start had failed would lose it."""
        try:
            await self.hooks.started(container)
        except Exception:
            log.exception("container %s runs, but its logs or its health may not be followed", container.id)
        try:
            self.network.started(container)
        except Exception:
            log.exception("container %s runs, but those that are linked to it may not know its address", container.id)
        self.events.publish_networks(container, "connect")
        self.events.publish(container, "start")

    async def _launch(
        self, container: Container, key: str, command: tuple[str, ...], lent: Lent, userns: UserNamespace, undo: contextlib.AsyncExitStack
    ) -> tuple[Launched, dict[str, int], tuple[EndpointState, ...]]:
        """The process, our ends of its stdio by name, and its places on networks."""
        undo.push_async_callback(self.mounts.close, container)
        opened = await self.mounts.open(container)
        undo.callback(opened.close)
        await self.hooks.give_to_user(container, userns.maps)
        await self.hooks.quiesce(container)
        began = time.monotonic()
        sandbox = await self.network.attach(container, userns.take_network())
        self.hooks.network_took("allocate", time.monotonic() - began)
        undo.push_async_callback(self.network.detach, container)
        try:
            return await self._launch_on(container, key, command, sandbox, opened, lent, userns, undo)
        finally:
            for fd in sandbox.descriptors.values():
                os.close(fd)

    async def _launch_on(
        self,
        container: Container,
        key: str,
        command: tuple[str, ...],
        sandbox: Sandbox,
        opened: Opened,
        lent: Lent,
        userns: UserNamespace,
        undo: contextlib.AsyncExitStack,
    ) -> tuple[Launched, dict[str, int], tuple[EndpointState, ...]]:
        if not container.host_config.network_mode.startswith("container:"):
            self.network.write_files(container, sandbox.endpoints, self.paths.container(container.id))
        if container.host_config.timezone:
            timezones.write(container.host_config.timezone, self.paths.container(container.id))
        passed_on = undo.enter_context(contextlib.ExitStack())
        spec, sent = await self._spec(container, sandbox, opened, lent, userns, passed_on)
        if command:
            undo.push_async_callback(self._end_runtimes, container, command)
            launch = ocispec.launch(spec, self.runtimes.prepare(container.id, command))
        else:
            launch = plan.launch_plan(spec)
        fds: dict[str, int] = {}
        self._make_stdio(container, fds, undo)
        fds.update({f"custody:{name}": os.dup(fd) for name, fd in sandbox.custody.items()})
        self._inodes[key] = recovery.Inodes(
            **{name: recovery.inode(fds[f"custody:{name}"]) for name in ("stdin", "stdout", "stderr") if f"custody:{name}" in fds}
        )
        record: dict[str, Any] = {"log": self.logs.settings(container), "tty": container.config.tty}
        ours = {name.removeprefix("custody:"): fd for name, fd in fds.items() if name.startswith("custody:")}
        undo.push_async_callback(self._forget_stream, key)
        await self.keeper.adopt(key, container.id, container.config.tty, record["log"], ours, held=bool(command))
        try:
            launched = await self.supervisor.launch(key, container.id, launch, {**fds, **sent, **sandbox.descriptors}, record)
        except LaunchError as error:
            sources = {mount.destination: mount.source for mount in spec.mounts if mount.type == "bind"}
            raise start_failure(error, launching.command_of(container.config), sources) from error
        except (Unavailable, asyncio.CancelledError):
            await asyncio.shield(self._end_lost(container, key))
            raise
        passed_on.close()
        opened.close()
        if "stdin" in ours:
            os.set_blocking(ours["stdin"], False)
        for name in ("stdin", "stdout", "stderr"):
            if name in fds:
                os.close(fds.pop(name))
        undo.push_async_callback(self._end_lost, container, key)
        return launched, ours, sandbox.endpoints

    async def _spec(
        self, container: Container, sandbox: Sandbox, opened: Opened, lent: Lent, userns: UserNamespace, passed_on: contextlib.ExitStack
    ) -> tuple[plan.LaunchSpec, dict[str, int]]:
        """Everything a container's init is made of, and the descriptors that this names; passed_on closes those that are made here."""
        layers = await self.snapshots.mounts(container.id)
        passed_on.callback(layers.close)
        shared = joining.descriptors(container.host_config, self.containers, passed_on)
        sent = opened.fds | lent.fds | shared | userns.fds
        sent |= {f"layer{n}": lower for n, lower in enumerate(layers.lowers) if isinstance(lower, int)}
        rootfs = plan.Rootfs(
            lowers=tuple(lower if isinstance(lower, str) else n for n, lower in enumerate(layers.lowers)),
            upper=layers.upper,
            work=layers.work,
            readonly=container.host_config.readonly_rootfs,
        )
        requests = container.host_config.device_requests
        edits = await asyncio.to_thread(cdi.edits_of, requests, self.settings.cdi_spec_dirs) if requests else cdi.Edits()
        bundle = self.paths.container(container.id)
        if edits.hooks:
            cdi.write_bundle(bundle, f"{self.paths.exec_root}/rootfs", container.config.hostname, has_users=userns.maps is not None)
        taken = {mount.destination for mount in opened.mounts}
        own = [mount for mount in self.own_mounts(container) if mount.destination not in taken]
        spec = launching.launch_spec(
            container.id,
            msgspec.structs.replace(container.config, env=[*sandbox.environment, *(container.config.env or ()), *lent.environment]),
            container.host_config,
            rootfs,
            [*own, *opened.mounts, *lent.mounts],
            cgroup=self.paths.cgroup_of(container),
            netns=bool(sandbox.descriptors),
            settings=self.settings,
            edits=edits,
            bundle=bundle,
            userns=userns.maps,
        )
        return spec, sent

    async def _end_lost(self, container: Container, key: str) -> None:
        """Nobody will read the reply to a launch: whatever came of it is in the container's cgroup, and must not run on unknown."""
        await self.end_cgroup(self.paths.cgroup_of(container))
        with contextlib.suppress(EngineError):
            await self.forget_process(key)

    async def _end_runtimes(self, container: Container, command: tuple[str, ...]) -> None:
        """What an OCI runtime has made of a start that failed, or whose helper was killed."""
        await self.end_cgroup(self.paths.cgroup_of(container))
        await self.runtimes.delete(container.id, command)

    async def end_cgroup(self, path: str) -> None:
        """Kill every process in a cgroup of a container's (paths.cgroup) and remove it."""
        for _ in range(END_TRIES):
            if not cgroups.kill_all(self.layout, path):
                break
            await asyncio.sleep(0.02)
        else:
            log.warning("processes in the cgroup %s do not end", path)
        await asyncio.to_thread(cgroups.remove, self.layout, path)

    async def _end_late_cgroup(self, path: str) -> None:
        """What the child of a killed supervisor made of a container's cgroup after the launch was given up."""
        if any(map(os.path.isdir, cgroups.directories(self.layout, path))):
            await self.end_cgroup(path)

    async def forget_process(self, key: str, seconds: float = 5.0) -> None:
        """Have the supervisor drop a killed process, as soon as it has seen its end. Raises EngineError."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                await self.supervisor.forget(key)
                return
            except RequestRefused as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.02)

    def own_mounts(self, container: Container) -> list[plan.Mount]:
        """The files that the engine itself mounts into a container; of one in another's netns they are the other's."""
        directory = self.paths.container(container.host_config.network_mode.removeprefix("container:"))
        if not container.host_config.network_mode.startswith("container:"):
            directory = self.paths.container(container.id)
        names = ("resolv.conf", "hostname", "hosts")
        readonly = container.host_config.readonly_rootfs
        own = [
            plan.Mount(destination=f"/etc/{name}", source=f"{directory}/{name}", recursive=False, readonly=readonly, mapped=True)
            for name in names
        ]
        if container.host_config.timezone:
            # Not through a link: images have one there, to the file of UTC.
            source = f"{self.paths.container(container.id)}/{timezones.FILE}"
            own.append(
                plan.Mount(destination=f"/etc/{timezones.FILE}", source=source, recursive=False, readonly=True, over_link=True, mapped=True)
            )
        return own

    @staticmethod
    def _make_stdio(container: Container, fds: dict[str, int], undo: contextlib.AsyncExitStack) -> None:
        """Pipes for a container without a tty: its ends by name, ours as `custody:<name>`."""

        def close_all() -> None:
            for fd in fds.values():
                with contextlib.suppress(OSError):
                    os.close(fd)

        undo.callback(close_all)
        if container.config.tty:
            return
        for name in ("stdout", "stderr"):
            fds[f"custody:{name}"], fds[name] = os.pipe2(os.O_CLOEXEC)
        if container.config.open_stdin:
            fds["stdin"], fds["custody:stdin"] = os.pipe2(os.O_CLOEXEC)

    async def _forget_stream(self, key: str) -> None:
        with contextlib.suppress(EngineError):
            await self.keeper.forget(key)

    # the end

    def _live(self, key: str) -> Live | None:
        """The handles of a run, None once they are given back."""
        container = self.containers.get(key.partition(".")[0])
        live = container.live if container is not None else None
        return live if live is not None and live.key == key else None

    def is_over(self, key: str) -> bool:
        """Whether a run is nobody's any more: what keeper or supervisor still know of it is of no use."""
        return key not in self._early and self._live(key) is None

    def exit_event(self, key: str, code: int, at: int) -> bool:
        """A process ended (told by the supervisor, the keeper, or found at start). Told twice, handled once; False: no run we know."""
        if key in self._early:
            self._early[key].append(lambda: self.exit_event(key, code, at))
            return True
        container = self.containers.get(key.partition(".")[0])
        if container is None or container.key != key:
            return False
        if key in self._handled or not container.is_running:
            return key in self._handled
        self._handled.add(key)
        oom = cgroups.oom_kills(self.layout, self.paths.cgroup_of(container)) > 0
        state = container.state
        finished_at = at or self.clock.now_ns()
        duration = max(0, (finished_at - state.started_at) // 1_000_000_000)
        # Decided at once: from now on stop and kill are about the restart.
        stays = container.removing or self.containers.ending
        following = None if stays else restarting.next_start(container.host_config.restart_policy, state, code, duration)
        backoff, delay = following or (state.backoff, 0.0)
        state = msgspec.structs.replace(
            state,
            status="restarting" if following else "exited",
            restart_count=state.restart_count + (1 if following else 0),
            backoff=backoff,
            pid=0,
            start_time=0,
            exit_code=code,
            oom_killed=oom,
            finished_at=finished_at,
            paused=False,
            health=health.stopped(state.health),
        )
        self.containers.note_state(container, state)
        container.exits += 1
        container.settled.clear()
        self.hooks.ended(container)
        if oom:
            self.events.publish(container, "oom")
        self.background.spawn(self._finish(container, key, code, duration, delay))
        return True

    def drained_event(self, key: str, end: tuple[int, int] | None) -> None:
        """The keeper has all output of a run in the log, up to position end."""
        if key in self._early:
            self._early[key].append(lambda: self.drained_event(key, end))
            return
        if (live := self._live(key)) is not None:
            live.drained.set()
            for follower in tuple(live.followers):
                follower.ended(end)

    async def _drain(self, live: Live) -> None:
        """Wait until all output is in the log, as long as no keeper has had DRAIN_SECONDS for it."""
        while not live.drained.is_set():
            keeper = self.keeper.link.pid if self.keeper.link.is_up else 0
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await live.drained.wait()
            except TimeoutError:
                if keeper and keeper == self.keeper.link.pid:
                    log.warning("the output of %s is not in its log after %d s", live.key, DRAIN_SECONDS)
                    self.drained_event(live.key, None)

    async def _finish(self, container: Container, key: str, code: int, duration: int, delay: float) -> None:
        """The end of a run, to its last part; whatever fails, the container can be started and removed again.

        duration: of the run, delay: before the next, both in seconds.
        """
        try:
            await self._give_back(container, key, code, duration)
        finally:
            container.settled.set()
            if container.state.status == "restarting":
                loop = asyncio.get_running_loop()
                container.restart_timer = loop.call_later(delay, lambda: self.background.spawn(self._restart(container)))
        if container.host_config.auto_remove and not container.removing and not container.restarts:
            await self.hooks.auto_remove(container)

    async def _give_back(self, container: Container, key: str, code: int, duration: int) -> None:
        """Give everything of a run back, then tell those who wait."""
        live = container.live
        if container.host_config.pid_mode:
            # Without a PID namespace of its own the end of its first process ends no other (runc signalAllProcesses).
            await self.end_cgroup(self.paths.cgroup_of(container))
        began = time.monotonic()
        await self.network.detach(container)
        self.hooks.network_took("release", time.monotonic() - began)
        self.events.publish_networks(container, "disconnect")
        await self.mounts.close(container)
        if live is not None:
            await self._drain(live)
        container.live = None
        container.exited.set()
        self.events.publish(container, "die", {"exitCode": str(code), "execDuration": str(duration)})
        await container.notify()
        if live is not None:
            if live.pidfd >= 0:
                pidfd.reap(live.pidfd)  # an orphan of a killed keeper is our child
            live.close()
        if container.state.runtime:
            await self.runtimes.delete(container.id, container.state.runtime)
        await asyncio.to_thread(cgroups.remove, self.layout, self.paths.cgroup_of(container))
        with contextlib.suppress(EngineError):
            await self.supervisor.forget(key)
        await self._forget_stream(key)
        self._handled.discard(key)

    async def _restart(self, container: Container) -> None:
        async with container.lock:
            if container.state.status != "restarting" or container.removing or self.containers.ending:
                return
            try:
                await self.start(container)
            except Exception as error:  # whatever it is: "restarting" must not stay for ever
                log.warning("restart of %s failed: %s", container.id, error)
                self.containers.note_state(container, msgspec.structs.replace(container.state, status="exited"))
                await container.notify()

    # removal

    async def discard(self, container: Container, *, volumes: bool = False) -> None:
        """Delete a stopped container and all it has; volumes: and its anonymous volumes.

        A kill at any point leaves a row that says so, and sampand does it again at start.
        """
        volumes = volumes or container.state.remove_volumes
        self.containers.note_state(container, msgspec.structs.replace(container.state, status="removing", remove_volumes=volumes))
        await self.hooks.quiesce(container)
        await self.hooks.leave(container)
        await self._end_late_cgroup(self.paths.cgroup_of(container))
        self.snapshots.remove(container.id)
        self.hooks.discarded()
        directory = self.paths.container(container.id)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        anonymous = self.mounts.anonymous(container) if volumes else []
        self.containers.remove(container, anonymous)
        self.mounts.discarded(container, anonymous)
        container.removed.set()
        self.events.publish(container, "destroy")
        await container.notify()


def new_state(console: Sequence[int]) -> ContainerState:
    """The state of a container that was just created."""
    return ContainerState(console_size=(console[0], console[1]))
