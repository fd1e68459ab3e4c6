"""Names of hosts into addresses, in threads of their own: a name server that is silent keeps nobody waiting but who asks it."""

import asyncio
import errno
import os
import socket
import threading
from concurrent.futures import Future
from typing import TypedDict

LOOKUP_SECONDS = 10.0
"""getaddrinfo(3) itself may take a minute, and cannot be ended."""
LOOKUPS_MAX = 32
"""Names at once."""


class Found(TypedDict):
    """One address, as aiohttp has it."""

    hostname: str
    host: str
    port: int
    family: int
    proto: int
    flags: int


class Lookups:
    """The names that are being looked up: each once, whoever wants it."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int, int], Future[list[Found]]] = {}
        self._lock = threading.Lock()

    def of(self, host: str, port: int, family: int) -> Future[list[Found]]:
        """What is found, or will be. Raises OSError: too much is being looked up."""
        key = (host, port, family)
        with self._lock:
            if key in self._running:
                return self._running[key]
            if len(self._running) >= LOOKUPS_MAX:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            future: Future[list[Found]] = Future()
            future.set_running_or_notify_cancel()  # so that one who no longer waits does not end it for the others
            try:  # no pool: the end of the process would wait for its threads
                threading.Thread(target=self._look_up, args=(key, future), name="lookup", daemon=True).start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, str(error)) from error
            self._running[key] = future
            return future

    def _look_up(self, key: tuple[str, int, int], future: Future[list[Found]]) -> None:
        try:
            found, error = _addresses(*key), None
        except Exception as raised:  # UnicodeError for a name that cannot be
            found, error = [], raised
        with self._lock:
            del self._running[key]
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)


_LOOKUPS = Lookups()


class Resolver:
    """What aiohttp asks (aiohttp.abc.AbstractResolver)."""

    def __init__(self, lookups: Lookups = _LOOKUPS) -> None:
        self._lookups = lookups

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[Found]:
        """Raises OSError; TimeoutError with its errno after LOOKUP_SECONDS."""
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await asyncio.wrap_future(self._lookups.of(host, port, family))
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error

    async def close(self) -> None:
        """See AbstractResolver; nothing is ours."""


def _addresses(host: str, port: int, family: int) -> list[Found]:
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return [
        Found(
            hostname=host, host=socket.getnameinfo(address, numeric)[0], port=port, family=int(kind), proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    ]  # fmt: skip
