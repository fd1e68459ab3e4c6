"""The wire between sampand, the keeper and the supervisor: JSON messages with descriptors on SOCK_SEQPACKET unix sockets.

A message is one JSON object. Three shapes exist:

    request  {"op": NAME, "seq": N, ...}      answered by exactly one reply (none where seq is absent)
    reply    {"re": N, ...} or {"re": N, "error": {"step": str, "errno": int, "path": str, "message": str}}
    event    {"event": NAME, ...}             never answered

A payload over 64 KiB travels in a sealed memfd, which is then the first descriptor of the packet (a packet of 300 KB is EMSGSIZE).
Sends never block: what the socket does not take is queued up to a bound, and the owner's loop calls flush() when the socket is writable.
Standard library only: the lean processes share this module with sampand.
"""

import array
import errno
import fcntl
import json
import os
import re
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

PROTOCOL = 1
"""In the reply to hello. Raised when a request or event changes so that an older process on the other side would get it wrong."""
MAX_INLINE = 64 * 1024
MAX_FDS = 200
MAX_PAYLOAD = 16 * 1024 * 1024
"""A longer message is not sent; one that comes all the same is answered, not obeyed."""
MAX_QUEUE = 4096
"""Packets queued for a peer that does not read, before the channel counts as lost."""

_MEMFD_MARK = b"\0memfd"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_SEQ_AT_END = re.compile(rb'"seq":(\d+)(?:,"names":\[[^][]*\])?\}\Z')
_FLOCK = "hhqqi4x"
"""struct flock of fcntl(2), on 64 bits."""
_INT_SIZE = array.array("i").itemsize


class ChannelClosed(Exception):
    """The peer is gone, or so far behind that it is treated as gone."""


def is_served(path: str) -> bool:
    """Whether the lean process whose socket this is lives, by its lock: a child of one that was killed may be held in the midst of its
    setting up, in a frozen cgroup say, and has the socket open. True where there is no lock to tell."""
    try:
        fd = os.open(path.removesuffix("sock") + "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind: int = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
    finally:
        os.close(fd)


def _memfd_of(payload: bytes) -> int:
    fd = os.memfd_create("sampan-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(payload)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _stand_in(end: bytes) -> bytes:
    """For a message that is too long: a request that nobody knows, so that it is answered with an error (clients put seq last)."""
    seq = _SEQ_AT_END.search(end)
    return b'{"op":"of over 16 MiB","seq":%s}' % (seq[1] if seq else b"null")


class Channel:
    """One end of a connection. Owns the socket; descriptors given to send() stay the caller's (they are duplicated if queued)."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._queue: deque[tuple[bytes, list[int]]] = deque()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether packets are queued, so that the owner should wait for the socket to be writable."""
        return bool(self._queue)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send or queue one message with at most MAX_FDS descriptors. Raises ChannelClosed; ValueError for too much in one message."""
        payload = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        if len(fds) >= MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors in one message")
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"{len(payload)} bytes in one message, of at most {MAX_PAYLOAD}")
        owned = [os.dup(fd) for fd in fds]
        if len(payload) > MAX_INLINE:
            owned.insert(0, _memfd_of(payload))
            payload = _MEMFD_MARK
        self._queue.append((payload, owned))
        if len(self._queue) > MAX_QUEUE:
            self.close()
            raise ChannelClosed("peer does not read")
        self.flush()

    def flush(self) -> None:
        """Send what is queued as far as the socket takes it. Raises ChannelClosed."""
        while self._queue:
            payload, fds = self._queue[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self.sock.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.ENOBUFS, errno.ETOOMANYREFS):
                    return
                self.close()
                raise ChannelClosed(str(error)) from error
            self._queue.popleft()
            for fd in fds:
                os.close(fd)

    def recv(self) -> tuple[Message, list[int]] | None:
        """The next message and its descriptors (the caller's from then on), or None when there is none now. Raises ChannelClosed."""
        try:
            payload, ancillary, flags, _ = self.sock.recvmsg(
                MAX_INLINE + 1, socket.CMSG_SPACE(MAX_FDS * _INT_SIZE), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        fds: list[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(data[: len(data) - len(data) % _INT_SIZE])
                fds.extend(received)
        if not payload:
            for fd in fds:
                os.close(fd)
            raise ChannelClosed("end of stream")
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ValueError("truncated packet")
            if payload == _MEMFD_MARK:
                memfd = fds.pop(0)
                size = os.fstat(memfd).st_size
                payload = os.pread(memfd, size, 0) if size <= MAX_PAYLOAD else _stand_in(os.pread(memfd, MAX_INLINE, size - MAX_INLINE))
                os.close(memfd)
            message = json.loads(payload)
            if not isinstance(message, dict):
                raise ValueError("not an object")
        except (ValueError, IndexError) as error:
            for fd in fds:
                os.close(fd)
            raise ChannelClosed(f"malformed message: {error}") from error
        return message, fds

    def close(self) -> None:
        """Close the socket and the descriptors still queued. May be called twice."""
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self._queue.clear()
        self.sock.close()
