"""What keeper and supervisor have in common: one epoll loop, peers on SEQPACKET sockets, requests dispatched to `_op_<name>` methods."""

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable

from sampan.errors import SystemFailure
from sampan.runtime.protocol import PROTOCOL, Channel, ChannelClosed, Message
from sampan.runtime.supervisor import child

Fds = dict[str, int]
REAPED = 1000
"""Processes reaped at once: a container in the host's PID namespace may leave us more all the time."""


def boot_id() -> str:
    """The kernel's identifier of this boot: a PID of another boot means nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class Peer:
    """A connected sampand or keeper."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.fd = channel.fileno()
        self.role = ""
        self.alive = True


class RequestError(Exception):
    """A request that cannot be done; goes back as {"error": ...}."""

    def __init__(self, step: str, number: int, message: str) -> None:
        super().__init__(message)
        self.detail = {"step": step, "errno": number, "path": "", "message": message}


class Loop:
    """The loop, its table of handlers and its peers."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.peers: list[Peer] = []
        self.running = True
        self.boot_id = boot_id()
        listener.setblocking(False)
        self.watch(listener.fileno(), select.EPOLLIN, self._accept)

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call handler(events) when fd is ready."""
        self.epoll.register(fd, events)
        self.handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Undo watch(); no error if fd is not watched."""
        if self.handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def watch_children(self, handler: Callable[[], None]) -> int:
        """Call handler when a child may have ended; a descriptor that makes it be called again when it is written to."""
        wake, again = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def ready(_events: int) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            handler()

        signal.set_wakeup_fd(again, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.watch(wake, select.EPOLLIN, ready)
        return again

    def serve(self) -> None:
        """Run until a shutdown request."""
        while self.running:
            self._turn(-1)

    def _turn(self, timeout: float) -> None:
        """Handle what happens within timeout seconds, -1: whenever that is."""
        for fd, events in self.epoll.poll(timeout):
            handler = self.handlers.get(fd)
            if handler is None:
                continue
            try:
                handler(events)
            except Exception as error:
                # One bad message, process or descriptor must not end the parent of all containers, nor the holder of their output.
                print(f"{type(error).__name__}: {error} in the handler of descriptor {fd}", file=sys.stderr, flush=True)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        peer = Peer(Channel(connection))
        self.peers.append(peer)
        self.watch(peer.fd, select.EPOLLIN, lambda events: self._peer_ready(peer, events))

    def _drop(self, peer: Peer) -> None:
        if not peer.alive:
            return
        peer.alive = False
        self.handlers.pop(peer.fd, None)
        # Said explicitly: a child being set up may hold a copy of the socket, and then closing ours would not end the registration.
        with contextlib.suppress(OSError):
            self.epoll.unregister(peer.fd)
        peer.channel.close()
        self.peers.remove(peer)

    def _send(self, peer: Peer, message: Message, fds: list[int] | None = None) -> None:
        if not peer.alive:
            return
        try:
            peer.channel.send(message, fds or [])
        except ChannelClosed:
            self._drop(peer)
            return
        except ValueError as error:
            # Too long an answer is no answer: the peer is told, and stays.
            if "re" in message:
                self._send(peer, {"re": message["re"], "error": RequestError("reply", errno.EMSGSIZE, str(error)).detail})
            return
        if peer.channel.wants_write:
            self.epoll.modify(peer.fd, select.EPOLLIN | select.EPOLLOUT)

    def _peer_ready(self, peer: Peer, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                peer.channel.flush()
                if not peer.channel.wants_write:
                    self.epoll.modify(peer.fd, select.EPOLLIN)
            while peer.alive:
                received = peer.channel.recv()
                if received is None:
                    return
                self._handle(peer, *received)
        except ChannelClosed:
            self._drop(peer)

    def _handle(self, peer: Peer, message: Message, fds: list[int]) -> None:
        seq = message.get("seq")
        names = message.get("names") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            names = []
        given: Fds = dict(zip(names, fds, strict=False))
        spare = fds[len(names) :]
        try:
            method = getattr(self, f"_op_{message.get('op')}", None)
            if method is None:
                raise RequestError("protocol", errno.EINVAL, f"unknown request {message.get('op')}")
            reply = method(peer, message, given)
        except RequestError as error:
            reply = {"error": error.detail}
        except (OSError, KeyError, TypeError, ValueError, SystemFailure) as error:
            number = error.errno if isinstance(error, OSError) else errno.EINVAL
            reply = {"error": {"step": "request", "errno": number or 0, "path": "", "message": f"{type(error).__name__}: {error}"}}
        for fd in [*given.values(), *spare]:
            os.close(fd)
        if reply is not None and seq is not None:
            self._send(peer, {"re": seq, **reply})
        if message.get("op") == "hello" and reply is not None and "error" not in reply:
            self._greeted(peer)

    def _identity(self) -> Message:
        """Who answers a hello."""
        return {"protocol": PROTOCOL, "pid": os.getpid(), "boot_id": self.boot_id, "build": child.Host.build}

    def _op_renew(self, _peer: Peer, message: Message, _fds: Fds) -> None:
        """Become another version of this program: the same process, so the parent of the same children. It is told what we hold as one
        that was started anew is; sampand sees to it that the other one has it all. Answered only if it fails."""
        become(message["command"])

    def _greeted(self, peer: Peer) -> None:
        """Called after the reply to a hello was sent."""


def become(command: list[str]) -> None:
    """Execute another program of our role in our place. The lock stays held: who is started meanwhile is one too many. Raises OSError."""
    limit, lock = resource.getrlimit(resource.RLIMIT_NOFILE), child.Host.lock
    resource.setrlimit(resource.RLIMIT_NOFILE, child.Host.nofile)  # what it finds is what containers get
    os.set_inheritable(lock, True)
    try:
        os.execve(command[0], command, {"LC_ALL": "C.UTF-8", "SAMPAN_LOCK": str(lock)})
    finally:
        os.set_inheritable(lock, False)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def listen(path: str) -> socket.socket:
    """A listening SEQPACKET socket that only root may use; a dead one in its place is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(16)
    return listener
