"""Messages between sampand, the zygote and its children: one JSON object a packet, descriptors beside it, on SOCK_SEQPACKET.

sampand -> zygote   {"job": N, "name": NAME, "args": {...}} + [reply socket, the job's descriptors...]   |   {"cancel": N}
child -> sampand    {"progress": ...} any number, then {"result": ...} or {"error": {"kind", "message"}}   (on the reply socket)
"""

import json
import socket
from collections.abc import Sequence
from typing import Any

MAX_PACKET = 128 * 1024
MAX_FDS = 250
"""The kernel takes 253 (include/net/scm.h SCM_MAX_FD)."""
ERROR_TEXT_MAX = 8192


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError."""
    socket.send_fds(sock, [json.dumps(message, separators=(",", ":")).encode()], list(fds), socket.MSG_NOSIGNAL)


def recv(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors, or None when the peer is gone. Raises BlockingIOError on a non-blocking socket."""
    try:
        payload, fds, _, _ = socket.recv_fds(sock, MAX_PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    return (json.loads(payload), fds) if payload else None
