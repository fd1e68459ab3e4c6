"""`docker import URL`: the archive is unpacked while it comes (moby api/server/router/image/image_routes.go)."""

import time
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from sampan.distribution.transport import Answer, Unreachable
from sampan.engine.images import ImageService, parse_target
from sampan.engine.lines import TICK_SECONDS, Lines
from sampan.engine.progress import Progress, bar_line
from sampan.engine.registries import Registries
from sampan.errors import EngineError, Forbidden, InvalidArgument, NotFound, SystemFailure, Unauthorized

_KINDS: Final[dict[int, type[EngineError]]] = {400: InvalidArgument, 401: Unauthorized, 403: Forbidden, 404: NotFound}
_SAID_MAX: Final = 4096
"""Bytes of a refusal that are told."""


class ImportService:
    """Imports from elsewhere."""

    def __init__(self, images: ImageService, registries: Registries) -> None:
        """registries: for their proxies and certificates."""
        self._images = images
        self._registries = registries

    async def import_from(
        self, source: str, *, repo: str, tag: str, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[Progress]:
        """Make an image of the tar at a URL, http without a scheme. Yields docker's progress: the ID at the end.

        Raises before the first line what is wrong with the name or keeps the archive from coming.
        """
        parse_target(repo, tag)
        url = source if "://" in source else f"http://{source}"
        _check_url(url)
        lines = Lines()

        async def work() -> None:
            async with self._registries.transport() as transport, transport.request("GET", url) as answer:
                await _check(answer, url)
                lines.say({"status": f"Downloading from {url}"})
                archive = _counted(answer, lines)
                async for line in self._images.import_(archive, repo=repo, tag=tag, message=message, changes=changes, platform=platform):
                    lines.say(line)

        async for line in lines.of(work()):
            yield line


def _check_url(url: str) -> None:
    """Refuse in the words of Go's client what it would not ask for."""
    try:
        address = urlsplit(url)
    except ValueError as error:
        raise InvalidArgument(f'parse "{url}": {error}') from None
    if address.scheme not in ("http", "https"):
        raise SystemFailure(f'Get "{url}": unsupported protocol scheme "{address.scheme}"')
    if not address.hostname:
        raise SystemFailure(f'Get "{url}": http: no Host in request URL')


async def _check(answer: Answer, url: str) -> None:
    """Raise for a refusal, with the beginning of what the server says."""
    if answer.status < HTTPStatus.BAD_REQUEST:
        return
    said = b""
    try:
        async for piece in answer.pieces():
            said += piece
            if len(said) >= _SAID_MAX:
                break
    except Unreachable:
        said += b": error reading body"
    kind = _KINDS.get(answer.status, SystemFailure)
    status = f"{answer.status} {answer.reason}"
    raise kind(f"failed to GET {url} with status {status}: {said[:_SAID_MAX].decode(errors='replace').strip()}")


async def _counted(answer: Answer, lines: Lines) -> AsyncIterator[bytes]:
    """The body, with bars of how far it has come."""
    total = answer.length or 0
    done, last = 0, time.monotonic()
    async for piece in answer.pieces():
        done += len(piece)
        if time.monotonic() - last >= TICK_SECONDS:
            last = time.monotonic()
            lines.say(bar_line("Importing", done, total), once=False)
        yield piece
    lines.say(bar_line("Importing", done, total))
