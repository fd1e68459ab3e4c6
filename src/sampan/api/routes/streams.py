"""Attach and logs: a container's streams (swagger tag Container)."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING

from sampan.api.connection import COMMON_HEADERS
from sampan.api.decode import timestamp_ns
from sampan.api.hijack import MULTIPLEXED_STREAM, RAW_STREAM, hijack_head
from sampan.api.http import Request
from sampan.api.router import Route
from sampan.api.routes.common import ended
from sampan.api.services import AttachOptions, LogOptions, Services
from sampan.errors import InvalidArgument
from sampan.streams import Duplex

if TYPE_CHECKING:
    from sampan.api.websocket import WebSocket


def stream_opener(request: Request, *, common_headers: bool) -> Callable[[bool], Awaitable[Duplex]]:
    """services.OpenStream for a request. Exec repeats docker's headers in its head, attach does not (moby exec.go, container_routes.go)."""

    async def open_stream(multiplexed: bool) -> Duplex:
        framed = multiplexed and request.version >= (1, 42)
        extra = COMMON_HEADERS if common_headers else ""
        return await request.exchange.hijack(request, hijack_head(upgrade=request.upgrade, multiplexed=framed, extra=extra))

    return open_stream


async def attach(request: Request, services: Services) -> None:
    """POST /containers/{id}/attach: the connection becomes the container's streams."""
    query = request.query
    options = AttachOptions(
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        detach_keys=query.text("detachKeys"),
    )
    await request.body.read_all()  # an empty chunked body must not be taken for stdin
    await services.attach.attach(request.variables["id"], options, stream_opener(request, common_headers=False))


async def attach_websocket(request: Request, services: Services) -> None:
    """GET /containers/{id}/attach/ws: a WebSocket for input and raw output; binary messages since 1.28, streams to choose since 1.42."""
    query = request.query
    chooses = request.version >= (1, 42)
    options = AttachOptions(
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        stdin=not chooses or query.flag("stdin"),
        stdout=not chooses or query.flag("stdout"),
        stderr=not chooses or query.flag("stderr"),
        detach_keys=query.text("detachKeys"),
        raw=True,
    )
    await asyncio.to_thread(import_module, "sampan.api.websocket")
    from sampan.api import websocket  # few use one

    head = websocket.handshake(request.headers)
    opened: list[WebSocket] = []

    async def open_stream(multiplexed: bool) -> Duplex:
        del multiplexed
        connection = await request.exchange.hijack(request, head)
        opened.append(websocket.WebSocket(connection, binary=request.version >= (1, 28), takes_input=options.stdin))
        return opened[0]

    try:
        await services.attach.attach(request.variables["id"], options, open_stream)
    finally:
        for socket in opened:
            await socket.end()


def _tail(text: str) -> int:
    """Anything but a number of lines means all, as in docker."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1


async def logs(request: Request, services: Services) -> None:
    """GET /containers/{id}/logs."""
    query = request.query
    if not (query.flag("stdout") or query.flag("stderr")):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    options = LogOptions(
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        follow=query.flag("follow"),
        timestamps=query.flag("timestamps"),
        details=query.flag("details"),
        since=timestamp_ns(query.text("since")),
        until=timestamp_ns(query.text("until")) if request.version >= (1, 35) else 0,
        tail=_tail(query.text("tail", "all")),
    )
    stream = await services.attach.logs(request.variables["id"], options)
    framed = stream.multiplexed and request.version >= (1, 42)
    async with ended(stream.chunks) as chunks:
        out = request.start_stream(MULTIPLEXED_STREAM if framed else RAW_STREAM)
        async for chunk in chunks:
            await out.write(chunk)


_TAG = "Container"
ROUTES = (
    Route("POST", "/containers/{id}/attach", attach, _TAG),
    Route("GET", "/containers/{id}/attach/ws", attach_websocket, _TAG),
    Route("GET", "/containers/{id}/logs", logs, _TAG, cancel=True),
)
