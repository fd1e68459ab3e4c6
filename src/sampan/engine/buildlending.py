"""`RUN --mount=type=secret` and `type=ssh`: what a step is lent of its client's, in memory only and as long as it runs.

Each file and each socket has a tmpfs of its own that is mounted nowhere but in the step's container: nothing of it is on a disk, and the
last process that has it, however it ends, takes it along.
"""

import asyncio
import os
import posixpath
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

from sampan.build.instructions import SecretMount, SshMount
from sampan.engine.buildsession import Channel, Session
from sampan.engine.runner import Lent
from sampan.errors import EngineError, InvalidArgument, SystemFailure
from sampan.linux import mounts
from sampan.runtime import plan

LENT_MAX: Final = 32
"""Secrets and sockets of one step: each is a descriptor of the launch's message."""
_CONNECTIONS_MAX: Final = 16
"""To an agent, of one step at a time; further ones wait."""
_NAME: Final = "file"
_OPTIONS: Final = ("mode=0755", "size=1m", "nr_inodes=4")


class Lending:
    """What one RUN is lent. `lent` is complete after provide(); all of it goes with the stack."""

    def __init__(self, session: Session | None, environment: Mapping[str, str], stack: AsyncExitStack) -> None:
        """environment: the step's own."""
        self._session = session
        self._has_socket = "SSH_AUTH_SOCK" in environment
        self._stack = stack
        self._wanted: list[SecretMount | SshMount] = []
        self.lent = Lent()
        self.targets: list[str] = []
        stack.callback(self.lent.close)

    def want(self, mount: SecretMount | SshMount) -> str:
        """One mount; what of it a key of the cache is made of: never what is in it. Raises InvalidArgument."""
        if len(self._wanted) >= LENT_MAX:
            raise InvalidArgument(f"a RUN has {LENT_MAX} secret and ssh mounts at most")
        self._wanted.append(mount)
        kind, env = ("secret", mount.env) if isinstance(mount, SecretMount) else ("ssh", "")
        return f"{kind} {mount.id} {mount.target} {env} {mount.mode:o} {mount.uid} {mount.gid}"

    async def provide(self) -> None:
        """Ask the client. Raises InvalidArgument for what is required and not there, other EngineErrors."""
        sockets = 0
        for mount in self._wanted:
            if isinstance(mount, SecretMount):
                await self._secret(mount)
            else:
                await self._agent(mount, mount.target or f"/run/buildkit/ssh_agent.{sockets}")
                sockets += 1

    async def _secret(self, mount: SecretMount) -> None:
        data = await self._session.secret(mount.id) if self._session is not None else None
        if data is None:
            if mount.required:
                raise InvalidArgument(f"secret {mount.id}: not found")
            return
        if mount.env:
            if b"\0" in data:
                raise InvalidArgument(f"secret {mount.id}: not a value of an environment variable: it has a NUL byte")
            self.lent.environment.append(f"{mount.env}={data.decode('utf-8', 'surrogateescape')}")
        if mount.target:
            place = self._place(mount.target)
            fd = os.open(_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                os.fchown(fd, mount.uid, mount.gid)
                os.fchmod(fd, mount.mode & 0o7777)

    async def _agent(self, mount: SshMount, target: str) -> None:
        session = self._session
        if session is None or not await session.has_agent(mount.id):
            if mount.required:
                raise InvalidArgument(f"unset ssh forward key {mount.id}")
            return
        place = self._place(target)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._stack.callback(listener.close)
        listener.bind(f"/proc/self/fd/{place}/{_NAME}")
        os.chown(_NAME, mount.uid, mount.gid, dir_fd=place)
        os.chmod(_NAME, mount.mode & 0o7777, dir_fd=place)
        listener.listen(_CONNECTIONS_MAX)
        serving = asyncio.ensure_future(_serve(listener, session, mount.id))
        self._stack.push_async_callback(_cancelled, serving)
        if not self._has_socket:
            self._has_socket = True
            self.lent.environment.append(f"SSH_AUTH_SOCK={_absolute(target)}")

    def _place(self, target: str) -> int:
        """A file system in memory whose one file is mounted at target. Its descriptor is the loan's."""
        name = f"lent{len(self.lent.fds)}"
        place = self.lent.fds[name] = _memory()
        destination = _absolute(target)
        self.targets.append(destination.strip("/"))
        self.lent.mounts.append(
            plan.Mount(destination=destination, source="tmpfs", readonly=True, subpath=_NAME, descriptor=name, recursive=False, mapped=True)
        )
        return place


def _absolute(target: str) -> str:
    path = posixpath.normpath("/" + target.lstrip("/"))
    if path == "/":
        raise InvalidArgument('invalid mount target "/"')
    return path


def _memory() -> int:
    """A detached tmpfs; where the kernel can (6.4), one that is never swapped out. Raises SystemFailure."""
    attributes = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV
    try:
        with suppress(OSError):
            return mounts.new_mount("tmpfs", [*_OPTIONS, "noswap"], attributes)
        return mounts.new_mount("tmpfs", list(_OPTIONS), attributes)
    except OSError as error:
        raise SystemFailure(f"no file system in memory for a secret: {(error.strerror or str(error)).lower()}") from error


async def _cancelled(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _serve(listener: socket.socket, session: Session, agent_id: str) -> None:
    """Pass each connection of the step's on to the client's agent."""
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(_CONNECTIONS_MAX)

    async def pass_on(connection: socket.socket) -> None:
        try:
            with connection, suppress(EngineError, OSError):
                await session.forward(agent_id, lambda channel: _pump(connection, channel))
        finally:
            free.release()

    async with asyncio.TaskGroup() as group:
        while True:
            await free.acquire()
            connection, _ = await loop.sock_accept(listener)
            group.create_task(pass_on(connection))


async def _pump(connection: socket.socket, channel: Channel) -> None:
    """Both ways, until one side ends. Raises OSError."""
    loop = asyncio.get_running_loop()

    async def requests() -> None:
        while data := await loop.sock_recv(connection, 1 << 16):
            await channel.send(data)

    async def answers() -> None:
        async for piece in channel.pieces():
            await loop.sock_sendall(connection, piece)

    tasks = [asyncio.ensure_future(requests()), asyncio.ensure_future(answers())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
