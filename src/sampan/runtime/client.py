"""sampand's side of the supervisor's and the keeper's sockets: asyncio, requests matched by seq, events to a callback, reconnection.

    link = Link("/run/sampan/supervisor.sock", on_event=..., on_up=...)
    supervisor = SupervisorClient(link); keeper = KeeperClient(...)

Descriptors given to a request stay the caller's; those in a reply or event are the receiver's, who must close them.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sampan.errors import InvalidArgument, SystemFailure, Unavailable
from sampan.runtime.plan import UserMaps
from sampan.runtime.protocol import PROTOCOL, Channel, ChannelClosed, Message, is_served

EventCallback = Callable[[Message, dict[str, int]], None]
"""(event, descriptors by name). The callee owns the descriptors."""

RETRY_SECONDS = 0.01
CONNECT_SECONDS = 30.0
HELLO_SECONDS = 10.0
"""After which a hello is said on another connection."""


class RequestRefused(SystemFailure):
    """A lean process answered with an error: at what step, the error number, on what, a message of its own if any."""

    def __init__(self, step: str, number: int, path: str, message: str) -> None:
        super().__init__(message or os.strerror(number))
        self.step, self.errno, self.path = step, number, path


class LaunchError(RequestRefused):
    """A process could not be started: what the child was doing, the error number, on what, the message in runc's words if any."""


class Launched(msgspec.Struct, frozen=True, kw_only=True):
    """A started process. The descriptors are the receiver's."""

    pid: int
    start_time: int
    started_at: int
    pidfd: int
    pty: int | None = None


