"""ExecService: further processes in running containers. Their streams belong to sampand alone and are not logged."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from sampan.engine import launching, processes, usernamespaces
from sampan.engine.background import Background
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerstore import Container, Containers
from sampan.engine.launch_failures import StartFailure, exec_failure
from sampan.engine.paths import Paths
from sampan.engine.runtimes import Runtimes
from sampan.engine.streaming import READ, DetachScanner, converse, detach_keys, multiplex, pump_input, pump_output, read_some
from sampan.errors import Conflict, EngineError, InvalidArgument, NotFound, SystemFailure
from sampan.ids import ExecId, new_id
from sampan.linux import pidfd, pty
from sampan.runtime import ocispec, plan
from sampan.runtime.client import Launched, LaunchError, RequestRefused, SupervisorClient
from sampan.spec.docker_api.container import ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest
from sampan.streams import Duplex, OpenStream

log = logging.getLogger(__name__)

START_SECONDS = 30.0
"""How long the start of a probe may take; its own time is counted from there."""
WASTE_SECONDS = 0.001
"""Between reads of output that nobody keeps."""
KEPT_SECONDS = 300.0
"""How long an ended exec can be inspected, as docker's own clean-up every five minutes."""
MAX_KEPT = 10_000
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""What execs that do not run may take up; beyond that the oldest are forgotten."""
STDOUT, STDERR = 1, 2
START_FAILED = 126
"""The exit code of an exec that was not got to start (moby ContainerExecStart)."""


def _words(request: ExecCreateRequest) -> str:
    """As events show the command: docker joins the program and the list of its arguments, even an empty one, with a space."""
    words = request.cmd or [""]
    return f"{words[0]} {' '.join(words[1:])}"


class Exec:
    """One exec."""

    def __init__(self, exec_id: ExecId, container: Container, request: ExecCreateRequest) -> None:
        self.id = exec_id
        self.container = container
        self.request = request
        self.probe = False
        """Goes with the sampand that began it."""
        self.size = sum(len(text) for text in (*(request.cmd or ()), *(request.env or ()))) + 1024
        """About as much memory as it takes, in bytes."""
        self.pid = 0
        self.start_time = 0
        self.started_at = 0
        self.pidfd = -1
        self.pty = -1
        self.running = False
        self.started = False
        self.exit_code: int | None = None
        self.ended = asyncio.Event()


class Captured(msgspec.Struct, frozen=True):
    """What came of a command whose output is for the engine itself."""

    exit_code: int | None
    """None: it took too long, and was killed."""
    output: bytes
    ended: asyncio.Event
    """Set once the process has ended."""


class Held:
    """A descriptor that is closed once, by whoever comes first; -1: none."""

    def __init__(self) -> None:
        self.fd = -1

    def close(self) -> None:
        """Close it, if it is there still."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class ExecService:
    """See api/services.py for the contract."""

    def __init__(
        self,
        containers: Containers,
        supervisor: SupervisorClient,
        events: ContainerEvents,
        background: Background,
        paths: Paths,
        runtimes: Runtimes,
    ) -> None:
        self._containers = containers
        self._runtimes = runtimes
        self._supervisor = supervisor
        self._events, self._background, self._paths = events, background, paths
        self._execs: dict[str, Exec] = {}
        self._kept_bytes = 0

    def _find(self, exec_id: str) -> Exec:
        found = self._execs.get(exec_id)
        if found is None or found.container.removed.is_set():
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def _keep(self, added: Exec) -> None:
        """Note a new exec; old ones that do not run give way when there are too many."""
        self._execs[added.id] = added
        self._kept_bytes += added.size
        if len(self._execs) > MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES:
            for found in [item for item in self._execs.values() if item is not added and (item.ended.is_set() or not item.started)]:
                if len(self._execs) <= MAX_KEPT and self._kept_bytes <= MAX_KEPT_BYTES:
                    break
                self._drop(found.id)

    def _drop(self, exec_id: str) -> None:
        found = self._execs.pop(exec_id, None)
        if found is not None:
            self._kept_bytes -= found.size
            found.container.exec_ids.discard(exec_id)

    def container_ended(self, container: Container) -> None:
        """Execs that were never started go with the run, as in docker; those that ran can be inspected for a while."""
        for exec_id in list(container.exec_ids):
            if not self._execs[exec_id].started:
                self._drop(exec_id)

    def _ended(self, found: Exec, code: int) -> None:
        """It has an exit code: it ran, or failed to."""
        found.exit_code, found.running = code, False
        found.ended.set()
        found.container.exec_ids.discard(found.id)
        if found.probe:
            self._drop(found.id)  # there are many, and `inspect` of the container has what came of them
        else:
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop, found.id)

    async def create(self, ref: str, request: ExecCreateRequest) -> str:
        """Prepare an exec; the answer is its ID. Raises Conflict when the container does not run or is paused."""
        container = self._containers.find(ref)
        if not container.is_running:
            raise container.not_running()
        if container.state.paused:
            raise Conflict(f"Container {ref} is paused, unpause the container before exec")
        if not request.cmd:
            raise InvalidArgument("No exec command specified")
        try:
            detach_keys(request.detach_keys)
        except InvalidArgument:
            raise InvalidArgument(f"Invalid escape keys ({request.detach_keys}) provided") from None
        await asyncio.to_thread(processes.check_user, container.state.pid, request.user)
        created = Exec(ExecId(new_id()), container, request)
        self._keep(created)
        container.exec_ids.add(created.id)
        self._events.publish(container, f"exec_create: {_words(request)}", {"execID": created.id})
        return created.id

    async def inspect(self, exec_id: str) -> ExecInspect:
        """State and exit code."""
        found = self._find(exec_id)
        request = found.request
        words = request.cmd or [""]
        return ExecInspect(
            id=found.id,
            running=found.running,
            exit_code=found.exit_code,
            process_config=ExecProcessConfig(
                tty=request.tty, entrypoint=words[0], arguments=list(words[1:]), privileged=request.privileged, user=request.user
            ),
            open_stdin=request.attach_stdin,
            open_stderr=request.attach_stderr,
            open_stdout=request.attach_stdout,
            can_remove=False,
            container_id=found.container.id,
            detach_keys=request.detach_keys,
            pid=found.pid,
        )

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        """Set the terminal's size, if there is one. Raises Conflict when the exec does not run."""
        found = self._find(exec_id)
        if not found.running:
            raise Conflict(f"exec {exec_id} is not running")
        if found.pty >= 0:
            pty.set_size(found.pty, height, width)

    def _plan(self, found: Exec) -> dict[str, Any]:
        container, request = found.container, found.request
        host = container.host_config
        security = launching.SecurityOptions(host.security_opt or [])
        terminal = msgspec.structs.replace(container.config, tty=request.tty)
        size = request.console_size
        spec = plan.ExecSpec(
            id=found.id,
            args=tuple(request.cmd or ()),
            env=tuple(launching.override(launching.environment_of(terminal), request.env or [])),
            cwd=request.working_dir or container.config.working_dir or "/",
            user=request.user or container.config.user,
            groups_add=tuple(host.group_add or ()),
            tty=request.tty,
            console_size=(size[0], size[1]) if size and all(size) else None,
            capabilities=launching.capability_names(host),
            seccomp="unconfined" if host.privileged and security.seccomp is None else security.seccomp,
            no_new_privileges=security.no_new_privileges,
            apparmor=launching.apparmor_profile(security, host),
            rlimits=launching.rlimits_of(host),
            cgroup=self._paths.cgroup_of(container),
            privileged=request.privileged or host.privileged,
            oom_score_adj=host.oom_score_adj,
            userns=usernamespaces.maps_of_run(container),
        )
        if container.state.runtime:
            return ocispec.execute(spec, container.id, self._runtimes.of(container.id, container.state.runtime))
        return plan.exec_plan(spec)

    async def start(self, exec_id: str, request: ExecStartRequest, open_stream: OpenStream) -> None:
        """Run it; see api/services.py."""
        found = self._find(exec_id)
        if found.started:
            raise Conflict(f"exec command {exec_id} {'is already running' if found.exit_code is None else 'has already run'}")
        if not found.container.is_running:
            raise Conflict(f"container {found.container.id} is not running")
        if found.container.state.paused:
            raise Conflict(f"Container {found.container.id} is paused, unpause the container before exec")
        found.started = True
        if request.console_size and not found.request.console_size:
            found.request = msgspec.structs.replace(found.request, console_size=request.console_size)
        try:
            if request.detach:
                terminal = await self._launch(found, {})
                if terminal >= 0:
                    os.close(terminal)
                return
            # before the launch: clients that read the answer's head with a buffer (docker-py) lose output that comes with it
            stream = await open_stream(not request.tty)
            try:
                await self._run_attached(found, stream, framed=not request.tty)
            except ConnectionError:
                pass
            finally:
                stream.close()
        finally:
            if not found.running and not found.ended.is_set():
                self._ended(found, START_FAILED)

    async def _run_attached(self, found: Exec, stream: Duplex, *, framed: bool) -> None:
        """framed: output goes in docker's frames. It is the start request that says so, whatever terminal the exec has (moby exec.go)."""
        request = found.request
        outputs: list[tuple[int, int | None]] = []
        with contextlib.ExitStack() as ours:
            stdin = Held()
            ours.callback(stdin.close)
            with contextlib.ExitStack() as theirs:
                fds: dict[str, int] = {}
                if not request.tty:
                    for name, wanted, kind in (("stdout", request.attach_stdout, STDOUT), ("stderr", request.attach_stderr, STDERR)):
                        if wanted and (framed or kind == STDOUT):  # without frames there is no place for stderr
                            reader, fds[name] = os.pipe2(os.O_CLOEXEC)
                            ours.callback(os.close, reader)
                            theirs.callback(os.close, fds[name])
                            os.set_blocking(reader, False)
                            outputs.append((reader, kind if framed else None))
                    if request.attach_stdin:
                        fds["stdin"], stdin.fd = os.pipe2(os.O_CLOEXEC)
                        theirs.callback(os.close, fds["stdin"])
                        os.set_blocking(stdin.fd, False)
                try:
                    terminal = await self._launch(found, fds)
                except EngineError as error:
                    text = error.message.encode() + b"\r\n"
                    # dockerd puts it on stdout; without a tty a client takes anything unframed for a broken stream
                    await stream.send(multiplex(STDOUT, text) if framed else text)
                    await stream.send_eof()
                    return
            if terminal >= 0:
                ours.callback(os.close, terminal)
                os.set_blocking(terminal, False)
                outputs.append((terminal, STDOUT if framed else None))
                if request.attach_stdin:
                    stdin.fd = os.dup(terminal)
            await self._stream(found, stream, outputs, stdin)

    async def capture(
        self,
        container: Container,
        request: ExecCreateRequest,
        *,
        seconds: float,
        limit: int,
        started: Callable[[], object] = lambda: None,
    ) -> Captured:
        """Run a command of the engine's own, for no longer than seconds; of its output, both streams in one, the first limit bytes.

        Cancelled, it is killed, as it is by the next sampand if this one ends. Raises EngineError: it was not got to start.
        """
        found = self._find(await self.create(container.id, request))
        found.probe = found.started = True
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        launching = asyncio.ensure_future(self._launch_captured(found, writer))
        output = bytearray()
        try:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await asyncio.shield(launching)
                started()
            except TimeoutError:
                raise SystemFailure(f"timed out starting health check for container {container.id}") from None
            try:
                async with asyncio.timeout(seconds):
                    await self._collect(found, reader, output, limit)
            except TimeoutError:
                return Captured(None, bytes(output), found.ended)
            return Captured(found.exit_code, bytes(output), found.ended)
        finally:
            os.close(reader)
            if not launching.done():
                self._background.spawn(self._kill_late(found, launching))
            else:
                self._kill(found)

    async def _launch_captured(self, found: Exec, writer: int) -> None:
        """Takes over the descriptor."""
        try:
            await self._launch(found, {"stdout": writer, "stderr": writer})
        finally:
            os.close(writer)
            if not found.running and not found.ended.is_set():
                self._ended(found, START_FAILED)

    @staticmethod
    async def _collect(found: Exec, reader: int, output: bytearray, limit: int) -> None:
        """Until its process has ended: what that left behind in the background may hold the pipe for longer."""

        async def read() -> None:
            while data := await read_some(reader):
                output.extend(data[: limit - len(output)])
                await asyncio.sleep(WASTE_SECONDS if len(output) == limit else 0)

        reading = asyncio.ensure_future(read())
        try:
            await found.ended.wait()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        with contextlib.suppress(BlockingIOError):
            output.extend(os.read(reader, READ)[: limit - len(output)])

    @staticmethod
    def _kill(found: Exec) -> None:
        if found.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                pidfd.send_signal(found.pidfd, signal.SIGKILL)

    async def _kill_late(self, found: Exec, launching: "asyncio.Future[None]") -> None:
        await self._forget(found.id)  # an OCI runtime may hang for good
        with contextlib.suppress(EngineError):
            await launching
        self._kill(found)

    async def _stream(self, found: Exec, stream: Duplex, outputs: list[tuple[int, int | None]], stdin: Held) -> None:
        """Pass on until it ends or the client leaves or detaches. Descriptors stay the caller's; stdin is closed at the client's end."""

        async def at_eof() -> None:
            if not found.request.tty:
                stdin.close()

        async def all_output() -> None:
            await asyncio.gather(*(pump_output(stream, fd, kind) for fd, kind in outputs))
            await found.ended.wait()
            await stream.send_eof()

        taking = None
        if stdin.fd >= 0:
            scanner = DetachScanner(detach_keys(found.request.detach_keys)) if found.request.tty else None
            taking = pump_input(stream, lambda: stdin.fd if stdin.fd >= 0 else None, scanner, at_eof)
        if await converse(stream, all_output(), taking) == "detached":
            self._events.publish(found.container, "exec_detach", {"execID": found.id})

    async def _launch(self, found: Exec, fds: dict[str, int]) -> int:
        """Start the process; a descriptor of its terminal for the caller, -1 without one. Raises EngineError."""
        container = found.container
        words = found.request.cmd or []
        self._events.publish(container, f"exec_start: {_words(found.request)}", {"execID": found.id})
        if found.request.working_dir and not found.request.working_dir.startswith("/"):
            self._ended(found, 128)
            raise StartFailure("OCI runtime exec failed: exec failed: Cwd must be an absolute path", 128)
        try:
            launched: Launched = await self._supervisor.exec(
                found.id, container.id, (container.state.pid, container.state.start_time), self._plan(found), fds, probe=found.probe
            )
        except LaunchError as error:
            failure = exec_failure(error, list(words), found.request.working_dir)
            self._ended(found, failure.exit_code)
            raise failure from error
        found.pid, found.start_time, found.started_at = launched.pid, launched.start_time, launched.started_at
        found.pidfd, found.pty = launched.pidfd, launched.pty if launched.pty is not None else -1
        terminal = -1
        try:
            if found.pty >= 0:
                terminal = os.dup(found.pty)
        finally:
            # Its end may have been told before we got to read that it runs.
            found.running = not found.ended.is_set()
            if not found.running:
                self._release(found)
        return terminal

    @staticmethod
    def _release(found: Exec) -> None:
        """Close what is held of an ended exec."""
        if found.pidfd >= 0:
            pidfd.reap(found.pidfd)  # an orphan of a killed keeper is our child
        for fd in (found.pidfd, found.pty):
            if fd >= 0:
                os.close(fd)
        found.pidfd = found.pty = -1

    async def hand_over(self, known: Collection[str]) -> None:
        """Give a new supervisor the running execs it does not know; what it refuses is logged. Raises Unavailable."""
        for found in list(self._execs.values()):
            if found.running and found.id not in known:
                kind = "probe" if found.probe else "exec"
                facts = {
                    "key": found.id, "container": found.container.id, "kind": kind, "tty": found.request.tty, "pid": found.pid,
                    "start_time": found.start_time, "started_at": found.started_at, "exit": None,
                }  # fmt: skip
                try:
                    await self._supervisor.custody(facts, {}, {"pidfd": found.pidfd})
                except RequestRefused as error:
                    log.warning("exec %s could not be handed over: %s", found.id, error.message)

    def exit_event(self, key: str, code: int) -> bool:
        """A process ended; False when it is none of ours."""
        found = self._execs.get(key)
        if found is None:
            return False
        if found.exit_code is None:
            self._release(found)
            self._ended(found, code)
            self._events.publish(found.container, "exec_die", {"execID": found.id, "exitCode": str(code)})
            self._background.spawn(self._forget(key))
        elif not found.pid:  # nobody here was told that it had started
            self._background.spawn(self._forget(key))
        return True

    async def _forget(self, key: str) -> None:
        with contextlib.suppress(EngineError):
            await self._supervisor.forget(key)
