"""One blob from a registry into a file, however often the connection breaks: by Range from where it ended, elsewhere if need be."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from sampan.content.partial import SLOW_BYTES, SLOW_SECONDS, PartialBlob
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import Refused, Repository
from sampan.distribution.retrying import pause
from sampan.distribution.transport import Unreachable
from sampan.errors import EngineError, InvalidArgument

MIRROR_ATTEMPTS = 2
"""Of an endpoint with another one behind it"""
PROGRESS_MIN = 1 << 16
"""Bytes of an attempt that count as progress where another endpoint could give them"""


async def fetch(
    repositories: Sequence[Repository],
    blob: PartialBlob,
    *,
    attempts: int,
    progress: Callable[[str], None],
    failing: Callable[[Endpoint, EngineError], None] = lambda _endpoint, _error: None,
) -> None:
    """Complete a blob, from the first repository that has it.

    progress is called with `Downloading` when there is more, and with docker's line before a pause. attempts: in a row without a byte; an
    endpoint with another one behind it has MIRROR_ATTEMPTS, and must not be all too slow. failing: told of each endpoint that is given up.
    Bytes that an earlier fetch or another repository left are gone on with, and never held against who gives the rest.
    Raises what the last attempt at the last repository raised; InvalidArgument when what came from there is not the blob.
    """
    await blob.load()
    others = blob.size > 0
    """Whether there are bytes of somebody else"""
    failed = 0
    at = 0
    while True:
        before = blob.size
        blob.last_chance = not others and at + 1 == len(repositories)
        try:
            if blob.size < blob.length or not blob.length:
                await _attempt(repositories[at], blob, progress, hurried=at + 1 < len(repositories))
            blob.finish()
            return
        except (Unreachable, Refused) as error:
            endpoint, more = repositories[at].endpoint, at + 1 < len(repositories)
            failed = 1 if blob.size - before >= (PROGRESS_MIN if more else 1) else failed + 1
            final = isinstance(error, Refused) and ((endpoint.mirror and more) or not error.passing)
            if final or failed >= (min(attempts, MIRROR_ATTEMPTS) if more else attempts):
                failing(endpoint, error)
                at, failed, others = at + 1, 0, blob.size > 0
                if at == len(repositories):
                    raise
                continue
            await pause(failed, error, progress)
        except InvalidArgument:  # what came is wrong: the same again would be no better
            blob.spoil()
            if others:
                others = False
                continue
            at, failed = at + 1, 0
            if at == len(repositories):
                raise


async def _attempt(repository: Repository, blob: PartialBlob, progress: Callable[[str], None], *, hurried: bool) -> None:
    """hurried: somebody else may have it, too, and faster."""
    clock = asyncio.get_running_loop().time
    had = blob.size
    async with repository.blob(blob.digest, blob.size) as answer:
        if answer.status != 206 and blob.size:
            blob.spoil()
        try:
            # a clock of its own: what is no byte of the blob may drip for ever, and no piece comes of it
            async with asyncio.timeout(SLOW_SECONDS if hurried else None) as limit, aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    blob.append(piece)
                    progress("Downloading")
                    if hurried and blob.size - had >= SLOW_BYTES:
                        had = blob.size
                        limit.reschedule(clock() + SLOW_SECONDS)
        except TimeoutError as error:
            raise Unreachable(f'Get "{answer.url}": {blob.size - had} bytes in {SLOW_SECONDS:.0f} seconds') from error
    if blob.size < blob.length:
        raise Unreachable(f'Get "{answer.url}": unexpected EOF')
