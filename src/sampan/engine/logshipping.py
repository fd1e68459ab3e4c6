"""Log drivers that have a server: what the keeper has written to a container's log is sent on, from where that has come to.

The keeper never waits for a server; the log's segments are the buffer. Mode blocking: we are a reader as attach is one, so the container
waits before what is not sent yet is rotated away. Mode non-blocking: then it is lost, and a notice says so.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sampan.engine.attach import RunFollower
from sampan.engine.containerlogs import ContainerLogs
from sampan.engine.containerstore import Container, Containers
from sampan.engine.paths import Paths
from sampan.logs.outgoing import Line, LineSplitter, Sink
from sampan.logs.segments import SegmentSource
from sampan.runtime.client import KeeperClient
from sampan.runtime.logframe import Position

log = logging.getLogger(__name__)

SLICE_BYTES, SLICE_LINES = 64 * 1024, 512
SEND_SECONDS = 30.0
"""How long a server may take for a slice before the connection counts as dead."""
RETRY_SECONDS, RETRY_MOST = 0.25, 30.0


class _Lost(Exception):
    """What has not been sent will not be."""


class _Progress:
    """How far a container's log has been sent, in a file beside it: a sampand that comes after this one goes on from there."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/log.sent"

    def load(self) -> tuple[Position | None, dict[int, tuple[int, bytes]]]:
        """The position, and what of lines had come by then."""
        try:
            with open(self._path, encoding="ascii") as file:
                known: dict[str, Any] = json.load(file)
            begun = {int(stream): (int(since), text.encode("latin-1")) for stream, (since, text) in known["begun"].items()}
            return (int(known["position"][0]), int(known["position"][1])), begun
        except (OSError, ValueError, KeyError, TypeError):
            return None, {}

    def store(self, position: Position, begun: dict[int, tuple[int, bytes]]) -> None:
        """Note it; nothing happens once the container is gone."""
        text = json.dumps(
            {"position": position, "begun": {stream: (since, rest.decode("latin-1")) for stream, (since, rest) in begun.items()}}
        )
        with contextlib.suppress(OSError):
            with open(f"{self._path}.new", "w", encoding="ascii") as file:
                file.write(text)
            os.replace(f"{self._path}.new", self._path)


class LogShipping:
    """One task for each run whose driver has a server; the runs of a container one after the other.

    While a server is silent only the last of them waits, and sends what the others have left, too: a container may restart for days.
    """

    def __init__(self, containers: Containers, keeper: KeeperClient, logs: ContainerLogs, paths: Paths) -> None:
        self._containers, self._keeper, self._logs, self._paths = containers, keeper, logs, paths
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        """Of a container: the one that sends, and the one that waits for its end."""

    async def begin(self, container: Container) -> None:
        """Send on what a run writes from now on, and what has not been sent yet; of one that does not run, the latter."""
        sink = self._logs.sink(container)
        if sink is None:
            return
        follower = None
        if container.live is not None:
            position, _ = _Progress(self._paths.container(container.id)).load()
            follower = RunFollower(self._keeper, container.live, attach=self._logs.is_blocking(container))
            await follower.begin(position)
        tasks = self._tasks.setdefault(container.id, [])
        for waiting in tasks[1:]:
            waiting.cancel()
        former = tasks[0] if tasks else None
        task = asyncio.get_running_loop().create_task(self._after(former, container, sink, follower))
        tasks[1:] = [task]
        task.add_done_callback(lambda ended: self._ended(container.id, ended))

    async def close(self) -> None:
        """Leave; what is not sent is, once there is a sampand again."""
        tasks = [task for of_one in self._tasks.values() for task in of_one]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, container_id: str, task: "asyncio.Task[None]") -> None:
        tasks = self._tasks.get(container_id, [])
        if task in tasks:
            tasks.remove(task)
        if not tasks:
            self._tasks.pop(container_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the log of %s is not sent any more", container_id, exc_info=error)

    async def _after(self, former: "asyncio.Task[None] | None", container: Container, sink: Sink, follower: RunFollower | None) -> None:
        try:
            if former is not None:
                await asyncio.wait([former])
            await self._ship(container, sink, follower)
        except _Lost as error:
            log.error("the end of the log of %s is lost: %s", container.id, error)
        finally:
            sink.close()
            if follower is not None:
                await follower.close()

    async def _ship(self, container: Container, sink: Sink, follower: RunFollower | None) -> None:
        progress = _Progress(self._paths.container(container.id))
        position, begun = progress.load()
        source, lines = SegmentSource(self._paths.log(container.id), position), LineSplitter(begun)
        wakeup = None if follower is None else follower.wakeup
        if wakeup is not None:
            wakeup.at_end(source.hold)
        try:
            while True:
                source.limit = None if wakeup is None else wakeup.limit
                frames = source.read()
                if frames:
                    await self._send(container, sink, lines.feed(frames))
                    progress.store(source.position, lines.begun)
                    if follower is not None:
                        follower.progress(source.position)
                elif wakeup is None or (wakeup.ended and wakeup.limit in (source.limit, None)):
                    break
                else:
                    await wakeup.wait()
            await self._send(container, sink, lines.finish())
            progress.store(source.position, {})
        finally:
            source.close()

    async def _send(self, container: Container, sink: Sink, lines: Iterable[Line]) -> None:
        """Until the server has them. Raises _Lost: the container is gone, and the server is not there."""
        pause = RETRY_SECONDS
        for slice_ in _slices(lines):
            while not await self._try(container, sink, slice_, warn=pause == RETRY_SECONDS):
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_MOST)
            pause = RETRY_SECONDS
            await asyncio.sleep(0)  # what the kernel takes at once never waits: let the others have a turn

    async def _try(self, container: Container, sink: Sink, lines: Sequence[Line], *, warn: bool) -> bool:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await sink.send(lines)
        except OSError as error:
            sink.close()
            if self._containers.get(container.id) is None:
                raise _Lost(str(error)) from None
            if warn:
                log.warning("the log of %s cannot be sent, and waits: %s", container.id, error)
            return False
        return True


def _slices(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """What goes at once: little enough for a slow server, which would never come to the end of more."""
    taken, size = list[Line](), 0
    for line in lines:
        taken.append(line)
        size += len(line.data)
        if size >= SLICE_BYTES or len(taken) >= SLICE_LINES:
            yield taken
            taken, size = [], 0
    if taken:
        yield taken
