"""Ports of the host that a test publishes, one after the other."""

import contextlib
import functools
import socket

from tests.support.engine import own_number

FIRST, BLOCK = 24000, 32


@functools.cache
def _own_block() -> int:
    """The first port of those that no other run of tests on this machine picks, as long as this process lives."""
    return FIRST + BLOCK * own_number(contextlib.ExitStack(), "ports")


def free_ports(count: int) -> int:
    """The first of some that are free one after the other; at most 32."""
    block = _own_block()
    for first in range(block, block + BLOCK - count + 1):
        try:
            for port in range(first, first + count):
                socket.create_server(("0.0.0.0", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")
