"""sampan system dial-stdio: the daemon's socket on stdin and stdout, for clients that come by ssh."""

from __future__ import annotations

import os
import select

from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.http import Socket
    from sampan.cli.main import Context

SPEC = Command("", "Proxy the stdio stream to the daemon connection. Should not be invoked manually.", max_args=0)
_CHUNK = 4096  # a pipe that poll calls writable takes so much without waiting
_ROOM = 1 << 18
_SHUT_WR = 1
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


def run(ctx: Context, args: Parsed) -> int:
    """Pass on what comes until the daemon ends its side."""
    relay(ctx.client.host.open().sock)
    return 0


def relay(sock: Socket, source: int = 0, target: int = 1) -> None:
    """Bytes of `source` to the socket, the socket's to `target`; neither way waits for the other. Ends with the socket's stream,
    or when nobody reads `target` any more.
    """
    sock.setblocking(False)
    to_socket, to_target = bytearray(), bytearray()
    source_open = stream_open = True
    finished = False
    while stream_open or to_target:
        poller = select.poll()
        if source_open and len(to_socket) < _ROOM:
            poller.register(source, select.POLLIN)
        poller.register(target, select.POLLOUT if to_target else 0)  # tells when its reader has gone, too
        has_to_send = bool(to_socket) or not (source_open or finished)
        wanted = (select.POLLIN if stream_open and len(to_target) < _ROOM else 0) | (select.POLLOUT if has_to_send else 0)
        if wanted:
            poller.register(sock.fileno(), wanted)
        events = dict(poller.poll())
        if events.get(target, 0) & (select.POLLERR | select.POLLHUP):
            return
        if events.get(source, 0) & _READABLE and source_open and len(to_socket) < _ROOM:
            piece = os.read(source, _ROOM)
            to_socket += piece
            source_open = bool(piece)
        if to_socket and events.get(sock.fileno(), 0):
            del to_socket[: _sent(sock, to_socket)]
        if not source_open and not to_socket and not finished:
            finished = _finish(sock)
        if wanted & select.POLLIN and events.get(sock.fileno(), 0) & _READABLE:
            received = _received(sock)
            if received is not None:
                to_target += received
                stream_open = bool(received)
        if to_target and events.get(target, 0):
            del to_target[: os.write(target, to_target[:_CHUNK])]


def _sent(sock: Socket, piece: bytearray) -> int:
    try:
        return sock.send(piece)
    except (BlockingIOError, InterruptedError):
        return 0
    except (BrokenPipeError, ConnectionResetError):
        return len(piece)  # the daemon reads no more, but may have answered


def _received(sock: Socket) -> bytes | None:
    """None: nothing yet."""
    try:
        return sock.recv(_ROOM)
    except (BlockingIOError, InterruptedError):
        return None
    except ConnectionResetError:
        return b""


def _finish(sock: Socket) -> bool:
    """Whether that is done: TLS has something to send for it."""
    try:
        sock.shutdown(_SHUT_WR)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        pass  # it has ended already
    return True