class Link:
    """One connection to a lean process, made again whenever it breaks until close()."""

    def __init__(
        self,
        path: str,
        on_event: EventCallback,
        on_up: Callable[[Message], Awaitable[None]] | None = None,
        revive: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """on_up gets the reply to hello; revive is awaited after each try to connect that fails."""
        self.path = path
        self._on_event, self._on_up, self._revive = on_event, on_up, revive
        self._channel: Channel | None = None
        self._waiting: dict[int, asyncio.Future[tuple[Message, dict[str, int]]]] = {}
        self._seq = 0
        self._up = asyncio.Event()
        self._fd = -1
        self._process = -1
        """A handle of who answers."""
        self._broken: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.failure = ""
        """Why there will be no connection."""
        self.boot_id = ""
        self.pid = 0
        self.build = ""
        """Which version of the lean program answers (spawning.build_of_program)."""

    async def open(self, timeout: float = CONNECT_SECONDS) -> None:
        """Connect; returns after hello and on_up. Raises Unavailable after timeout seconds."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())
        await self.wait_up(timeout)

    async def wait_up(self, timeout: float = CONNECT_SECONDS) -> None:
        """Wait for a connection. Raises Unavailable after timeout seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            raise Unavailable(f"nobody answers on {self.path}") from None
        if self.failure:
            raise Unavailable(self.failure)
        if self._channel is None:
            raise Unavailable(f"the connection to {self.path} is closed")

    @property
    def is_up(self) -> bool:
        """Whether requests can be sent now."""
        return self._channel is not None and self._up.is_set()

    def retire(self) -> None:
        """Do not connect again when this connection ends."""
        self._closed = True

    async def close(self) -> None:
        """Disconnect for good."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._disconnect()
        self._up.set()  # nobody is to wait for what will not come

    async def _keep_connected(self) -> None:
        while not self._closed:
            try:
                sock = self._connect()
            except OSError:
                if self._revive is not None:
                    await self._revive()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            broken = asyncio.Event()
            self._channel = Channel(sock)
            self._fd, self._broken = sock.fileno(), broken
            asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)
            try:
                async with asyncio.timeout(HELLO_SECONDS):
                    hello, _ = await self._request({"op": "hello", "role": "sampand"})
                self.boot_id, self.pid, self.build = hello.get("boot_id", ""), hello.get("pid", 0), hello.get("build", "")
                self._watch_process()
                if hello.get("protocol") != PROTOCOL and await self._end_other(hello):
                    continue
                if self._on_up is not None:
                    await self._on_up(hello)
                if not broken.is_set():
                    self._up.set()
                await broken.wait()
            except (Unavailable, RequestRefused, TimeoutError):
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                self._disconnect()
        self._up.set()

    def _connect(self) -> socket.socket:
        """Raises OSError when nobody serves there."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            if not is_served(self.path):
                raise ConnectionRefusedError(self.path)
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock

    def _watch_process(self) -> None:
        """Its end is the connection's, whoever else may have that open (protocol.is_served). Raises Unavailable."""
        try:
            self._process = os.pidfd_open(self.pid) if self.pid else -1
        except OSError as error:
            raise Unavailable(f"process {self.pid}, which answered on {self.path}, is gone") from error
        if self._process >= 0:
            asyncio.get_running_loop().add_reader(self._process, self._lost)

    async def _end_other(self, hello: Message) -> bool:
        """A process of another version answers: end it, if it holds no container; else the link fails for good. Whether it ended."""
        try:
            await self._request({"op": "shutdown"})
        except RequestRefused:
            self.failure = (
                f"process {self.pid} of another version of Sampan (protocol {hello.get('protocol', 0)}, this one speaks {PROTOCOL}) still "
                "holds containers: stop them with the version that started them, or end them by `sampan-teardown stop`"
            )
            self._closed = True
            raise
        return True

    def _disconnect(self) -> None:
        self._up.clear()
        channel, self._channel = self._channel, None
        if self._process >= 0:
            asyncio.get_running_loop().remove_reader(self._process)
            os.close(self._process)
            self._process = -1
        if self._fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
            self._fd = -1
        if channel is not None:
            channel.close()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unavailable(f"connection to {self.path} lost"))

    def _readable(self) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            while (received := channel.recv()) is not None:
                self._dispatch(*received)
        except ChannelClosed:
            self._lost()

    def _lost(self) -> None:
        """The connection is gone, whoever noticed: the channel may have closed its socket already, so the loop forgets it by number."""
        self._up.clear()
        loop = asyncio.get_running_loop()
        if self._fd >= 0:
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
            self._fd = -1
        if self._broken is not None:
            self._broken.set()
        # A request under way must not wait for a reply that cannot come, hello included.
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable(f"connection to {self.path} lost"))

    def _dispatch(self, message: Message, fds: list[int]) -> None:
        names = message.get("names") or []
        named = dict(zip(names, fds, strict=False))
        for extra in fds[len(names) :]:
            os.close(extra)
        if "event" in message:
            self._on_event(message, named)
            return
        future = self._waiting.pop(message.get("re", -1), None)
        if future is None or future.done():
            for fd in named.values():
                os.close(fd)
            return
        error = message.get("error")
        if error:
            future.set_exception(RequestRefused(error["step"], error["errno"], error.get("path", ""), error.get("message", "")))
        else:
            future.set_result((message, named))

    async def request(self, message: Message, fds: Mapping[str, int] | None = None) -> tuple[Message, dict[str, int]]:
        """Send a request and await its reply and descriptors by name.

        Raises Unavailable, RequestRefused (for an error reply), InvalidArgument (it is too long to be sent).
        """
        if not self._up.is_set():
            await self.wait_up()
        return await self._request(message, fds)

    def notify(self, message: Message) -> None:
        """Send without waiting for an answer; dropped when there is no connection."""
        if self._channel is not None and self._up.is_set():
            self._transmit(message, [])

    async def _request(self, message: Message, fds: Mapping[str, int] | None = None) -> tuple[Message, dict[str, int]]:
        self._seq += 1
        seq = self._seq
        body = {**message, "seq": seq}
        if fds:
            body["names"] = list(fds)
        self._transmit(body, list(fds.values()) if fds else [])
        future: asyncio.Future[tuple[Message, dict[str, int]]] = asyncio.get_running_loop().create_future()
        self._waiting[seq] = future  # only now: a connection that is lost in the sending fails all that wait
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                for fd in future.result()[1].values():
                    os.close(fd)
            raise
        finally:
            self._waiting.pop(seq, None)

    def _transmit(self, message: Message, fds: list[int]) -> None:
        channel = self._channel
        if channel is None:
            raise Unavailable(f"nobody answers on {self.path}")
        try:
            channel.send(message, fds)
        except ValueError as error:
            raise InvalidArgument(f"the configuration is too large to be passed on: {error}") from error
        except ChannelClosed as error:
            self._lost()
            raise Unavailable(f"connection to {self.path} lost") from error
        if channel.wants_write:
            asyncio.get_running_loop().add_writer(channel.fileno(), self._writable)

    def _writable(self) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            channel.flush()
        except ChannelClosed:
            self._lost()
            return
        if not channel.wants_write:
            asyncio.get_running_loop().remove_writer(channel.fileno())


class _LeanClient:
    """Requests that both lean processes take."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def close_stdin(self, key: str) -> None:
        """Close the process's copy of a stdin write end."""
        await self.link.request({"op": "close_stdin", "key": key})

    async def forget(self, key: str) -> None:
        """Drop an ended process, whose exit has been stored: its handles at the supervisor, its drained streams at the keeper."""
        await self.link.request({"op": "forget", "key": key})

    async def shutdown(self) -> None:
        """End the process; the keeper ends with it a supervisor without processes. Raises RequestRefused (EBUSY) while processes live."""
        await self.link.request({"op": "shutdown"})

    async def renew(self, command: list[str]) -> None:
        """Have the process become what command starts. Raises Unavailable when it does; RequestRefused: it does not, or not yet (EBUSY)."""
        await self.link.request({"op": "renew", "command": command})


