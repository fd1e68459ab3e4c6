"""AttachService: attach and logs, both readers of the container's log (the design's "the log is the buffer")."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator

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
from sampan.logs.segments import SegmentSource
from sampan.logs.wakeup import Wakeup, no_action
from sampan.runtime import logframe
from sampan.runtime.client import KeeperClient, SupervisorClient
from sampan.runtime.logframe import Position
from sampan.streams import Duplex, OpenStream

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

    async def begin(self, position: Position | None = None) -> Position | None:
        """Register with the keeper; the log's end at that moment. position: from where on we hold the container back, if not from there.

        None: the keeper has forgotten the run, so its log is complete, or is gone, and then the next one is asked by again().
        """
        try:
            end = await self._follow(position)
        except EngineError:
            if self._live.drained.is_set() or self._live.pidfd < 0:
                self.wakeup.end()
            return None
        self._told = position or end
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


class _Hold:
    """One client's hold on a container's output from where it came: of the run that is there then, or of the next."""

    def __init__(self, source: SegmentSource) -> None:
        self.source = source
        self.follower: RunFollower | None = None
        self.begun = asyncio.Event()
        self.closed = False

    async def begin(self, follower: RunFollower) -> None:
        """Follow a run. At its end all that is left to read is opened: it may be removed before it has been sent."""
        if self.closed:  # the client left meanwhile
            await follower.close()
            return
        self.follower = follower
        follower.wakeup.at_end(self.source.hold)
        self.begun.set()

    async def close(self) -> None:
        """Let go."""
        self.closed = True
        if self.follower is not None:
            self.follower.wakeup.at_end(no_action)
            await self.follower.close()
        self.source.close()


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
        self._pending: dict[str, set[_Hold]] = {}
        """By container: those that wait for its next run."""

    async def started(self, container: Container) -> None:
        """Called by the runner once a run's keeper stream exists and before its process runs: attach clients that wait take hold of it."""
        for hold in self._pending.pop(container.id, set()):
            if container.live is None or hold.closed:
                continue
            follower = RunFollower(self._keeper, container.live, attach=True)
            await follower.begin()
            await hold.begin(follower)

    async def logs(self, ref: str, options: LogOptions) -> LogStream:
        """Stored output. Raises NotFound, InvalidArgument, NotImplementedYet."""
        container = self._containers.find(ref)
        if not (options.stdout or options.stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if not self._logs.is_readable(container):
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

    @contextlib.asynccontextmanager
    async def output(self, container: Container) -> AsyncIterator[AsyncIterator[bytes]]:
        """All output of the next run of a container that is about to be started, in frames, from its beginning to its end."""
        async with contextlib.AsyncExitStack() as stack:
            hold = await self._take_hold(container, stack)

            async def chunks() -> AsyncIterator[bytes]:
                await hold.begun.wait()
                assert hold.follower is not None
                async for chunk in attached_output(hold.source, hold.follower.wakeup, hold.follower.progress):
                    yield chunk

            yield chunks()

    async def attach(self, ref: str, options: AttachOptions, open_stream: OpenStream) -> None:
        """Attach until the streams end, the client leaves or detaches. Raises NotFound, Conflict, InvalidArgument before it has begun."""
        container = self._containers.find(ref)
        keys = detach_keys(options.detach_keys)
        if container.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.state.status == "restarting":
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        multiplexed = not container.config.tty and not options.raw
        async with contextlib.AsyncExitStack() as stack:
            hold = await self._take_hold(container, stack) if options.stream else None
            stream = await open_stream(multiplexed)
            stack.callback(stream.close)
            self._events.publish(container, "attach")
            query = LogQuery(stdout=options.stdout, stderr=options.stderr, multiplexed=multiplexed)
            with contextlib.suppress(ConnectionError):
                if options.logs:
                    async for chunk in logreader.read_log(logreader.open_log(self._logs.settings(container)), query):
                        await stream.send(chunk)
                if hold is not None:
                    await self._live(container, hold, stream, query, keys if options.stdin else None)

    async def _take_hold(self, container: Container, stack: contextlib.AsyncExitStack) -> _Hold:
        """Of the output from now on; stack lets it go."""
        directory = self._paths.log(container.id)
        hold = _Hold(SegmentSource(directory, end_position(directory)))
        stack.push_async_callback(hold.close)
        if container.live is None:
            # A created container: the client attaches first and starts it then (docker run).
            waiting = self._pending.setdefault(container.id, set())
            waiting.add(hold)
            stack.callback(self._no_longer_pending, container.id, hold)
            return hold
        follower = RunFollower(self._keeper, container.live, attach=True)
        stack.push_async_callback(follower.close)
        position = await follower.begin()
        if position is not None:
            hold.source.position = position
        await hold.begin(follower)
        return hold

    def _no_longer_pending(self, container: str, hold: _Hold) -> None:
        waiting = self._pending.get(container, set())
        waiting.discard(hold)
        if not waiting:
            self._pending.pop(container, None)

    async def _live(self, container: Container, hold: _Hold, stream: Duplex, query: LogQuery, keys: bytes | None) -> None:
        """What comes from now on, in both directions. keys end it; None: the client has no input for the container."""
        if not hold.begun.is_set():
            waits = {asyncio.ensure_future(stream.wait_closed()), asyncio.ensure_future(hold.begun.wait())}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if not hold.begun.is_set():
                return
        follower, live = hold.follower, container.live
        assert follower is not None
        taking = None
        if keys is not None and live is not None and (container.config.open_stdin or container.config.tty):
            taking = self._take_input(container, live, stream, DetachScanner(keys) if container.config.tty else None)
        if await converse(stream, self._send_output(stream, query, hold.source, follower), taking) == "detached":
            self._events.publish(container, "detach")

    @staticmethod
    async def _send_output(stream: Duplex, query: LogQuery, source: SegmentSource, follower: RunFollower) -> None:
        async for chunk in attached_output(
            source, follower.wakeup, follower.progress, stdout=query.stdout, stderr=query.stderr, multiplexed=query.multiplexed
        ):
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
