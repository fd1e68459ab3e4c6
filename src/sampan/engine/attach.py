"""AttachService: attach and logs, both readers of the container's log (the design's "the log is the buffer")."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerlogs import ContainerLogs
from sampan.engine.containerstore import Container, Containers, Live
from sampan.engine.paths import Paths
from sampan.engine.streaming import DetachScanner, converse, detach_keys, pump_input
from sampan.engine.streamtypes import AttachOptions, LogOptions, LogStream
from sampan.errors import Conflict, EngineError, InvalidArgument, NotImplementedYet
from sampan.logs import reader as logreader
from sampan.logs.attach import attached_output
from sampan.logs.reader import LogQuery
from sampan.logs.wakeup import Wakeup
from sampan.runtime import logframe
from sampan.runtime.client import KeeperClient, SupervisorClient
from sampan.runtime.logframe import Position
from sampan.streams import Duplex

OpenStream = Callable[[bool], Awaitable[Duplex]]
PROGRESS_STEP = 1 << 20
_names = itertools.count(1)


def end_position(directory: str) -> Position:
    """Where the next frame of a log will be written."""
    present = logframe.segments(directory)
    if not present:
        return 1, 0
    fd = os.open(f"{directory}/{logframe.segment_name(present[-1])}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return present[-1], logframe.last_whole(fd)
    finally:
        os.close(fd)


class RunFollower:
    """Follows a run's log: woken by the keeper through an eventfd, ended once the keeper has drained the run's output."""

    def __init__(self, keeper: KeeperClient, live: Live, *, attach: bool) -> None:
        self._keeper = keeper
        self._live = live
        self._attach = attach
        self._name = f"{os.getpid()}.{next(_names)}"
        self.wakeup = Wakeup()
        self._told: Position = (0, 0)
        live.followers.add(self)

    async def begin(self) -> Position | None:
        """Register with the keeper; the log's end at that moment.

        None: the keeper has forgotten the run, so its log is complete, or is gone, and then the next one is asked by again().
        """
        try:
            end = await self._follow(None)
        except EngineError:
            if self._live.drained.is_set() or self._live.pidfd < 0:
                self.wakeup.end()
            return None
        self._told = end
        return end

    async def _follow(self, position: Position | None) -> Position:
        reply = await self._keeper.follow(self._live.key, self._name, self._attach, position, self.wakeup.fd)
        end = (int(reply["pos"][0]), int(reply["pos"][1]))
        if reply.get("drained"):
            self.wakeup.end(end)
        return end

    async def again(self) -> None:
        """Register with a new keeper, which holds the container back for us from where we are. Raises EngineError."""
        if self.wakeup.fd >= 0 and not self.wakeup.ended:
            await self._follow(self._told)

    def ended(self, position: Position | None) -> None:
        """All output is in the log."""
        self.wakeup.end(position)

    def progress(self, position: Position) -> None:
        """Everything before position has been sent to the client."""
        if self._attach and (position[0] != self._told[0] or position[1] - self._told[1] >= PROGRESS_STEP):
            self._told = position
            self._keeper.progress(self._name, position)

    async def close(self) -> None:
        """Leave."""
        self._live.followers.discard(self)
        self.wakeup.close()
        with contextlib.suppress(EngineError):
            await self._keeper.unfollow(self._name)


class AttachService:
    """See api/services.py for the contract."""

    def __init__(
        self,
        containers: Containers,
        keeper: KeeperClient,
        supervisor: SupervisorClient,
        logs: ContainerLogs,
        events: ContainerEvents,
        paths: Paths,
    ) -> None:
        self._containers = containers
        self._keeper, self._supervisor = keeper, supervisor
        self._logs, self._events, self._paths = logs, events, paths
        self._pending: dict[str, set[asyncio.Future[RunFollower]]] = {}

    async def started(self, container: Container) -> None:
        """Called by the runner once a run's keeper stream exists and before its process runs: attach clients that wait take hold of it."""
        waiting = self._pending.pop(container.id, set())
        for future in waiting:
            live = container.live
            if live is None or future.done():
                continue
            follower = RunFollower(self._keeper, live, attach=True)
            await follower.begin()
            if future.done():
                await follower.close()
            else:
                future.set_result(follower)

    async def logs(self, ref: str, options: LogOptions) -> LogStream:
        """Stored output. Raises NotFound, InvalidArgument, NotImplementedYet."""
        container = self._containers.find(ref)
        if not (options.stdout or options.stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if container.host_config.log_config.type == "none":
            raise NotImplementedYet("configured logging driver does not support reading")
        tty = container.config.tty
        query = LogQuery(
            stdout=options.stdout,
            stderr=options.stderr,
            since=options.since,
            until=options.until,
            tail=options.tail,
            timestamps=options.timestamps,
            details=self._logs.attributes(container) if options.details else None,
            multiplexed=not tty,
        )
        return LogStream(multiplexed=not tty, chunks=self._log_chunks(container, query, follow=options.follow))

    async def _log_chunks(self, container: Container, query: LogQuery, *, follow: bool) -> AsyncIterator[bytes]:
        live = container.live
        follower = None
        if follow and live is not None:
            follower = RunFollower(self._keeper, live, attach=False)
            await follower.begin()
        try:
            source = logreader.open_log(self._logs.settings(container))
            async for chunk in logreader.read_log(source, query, follower.wakeup if follower else None):
                yield chunk
        finally:
            if follower is not None:
                await follower.close()

    async def attach(self, ref: str, options: AttachOptions, open_stream: OpenStream) -> None:
        """Attach until the streams end, the client leaves or detaches. Raises NotFound, Conflict, InvalidArgument before it has begun."""
        container = self._containers.find(ref)
        keys = detach_keys(options.detach_keys)
        if container.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.state.status == "restarting":
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        tty = container.config.tty
        directory = self._paths.log(container.id)
        future: asyncio.Future[RunFollower] = asyncio.get_running_loop().create_future()
        follower: RunFollower | None = None
        position: Position | None = None
        if options.stream:
            if container.live is not None:
                follower = RunFollower(self._keeper, container.live, attach=True)
                position = await follower.begin() or end_position(directory)
            else:
                # A created container: the client attaches first and starts it then (docker run).
                position = end_position(directory)
                self._pending.setdefault(container.id, set()).add(future)
        try:
            stream = await open_stream(not tty)
        except BaseException:
            self._no_longer_pending(container, future)
            if follower is not None:
                await follower.close()
            raise
        self._events.publish(container, "attach")
        query = LogQuery(stdout=options.stdout, stderr=options.stderr, multiplexed=not tty)
        try:
            if options.logs:
                source = logreader.open_log(self._logs.settings(container))
                async for chunk in logreader.read_log(source, query):
                    await stream.send(chunk)
            if options.stream and position is not None:
                await self._live(container, options, stream, query, keys, follower, future, position)
        except ConnectionError:
            pass
        finally:
            self._no_longer_pending(container, future)
            stream.close()

    def _no_longer_pending(self, container: Container, future: asyncio.Future[RunFollower]) -> None:
        future.cancel()
        waiting = self._pending.get(container.id)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._pending[container.id]

    async def _live(
        self,
        container: Container,
        options: AttachOptions,
        stream: Duplex,
        query: LogQuery,
        keys: bytes,
        follower: RunFollower | None,
        future: asyncio.Future[RunFollower],
        position: Position,
    ) -> None:
        if follower is None:
            gone = asyncio.ensure_future(stream.wait_closed())
            both: set[asyncio.Future[Any]] = {gone, future}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not future.done() or future.cancelled():
                return
            follower = future.result()
        live = container.live
        taking = None
        if options.stdin and live is not None and (container.config.open_stdin or container.config.tty):
            taking = self._take_input(container, live, stream, DetachScanner(keys) if container.config.tty else None)
        try:
            output = self._send_output(container, stream, query, follower, position)
            if await converse(stream, output, taking) == "detached":
                self._events.publish(container, "detach")
        finally:
            await follower.close()

    async def _send_output(self, container: Container, stream: Duplex, query: LogQuery, follower: RunFollower, position: Position) -> None:
        chunks = attached_output(
            self._paths.log(container.id),
            position,
            follower.wakeup,
            follower.progress,
            stdout=query.stdout,
            stderr=query.stderr,
            multiplexed=query.multiplexed,
        )
        async for chunk in chunks:
            await stream.send(chunk)
        await stream.send_eof()

    async def _take_input(self, container: Container, live: Live, stream: Duplex, scanner: DetachScanner | None) -> bool:
        async def at_eof() -> None:
            if container.config.stdin_once and not container.config.tty:
                await self.close_stdin(live)

        return await pump_input(stream, lambda: live.pty if container.config.tty else live.stdin, scanner, at_eof)

    async def close_stdin(self, live: Live) -> None:
        """Close every copy of a run's stdin: the process reads EOF only when the last one is closed."""
        if live.stdin is None:
            return
        fd, live.stdin = live.stdin, None
        os.close(fd)
        with contextlib.suppress(EngineError):
            await asyncio.gather(self._keeper.close_stdin(live.key), self._supervisor.close_stdin(live.key))