class SupervisorClient(_LeanClient):
    """Requests to the supervisor."""

    async def launch(
        self, key: str, container: str, plan: dict[str, Any], fds: Mapping[str, int], record: dict[str, Any] | None = None
    ) -> Launched:
        """Start a container's init.

        fds: stdin stdout stderr (absent with a tty) userns netns ipcns pidns layer<n> custody:stdin custody:stdout custody:stderr.

        Raises LaunchError, InvalidArgument (too large a plan), Unavailable (the connection broke: the next hello tells what came of it).
        """
        message = {"op": "launch", "key": key, "container": container, "plan": plan, "record": record or {}}
        return await self._launch(message, fds)

    async def user_namespace(self, maps: UserMaps, *, net: bool) -> dict[str, int]:
        """Descriptors of a new user namespace (userns) and, if wanted, of a network namespace that it owns (netns), the receiver's.

        Raises RequestRefused, Unavailable.
        """
        return (await self.link.request({"op": "userns", "maps": maps.built(), "net": net}))[1]

    async def exec(
        self, key: str, container: str, target: tuple[int, int], plan: dict[str, Any], fds: Mapping[str, int], *, probe: bool = False
    ) -> Launched:
        """Run a process in the container whose init is target (pid, start_time). probe: one that the next sampand is to end.

        Raises LaunchError, InvalidArgument, Unavailable.
        """
        message = {
            "op": "exec", "key": key, "container": container, "plan": plan,
            "target": {"pid": target[0], "start_time": target[1]}, "record": {}, "probe": probe,
        }  # fmt: skip
        return await self._launch(message, fds)

    async def _launch(self, message: Message, fds: Mapping[str, int]) -> Launched:
        try:
            return _launched(*await self.link.request(message, fds))
        except RequestRefused as error:
            raise LaunchError(error.step, error.errno, error.path, error.message) from None

    async def custody(self, proc: Message, record: dict[str, Any], fds: Mapping[str, int]) -> None:
        """Give a new supervisor a process it does not know: PROC facts, and pidfd plus whatever stdio or pty is held."""
        await self.link.request({"op": "custody", **proc, "record": record}, fds)

    async def procs(self) -> list[Message]:
        """Every process known: PROC objects."""
        reply, _ = await self.link.request({"op": "list"})
        found: list[Message] = reply["procs"]
        return found


class KeeperClient(_LeanClient):
    """Requests to the keeper."""

    async def adopt(
        self,
        key: str,
        container: str,
        tty: bool,
        log: dict[str, Any],
        fds: Mapping[str, int],
        *,
        held: bool = False,
        exit: Message | None = None,
    ) -> None:
        """Hand over our ends of a container's stdio (stdout, stderr, stdin) and say where its log goes.

        held: nothing is read before the supervisor tells of the process. exit: of one that has ended, which nobody will tell of.
        """
        message = {"op": "adopt", "key": key, "container": container, "tty": tty, "log": log, "held": held, "exit": exit}
        await self.link.request(message, fds)

    async def follow(self, key: str, reader: str, attach: bool, position: tuple[int, int] | None, eventfd: int) -> Message:
        """Have eventfd written on every growth of the log; the reply has "pos", the current end."""
        message: Message = {"op": "follow", "key": key, "reader": reader, "attach": attach}
        if position is not None:
            message["pos"] = list(position)
        reply, _ = await self.link.request(message, {"eventfd": eventfd})
        return reply

    def progress(self, reader: str, position: tuple[int, int]) -> None:
        """Tell how far an attach reader has come."""
        self.link.notify({"op": "progress", "reader": reader, "pos": list(position)})

    async def compressed(self, path: str, number: int, original: tuple[int, int, int], copy: str) -> bool:
        """Have the keeper put copy in the place of a rotated file of the json-file at path. False: that is gone, and so is copy.

        number: which it was when it was opened. original: its inode, size and nanoseconds of its last change. Raises RequestRefused,
        Unavailable: copy may be there still.
        """
        message: Message = {"op": "compressed", "path": path, "number": number, "original": list(original), "copy": copy}
        reply, _ = await self.link.request(message)
        return bool(reply["swapped"])

    async def unfollow(self, reader: str) -> None:
        """End a reader."""
        await self.link.request({"op": "unfollow", "reader": reader})


def _launched(reply: Message, fds: dict[str, int]) -> Launched:
    return Launched(
        pid=reply["pid"], start_time=reply["start_time"], started_at=reply["started_at"], pidfd=fds["pidfd"], pty=fds.get("pty")
    )
