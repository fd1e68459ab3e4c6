"""libnftables: runs nft's text commands, each call in one transaction, without starting a process; and the kernel's news of changes."""

import contextlib
import ctypes
import errno
import socket
import struct
import threading
from typing import NamedTuple

_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7
_SUBSYSTEM_NFTABLES = 10
_TABLE_OR_CHAIN_OR_RULE_GONE = (2, 5, 8)
"""NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE (linux/netfilter/nf_tables.h)."""
_SO_RCVBUFFORCE = 33
_NEWS_MAX = 8 << 20
"""Bytes of unread news. The usual 200 KiB are less than 500 published ports make, or a few engines that start."""


class NftablesError(Exception):
    """libnftables is missing, or refused a command; the text is its own."""


class Nftables:
    """One libnftables context; safe to use from several threads. Made early: it waits with select(2), for a descriptor below 1,024."""

    def __init__(self) -> None:
        """Raises NftablesError."""
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise NftablesError(f"libnftables.so.1 cannot be loaded (Debian package libnftables1): {error}") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._lock = threading.Lock()
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise NftablesError("libnftables gave no context")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> None:
        """Run commands, all or none. Raises NftablesError with nft's message."""
        with self._lock:
            if self._library.nft_run_cmd_from_buffer(self._context, commands.encode()):
                words = self._library.nft_ctx_get_error_buffer(self._context) or b""
                raise NftablesError(words.decode(errors="replace").strip() or "nft failed")


class Change(NamedTuple):
    """A change of a table. An empty name: news were lost, anything may have changed."""

    table: str
    is_deletion: bool
    """Of the table, one of its chains or one of its rules; elements of maps are none of these."""


class Monitor:
    """What the kernel announces of changes of rulesets in this netns (NFNLGRP_NFTABLES)."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _NEWS_MAX)
        self._socket.bind((0, 1 << (_GROUP_NFTABLES - 1)))

    def fileno(self) -> int:
        """Readable when there is news."""
        return self._socket.fileno()

    def read(self) -> list[Change]:
        """All news so far. Raises OSError."""
        found: list[Change] = []
        while True:
            try:
                found += parse_changes(self._socket.recv(1 << 16))
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.append(Change("", is_deletion=True))

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


def parse_changes(data: bytes) -> list[Change]:
    """Changes of tables, chains and rules in a datagram of netlink messages (nlmsghdr, nfgenmsg, attributes; 1 is the table's name)."""
    found = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        body = data[offset + 20 : offset + length]
        offset += max(16, length + (-length % 4))
        if kind >> 8 != _SUBSYSTEM_NFTABLES or kind & 0xFF > max(_TABLE_OR_CHAIN_OR_RULE_GONE):
            continue
        if len(body) >= 4 and struct.unpack_from("=HH", body)[1] == 1:
            size = struct.unpack_from("=H", body)[0]
            found.append(Change(body[4:size].rstrip(b"\0").decode(errors="replace"), kind & 0xFF in _TABLE_OR_CHAIN_OR_RULE_GONE))
    return found
