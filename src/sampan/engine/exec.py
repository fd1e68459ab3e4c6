"""ExecService: further processes in running containers. Their streams belong to sampand alone and are not logged."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import msgspec

from sampan.engine import launching, processes
from sampan.engine.registry import Container, Containers
from sampan.engine.runner import Runner
from sampan.engine.streaming import DetachScanner, detach_keys, pump_input, pump_output
from sampan.errors import Conflict, EngineError, InvalidArgument, NotFound
from sampan.ids import ExecId, new_id
from sampan.linux import pidfd, pty
from sampan.runtime import plan
from sampan.runtime.client import Launched, LaunchError
from sampan.spec.docker_api.container import ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest
from sampan.streams import Duplex

OpenStream = Callable[[bool], Awaitable[Duplex]]
KEPT_SECONDS = 300.0
"""How long an ended exec can be inspected, as docker's own clean-up every five minutes."""
STDOUT, STDERR = 1, 2
EXEC_FAILED = "OCI runtime exec failed: exec failed: unable to start container process: "


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
        self.pid = 0
        self.start_time = 0
        self.started_at = 0
        self.pidfd = -1
        self.pty = -1
        self.running = False
        self.started = False
        self.exit_code: int | None = None
        self.ended = asyncio.Event()


class ExecService:
    """See api/services.py for the contract."""

    def __init__(self, containers: Containers, runner: Runner) -> None:
        self._containers = containers
        self._runner = runner
        self._execs: dict[str, Exec] = {}

    def _find(self, exec_id: str) -> Exec:
        found = self._execs.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    async def create(self, ref: str, request: ExecCreateRequest) -> str:
        """Prepare an exec; the answer is its ID. Raises Conflict when the container does not run or is paused."""
        container = self._containers.find(ref)
        if not container.is_running:
            raise Conflict(f"container {container.id} is not running")
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
        self._execs[created.id] = created
        container.exec_ids.add(created.id)
        self._runner.publish(container, f"exec_create: {_words(request)}", {"execID": created.id})
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
            can_remove=found.exit_code is not None,
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
            cgroup=self._runner.paths.cgroup(container.id),
            namespaces=launching.namespaces_of(host, netns=host.network_mode != "host"),
            privileged=request.privileged or host.privileged,
            oom_score_adj=host.oom_score_adj,
        )
        return plan.exec_plan(spec)

    async def start(self, exec_id: str, request: ExecStartRequest, open_stream: OpenStream) -> None:
        """Run it; see api/services.py."""
        found = self._find(exec_id)
        if found.started:
            raise Conflict(f"exec {exec_id} has already been started" if found.running else f"exec {exec_id} has already run")
        if not found.container.is_running:
            raise Conflict(f"container {found.container.id} is not running")
        if found.container.state.paused:
            raise Conflict(f"Container {found.container.id} is paused, unpause the container before exec")
        found.started = True
        if request.console_size and not found.request.console_size:
            found.request = msgspec.structs.replace(found.request, console_size=request.console_size)
        if request.detach:
            await self._launch(found, {})
            return
        # before the launch: clients that read the answer's head with a buffer (docker-py) lose output that comes with it
        stream = await open_stream(not found.request.tty)
        try:
            await self._run_attached(found, stream)
        except ConnectionError:
            pass
        finally:
            stream.close()

    async def _run_attached(self, found: Exec, stream: Duplex) -> None:
        request = found.request
        theirs: dict[str, int] = {}
        outputs: list[tuple[int, int | None]] = []
        stdin = -1
        if not request.tty:
            for name, wanted, kind in (("stdout", request.attach_stdout, STDOUT), ("stderr", request.attach_stderr, STDERR)):
                if wanted:
                    ours, theirs[name] = os.pipe2(os.O_CLOEXEC)
                    os.set_blocking(ours, False)
                    outputs.append((ours, kind))
            if request.attach_stdin:
                theirs["stdin"], stdin = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(stdin, False)
        try:
            await self._launch(found, theirs)
        except EngineError as error:
            for fd, _ in outputs:
                os.close(fd)
            if stdin >= 0:
                os.close(stdin)
            text = error.message.encode() + b"\r\n"
            # dockerd puts it on stdout; without a tty a client takes anything unframed for a broken stream
            await stream.send(text if request.tty else bytes([STDOUT, 0, 0, 0]) + len(text).to_bytes(4, "big") + text)
            await stream.send_eof()
            return
        finally:
            for fd in theirs.values():
                os.close(fd)
        if request.tty:
            os.set_blocking(found.pty, False)
            outputs.append((os.dup(found.pty), None))
            stdin = os.dup(found.pty) if request.attach_stdin else -1
        await self._stream(found, stream, outputs, stdin)

    async def _stream(self, found: Exec, stream: Duplex, outputs: list[tuple[int, int | None]], stdin: int) -> None:
        held = [stdin]

        async def at_eof() -> None:
            if held[0] >= 0 and not found.request.tty:
                os.close(held[0])
                held[0] = -1

        async def all_output() -> None:
            await asyncio.gather(*(pump_output(stream, fd, kind) for fd, kind in outputs))
            await found.ended.wait()

        output = asyncio.ensure_future(all_output())
        gone = asyncio.ensure_future(stream.wait_closed())
        tasks: set[asyncio.Future[Any]] = {output, gone}
        taking: asyncio.Future[Any] | None = None
        if stdin >= 0:
            scanner = DetachScanner(detach_keys(found.request.detach_keys)) if found.request.tty else None
            taking = asyncio.ensure_future(pump_input(stream, lambda: held[0] if held[0] >= 0 else None, scanner, at_eof))
            tasks.add(taking)
        try:
            while not output.done() and not gone.done():
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if taking is not None and taking in done:
                    tasks.discard(taking)
                    if not taking.cancelled() and taking.exception() is None and taking.result():
                        self._runner.publish(found.container, "exec_detach", {"execID": found.id})
                        break
            if output.done() and not output.cancelled():
                output.result()
                await stream.send_eof()
        finally:
            for task in (output, gone, *([taking] if taking is not None else [])):
                task.cancel()
            await asyncio.gather(output, gone, *([taking] if taking is not None else []), return_exceptions=True)
            if held[0] >= 0:
                os.close(held[0])

    async def _launch(self, found: Exec, fds: dict[str, int]) -> None:
        container = found.container
        words = found.request.cmd or []
        self._runner.publish(container, f"exec_start: {_words(found.request)}", {"execID": found.id})
        if found.request.working_dir and not found.request.working_dir.startswith("/"):
            found.exit_code = 128
            found.ended.set()
            raise launching.StartFailure("OCI runtime exec failed: exec failed: Cwd must be an absolute path", found.exit_code)
        try:
            launched: Launched = await self._runner.supervisor.exec(
                found.id, container.id, (container.state.pid, container.state.start_time), self._plan(found), fds
            )
        except LaunchError as error:
            found.exit_code = launching.exec_failure_code(error)
            found.ended.set()
            failure = launching.start_failure(error, list(words), {})
            if error.step == "cwd" and error.errno:
                reason = os.strerror(error.errno or 0).lower()
                if error.errno == errno.ENOTDIR:
                    reason += launching.MOUNT_HINT
                detail = f'chdir to cwd ("{error.path or found.request.working_dir}") set in config.json failed: {reason}'
                raise launching.StartFailure(f"{EXEC_FAILED}{detail}", found.exit_code) from error
            text = failure.message.partition("unable to start container process: ")[2].removeprefix("error during container init: ")
            raise launching.StartFailure(
                f"{EXEC_FAILED}{text}" if text else failure.message,
                found.exit_code,
            ) from error
        found.pid, found.pidfd, found.running = launched.pid, launched.pidfd, True
        found.start_time, found.started_at = launched.start_time, launched.started_at
        found.pty = launched.pty if launched.pty is not None else -1

    async def hand_over(self, known: Collection[str]) -> None:
        """Give a new supervisor the running execs it does not know. Raises EngineError."""
        for found in list(self._execs.values()):
            if found.running and found.id not in known:
                facts = {
                    "key": found.id, "container": found.container.id, "kind": "exec", "tty": found.request.tty, "pid": found.pid,
                    "start_time": found.start_time, "started_at": found.started_at, "exit": None,
                }  # fmt: skip
                await self._runner.supervisor.custody(facts, {}, {"pidfd": found.pidfd})

    def exit_event(self, key: str, code: int) -> bool:
        """A process ended; False when it is none of ours."""
        found = self._execs.get(key)
        if found is None:
            return False
        if found.exit_code is None:
            found.exit_code, found.running, found.pid = code, False, 0
            if found.pidfd >= 0:
                pidfd.reap(found.pidfd)  # an orphan of a killed keeper is our child
            for fd in (found.pidfd, found.pty):
                if fd >= 0:
                    os.close(fd)
            found.pidfd = found.pty = -1
            found.ended.set()
            found.container.exec_ids.discard(found.id)
            self._runner.publish(found.container, "exec_die", {"execID": found.id, "exitCode": str(code)})
            self._runner.spawn(self._forget(key))
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._execs.pop, key, None)
        return True

    async def _forget(self, key: str) -> None:
        with contextlib.suppress(EngineError):
            await self._runner.supervisor.forget(key)
