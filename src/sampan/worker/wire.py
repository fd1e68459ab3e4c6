"""Messages between sampand, the zygote and its children: one JSON object a packet, descriptors beside it, on SOCK_SEQPACKET.

sampand -> zygote   {"name": NAME, "args": {...}} + [reply socket, the job's descriptors...]
                    {"name": NAME, "spilled": true} + [reply socket, a file with the JSON of the args, the job's descriptors...]
child -> sampand    {"started": true} + [its pidfd], {"progress": ...} any number, {"result": ...} or {"error": {"kind", "message"}}
                    (on the reply socket)

A job is ended by its pidfd. What a message says may be somebody else's (an image's user, a path in a container): one that is too large is
refused before it is sent, one that arrives cut fails alone.
"""

import json
import os
import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

MAX_PACKET: Final = 128 * 1024
"""Bytes; the kernel takes about 200 KiB (net.core.wmem_default)."""
MAX_FDS: Final = 250
"""The kernel takes 253 (include/net/scm.h SCM_MAX_FD)."""
ARGS_MAX: Final = 16 << 20
"""Bytes of a job's arguments as JSON."""
ERROR_TEXT_MAX: Final = 8192


class Kind(StrEnum):
    """Whose fault it is that a job has no result."""

    INVALID = "invalid"
    """The request's, or the archive's"""
    MISSING = "missing"
    """Nobody's: what was asked for is not there"""
    GONE = "gone"
    """Nobody's: the container has just ended"""
    SYSTEM = "system"
    """The machine's"""
    DAMAGED = "damaged"
    """The disk's: what is stored is not what was stored"""


class BadMessage(ValueError):
    """What is to be sent does not fit into a packet, or what arrived is no message."""


def encoded(value: object) -> bytes:
    """JSON; file names as they are, also those that are not UTF-8. Raises BadMessage for lone surrogates."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadMessage(f"not a text: {error.reason}") from None


def decoded(payload: bytes) -> Any:
    """What encoded() was given. Raises BadMessage."""
    try:
        return json.loads(payload.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not a message: {error}") from None


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message. Raises BadMessage before anything is sent, OSError."""
    payload = encoded(message)
    if len(payload) > MAX_PACKET:
        raise BadMessage(f"a message of {len(payload)} bytes is too long: at most {MAX_PACKET}")
    if len(fds) > MAX_FDS:
        raise BadMessage(f"{len(fds)} descriptors are too many for one message: at most {MAX_FDS}")
    socket.send_fds(sock, [payload], list(fds), socket.MSG_NOSIGNAL)


def recv(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors, or None when the peer is gone.

    Raises BadMessage (its descriptors are closed; the next message may be had), BlockingIOError on a non-blocking socket.
    """
    try:
        payload, fds, flags, _ = socket.recv_fds(sock, MAX_PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not payload:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise BadMessage("a message came cut")
        message = decoded(payload)
        if not isinstance(message, dict):
            raise BadMessage("not a message")
    except BadMessage:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds


def spilled(args: dict[str, Any]) -> int:
    """A file in memory with arguments that are too long for a packet. The caller closes it. Raises BadMessage, OSError."""
    payload = encoded(args)
    if len(payload) > ARGS_MAX:
        raise BadMessage(f"{len(payload)} bytes of arguments are too many: at most {ARGS_MAX}")
    fd = os.memfd_create("arguments", os.MFD_CLOEXEC)
    try:
        view = memoryview(payload)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_spilled(fd: int) -> dict[str, Any]:
    """What spilled() was given; closes the descriptor. Raises BadMessage, OSError."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        args = decoded(file.read(ARGS_MAX + 1))
    if not isinstance(args, dict):
        raise BadMessage("arguments are an object")
    return args
