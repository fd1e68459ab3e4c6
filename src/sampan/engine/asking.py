"""Which of several endpoints answers: mirrors that fail are set aside, and a registry that is away is told within ten seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from sampan.clock import Clock
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Refused, Repository, is_outage
from sampan.distribution.transport import Unreachable
from sampan.errors import SystemFailure
from sampan.reference import DEFAULT_DOMAIN, Reference

T = TypeVar("T")

ASIDE_SECONDS = 60.0
"""How long a mirror that failed is asked only when all others have failed too."""
MIRROR_SECONDS = 4.0
"""A mirror's answer to a ping, token and all."""
MIRROR_ANSWER_SECONDS = 5.0
"""A mirror's answer about an image: it may have to ask its own upstream first."""
MIRRORS_ANSWER_SECONDS = 6.0
"""The same of all mirrors together; each has a second more."""
DOCUMENT_SECONDS = 15.0
"""A platform's manifest or an image's config from an endpoint that has another one behind it, however steadily it comes"""
LAST_SECONDS = 300.0
"""The same, and a list of tags, from the last one"""
BUSY_SECONDS = 8.0
"""How long a registry is asked again that is busy or out of order (5xx), or wants us to come later (429)."""
ALL_SECONDS = 8.0
"""Until the last endpoint of a registry with mirrors, or of docker.io, has answered a ping."""
HEAD_START_SECONDS = 0.4
"""After so long without an answer the next endpoint is pinged as well."""


class SetAside:
    """Mirrors that have failed of late, by URL without the slash at its end. In memory only: a new start asks them all again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[float, str]] = {}

    def put(self, url: str, reason: str) -> None:
        """Set a mirror aside for ASIDE_SECONDS."""
        self._failed[url] = (self._clock.monotonic() + ASIDE_SECONDS, reason)

    def forget(self, url: str) -> None:
        """It answers again."""
        self._failed.pop(url, None)

    def seconds(self, url: str) -> int:
        """How long it is still set aside, rounded up; 0: it is not."""
        return max(0, -int(-(self._failed.get(url, (0.0, ""))[0] - self._clock.monotonic()) // 1))

    def reason(self, url: str) -> str:
        """Why it is set aside; "": it is not."""
        return self._failed[url][1] if self.seconds(url) else ""


async def within(asked: Awaitable[T], seconds: float, endpoint: Endpoint) -> T:
    """What an endpoint says, if it does so in time. Raises Unreachable in Go's words when it does not."""
    try:
        async with asyncio.timeout(seconds):
            return await asked
    except TimeoutError as error:
        text = "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)"
        raise Unreachable(f'Get "{endpoint.url}/v2/": {text}') from error


class Answers:
    """The pings of several endpoints, on their way. Use as a context manager, whose end ends them.

    Each starts when the one before it has failed or kept us waiting, so that many that are away cost no more than one. Only one after
    another are asked a registry's own addresses: the next one would be told a password in the clear.
    """

    def __init__(self, repositories: Sequence[Repository], domain: str) -> None:
        self._repositories = repositories
        self._bounded = domain == DEFAULT_DOMAIN or any(one.endpoint.mirror for one in repositories)
        self._wanted = [asyncio.Event() for _ in repositories]
        self._tasks: list[asyncio.Task[None]] = []
        self._mirrors_until = 0.0
        self._hurried: set[int] = set()
        """Those that are pinged because one before them is slow: they have what is left of its time"""

    async def __aenter__(self) -> Self:
        self._mirrors_until = asyncio.get_running_loop().time() + MIRRORS_ANSWER_SECONDS
        for at in range(len(self._repositories)):
            self._tasks.append(asyncio.create_task(self._ping(at)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def of(self, at: int) -> None:
        """Wait for an endpoint's answer. Raises what Repository.ping raises."""
        self._wanted[at].set()
        await self._tasks[at]

    async def what(self, at: int, asked: Awaitable[T]) -> T:
        """What an endpoint that answered says of an image. A mirror has little time for it, in which those behind it are pinged already.

        Raises what asked raises, Unreachable.
        """
        endpoint = self._repositories[at].endpoint
        if not endpoint.mirror:
            return await within(asked, LAST_SECONDS, endpoint)
        loop = asyncio.get_running_loop()
        others = range(at + 1, len(self._repositories))
        calls = [loop.call_later((other - at) * HEAD_START_SECONDS, self._hurry, other) for other in others]
        try:
            return await within(asked, max(1.0, min(MIRROR_ANSWER_SECONDS, self._mirrors_until - loop.time())), endpoint)
        finally:
            for call in calls:
                call.cancel()

    def _hurry(self, at: int) -> None:
        self._hurried.add(at)
        self._wanted[at].set()

    async def _ping(self, at: int) -> None:
        now = asyncio.get_running_loop().time
        repository, began = self._repositories[at], now()
        if at:
            hedged = repository.endpoint.mirror or self._repositories[at - 1].endpoint.mirror
            await asyncio.wait({self._tasks[at - 1]}, timeout=min(at * HEAD_START_SECONDS, ALL_SECONDS / 2) if hedged else None)
            if any(task.done() and task.exception() is None for task in self._tasks[:at]):
                await self._wanted[at].wait()  # what answers is asked first, and may be all we need
                began = began if at in self._hurried else now()
        left = max(1.0, ALL_SECONDS - (now() - began))
        if repository.endpoint.mirror:
            await within(repository.ping(), min(MIRROR_SECONDS, left), repository.endpoint)
        elif self._bounded:
            await within(repository.ping(), left, repository.endpoint)
        else:
            await repository.ping()


async def patient(ask: Callable[[], Awaitable[T]]) -> T:
    """What a registry says, asked again while it is busy, after as long as it wants or we think, within BUSY_SECONDS.

    Raises what the last try raises. 429 that does not say for how long is final: it is a limit of hours.
    """
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + BUSY_SECONDS, 0.5
    while True:
        try:
            return await ask()
        except Refused as error:
            wait = float(error.retry_after) or (pause if is_outage(error) else BUSY_SECONDS)
            if not error.passing or loop.time() + wait >= until:
                raise
        await asyncio.sleep(wait)
        pause *= 2


def unreachable(reference: Reference, tried: Sequence[tuple[Endpoint, Exception]]) -> Exception:
    """The error of a pull for which no endpoint was of use: all that were tried, and the ways out."""
    domain = reference.domain
    if domain != DEFAULT_DOMAIN and not any(endpoint.mirror for endpoint, _ in tried):
        return tried[-1][1]
    lines = [f"{'mirror' if endpoint.mirror else 'registry'} {endpoint.url}/: {error}" for endpoint, error in tried]
    registry = "" if domain == DEFAULT_DOMAIN else f"--registry {domain} "
    way = f"sampan mirror add {registry}URL         name a mirror that this machine can reach"
    ways = [way, *(["sampan image bootstrap IMAGE  make busybox or debian:RELEASE without a registry"] if not registry else [])]
    return SystemFailure(
        f"{domain} cannot be reached, and no mirror gives {reference.familiar}:\n  "
        + "\n  ".join(lines)
        + "\nWays out:\n  "
        + "\n  ".join(ways)
    )
