"""sampand's side of the userland proxy: starts it with the first port published on IPv6, and again when it has died."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sampan.network.ports import HeldPort
from sampan.readiness import writable

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("userland_proxy.py")
PATIENCE = 5.0
"""Seconds to wait for the answer that a port is free."""
PAUSE = 1.0
"""Seconds before a proxy that died is started again."""


def ipv6_is_usable() -> bool:
    """Whether this host can listen on IPv6 addresses."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class UserlandProxy:
    """One process, whatever the number of ports. Methods are for the event loop's thread."""

    def __init__(self, owner: str) -> None:
        """owner: the engine's exec-root; an argument of the process, so that it is found by it."""
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._open: dict[str, tuple[HeldPort, str]] = {}
        self._closing: dict[str, asyncio.Future[None]] = {}
        self._sending = asyncio.Lock()
        """Messages arrive in the order in which they were asked for, also when one has to wait for room in the socket."""

    async def open(self, port: HeldPort, address: str) -> None:
        """Pass what arrives at a held port on to address. Raises OSError."""
        key = self._key(port)
        self._open[key] = port, address
        if self._control is None:
            self._start()
            await self._tell_open(list(self._open))
        else:
            await self._tell_open([key])

    async def close(self, port: HeldPort) -> None:
        """Free the port in the proxy; the caller closes its own hold. Never raises."""
        key = self._key(port)
        if self._open.pop(key, None) is None or self._control is None:
            return
        answer = self._closing[key] = asyncio.get_running_loop().create_future()
        try:
            async with self._sending:
                await self._send(self._control, {"close": key})
            await asyncio.wait_for(answer, PATIENCE)
        except (OSError, TimeoutError) as error:
            log.warning("the userland proxy did not free %s: %s", key, error)
        finally:
            self._closing.pop(key, None)

    async def stop(self) -> None:
        """Leave the proxy: it frees its ports, and ends with its last connection."""
        self._open.clear()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._forget()

    @staticmethod
    def _key(port: HeldPort) -> str:
        shown = port.published
        return f"[{shown.host_ip}]:{shown.host_port}/{shown.protocol}"

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-S", str(PROGRAM), self._owner]
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/", env={"PATH": os.defpath}, start_new_session=True
            )
        ours.setblocking(False)
        self._control = ours
        self._reader = asyncio.get_running_loop().create_task(self._read(ours))

    async def _tell_open(self, keys: Sequence[str]) -> None:
        control = self._control
        async with self._sending:
            for key in keys:
                if key not in self._open:
                    continue  # closed meanwhile
                port, address = self._open[key]
                message = {"open": key, "protocol": port.published.protocol, "to": [address, port.published.port]}
                await self._send(control, message, [port.fileno()])

    async def _send(self, control: socket.socket | None, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        """Send, waiting for room in the socket where the proxy is behind. Raises OSError.

        Nothing is sent to a proxy that is known to have died: the next one is told all.
        """
        data = json.dumps(message).encode()
        async with asyncio.timeout(PATIENCE):
            while control is not None and control is self._control:
                with contextlib.suppress(BlockingIOError):
                    socket.send_fds(control, [data], fds)
                    return
                await writable(control.fileno())

    async def _read(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(control, 65536)
            except OSError:
                data = b""
            if not data:
                break
            waiter = self._closing.get(json.loads(data)["closed"])
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        await self._forget()
        for waiter in self._closing.values():
            if not waiter.done():
                waiter.set_result(None)  # it has died, and its ports are free
        while self._open and self._control is None:
            log.warning("the userland proxy has died: starting it again")
            await asyncio.sleep(PAUSE)
            if self._open and self._control is None:
                with contextlib.suppress(OSError):
                    self._start()
                    await self._tell_open(list(self._open))

    async def _forget(self) -> None:
        control, process = self._control, self._process
        self._control = self._process = None
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for room
            async with self._sending:
                control.close()
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # some connection goes on: not ours any more
                await asyncio.to_thread(process.wait, 1.0)
