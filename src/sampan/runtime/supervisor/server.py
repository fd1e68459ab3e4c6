"""The supervisor: one epoll loop that forks containers and execs, reaps them, and keeps their descriptors in custody.

Nothing here waits: not for sampand, not for the keeper, not for a child being set up, and no disk is touched (the forked child does that).
"""

import array
import contextlib
import errno
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from sampan.errors import SystemFailure
from sampan.linux import namespaces, pidfd
from sampan.runtime.protocol import Channel, ChannelClosed, Message
from sampan.runtime.supervisor import child

Fds = dict[str, int]


def boot_id() -> str:
    """The kernel's identifier of this boot: a PID of another boot means nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class Proc:
    """A container's init or an exec. Owns its descriptors until forgotten."""

    def __init__(self, facts: Message, fds: Fds) -> None:
        self.key: str = facts["key"]
        self.container: str = facts["container"]
        self.kind: str = facts["kind"]
        self.tty: bool = facts["tty"]
        self.pid: int = facts["pid"]
        self.start_time: int = facts["start_time"]
        self.started_at: int = facts["started_at"]
        self.exit: Message | None = facts.get("exit")
        self.record: Message = facts.get("record") or {}
        self.fds = fds

    def facts(self) -> Message:
        """PROC of the protocol."""
        names = ("key", "container", "kind", "tty", "pid", "start_time", "started_at", "exit")
        return {name: getattr(self, name) for name in names}

    def close(self) -> None:
        """Close every descriptor held."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


class Launch:
    """A child between fork and execve."""

    def __init__(self, proc: Proc, sync: socket.socket, peer: "Peer", seq: int | None, dirs: list[str]) -> None:
        self.proc, self.sync, self.peer, self.seq, self.dirs = proc, sync, peer, seq, dirs
        self.error: Message | None = None


class Peer:
    """A connected sampand or keeper."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.role = ""
        self.alive = True


class RequestError(Exception):
    """A request that cannot be done; goes back as {"error": ...}."""

    def __init__(self, step: str, number: int, message: str) -> None:
        super().__init__(message)
        self.detail = {"step": step, "errno": number, "path": "", "message": message}


class Server:
    """The loop and its tables."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.procs: dict[str, Proc] = {}
        self.launching: dict[str, Launch] = {}
        self.peers: list[Peer] = []
        self.boot_id = boot_id()
        self.own_pidns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.running = True
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

    def serve(self) -> None:
        """Run until a shutdown request."""
        while self.running:
            for fd, events in self.epoll.poll():
                handler = self.handlers.get(fd)
                if handler is not None:
                    handler(events)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        peer = Peer(Channel(connection))
        self.peers.append(peer)
        self.watch(peer.channel.fileno(), select.EPOLLIN, lambda events: self._peer_ready(peer, events))

    def _drop(self, peer: Peer) -> None:
        if not peer.alive:
            return
        peer.alive = False
        fd = peer.channel.fileno()
        if fd >= 0:
            self.unwatch(fd)
        else:
            # The channel closed itself; epoll has forgotten the descriptor, our table must too.
            self.handlers = {key: value for key, value in self.handlers.items() if _is_open(key)}
        peer.channel.close()
        self.peers.remove(peer)

    def _send(self, peer: Peer, message: Message, fds: list[int] | None = None) -> None:
        if not peer.alive:
            return
        fd = peer.channel.fileno()
        try:
            peer.channel.send(message, fds or [])
        except ChannelClosed:
            self._forget_fd(fd)
            self._drop(peer)
            return
        if peer.channel.wants_write:
            self.epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def _forget_fd(self, fd: int) -> None:
        self.handlers.pop(fd, None)

    def _peer_ready(self, peer: Peer, events: int) -> None:
        fd = peer.channel.fileno()
        try:
            if events & select.EPOLLOUT:
                peer.channel.flush()
                if not peer.channel.wants_write:
                    self.epoll.modify(fd, select.EPOLLIN)
            while peer.alive:
                received = peer.channel.recv()
                if received is None:
                    return
                self._handle(peer, *received)
        except ChannelClosed:
            self._forget_fd(fd)
            self._drop(peer)

    def _handle(self, peer: Peer, message: Message, fds: list[int]) -> None:
        seq = message.get("seq")
        names = message.get("names") or []
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
            for proc in list(self.procs.values()):
                self._send(peer, *self._custody(proc, "custody"))

    def _custody(self, proc: Proc, event: str) -> tuple[Message, list[int]]:
        return {"event": event, **proc.facts(), "record": proc.record, "names": list(proc.fds)}, list(proc.fds.values())

    # Requests. Each gets the descriptors by name and removes from the table what it keeps.

    def _op_hello(self, peer: Peer, message: Message, _fds: Fds) -> Message:
        role = message.get("role")
        if role not in ("sampand", "keeper"):
            raise RequestError("protocol", errno.EINVAL, "unknown role")
        peer.role = role
        return {"pid": os.getpid(), "boot_id": self.boot_id, "procs": [proc.facts() for proc in self.procs.values()]}

    def _op_list(self, _peer: Peer, _message: Message, _fds: Fds) -> Message:
        return {"procs": [proc.facts() for proc in self.procs.values()]}

    def _op_launch(self, peer: Peer, message: Message, fds: Fds) -> Message | None:
        return self._fork(peer, message, fds, "init")

    def _op_exec(self, peer: Peer, message: Message, fds: Fds) -> Message | None:
        target = message["target"]
        if pidfd.start_time(target["pid"]) != target["start_time"]:
            raise RequestError("join", errno.ESRCH, "the container's process is gone")
        fds["target"] = os.pidfd_open(target["pid"])
        if pidfd.start_time(target["pid"]) != target["start_time"]:
            raise RequestError("join", errno.ESRCH, "the container's process is gone")
        return self._fork(peer, message, fds, "exec")

    def _fork(self, peer: Peer, message: Message, fds: Fds, kind: str) -> Message | None:
        key, plan = message["key"], message["plan"]
        if key in self.procs or key in self.launching:
            raise RequestError("request", errno.EEXIST, f"process {key} exists")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = self._fork_child(plan, fds, theirs, kind)
        except OSError as error:
            ours.close()
            raise RequestError("fork", error.errno or 0, error.strerror or "") from error
        finally:
            theirs.close()
        held = {name.removeprefix("custody:"): fd for name, fd in fds.items() if name.startswith("custody:")}
        for name in held:
            del fds[f"custody:{name}"]
        held = {"pidfd": os.pidfd_open(pid), **held}
        facts = {
            "key": key, "container": message["container"], "kind": kind, "tty": bool(plan["process"]["tty"]), "pid": pid,
            "start_time": pidfd.start_time(pid), "started_at": time.time_ns(), "record": message.get("record"),
        }  # fmt: skip
        dirs = plan["cgroup"]["dirs"] if kind == "init" else []
        launch = Launch(Proc(facts, held), ours, peer, message.get("seq"), dirs)
        self.launching[key] = launch
        ours.setblocking(False)
        self.watch(ours.fileno(), select.EPOLLIN, lambda _events: self._launch_ready(launch))
        return None

    def _fork_child(self, plan: Message, fds: Fds, sync: socket.socket, kind: str) -> int:
        entered = True
        if kind == "exec":
            namespaces.setns(fds["target"], namespaces.FLAGS["pid"])
        elif plan["namespaces"]["pid"] == "private":
            namespaces.unshare(namespaces.FLAGS["pid"])
        elif plan["namespaces"]["pid"] == "fd":
            namespaces.setns(fds["pidns"], namespaces.FLAGS["pid"])
        else:
            entered = False
        try:
            pid = os.fork()
            if pid == 0:
                child.run(plan, fds, sync)
        finally:
            if entered:
                namespaces.setns(self.own_pidns, namespaces.FLAGS["pid"])
        return pid

    def _launch_ready(self, launch: Launch) -> None:
        while True:
            try:
                data, ancillary, _, _ = launch.sync.recvmsg(65536, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            for _, _, raw in ancillary:
                received = array.array("i", raw[:4])
                launch.proc.fds["pty"] = received[0]
            if not data:
                self._launch_done(launch)
                return
            message = json.loads(data)
            if "error" in message:
                launch.error = message["error"]
            elif message.get("ready"):
                self._launch_go(launch)

    def _launch_go(self, launch: Launch) -> None:
        proc = launch.proc
        event, fds = self._custody(proc, "proc")
        for peer in [peer for peer in self.peers if peer.role == "keeper"]:
            self._send(peer, event, fds)
        proc.started_at = time.time_ns()
        with contextlib.suppress(OSError):
            launch.sync.send(b"go")

    def _launch_done(self, launch: Launch) -> None:
        """End of file: execve succeeded, or the child is ending with the error it reported, or it was killed before it could report."""
        proc = launch.proc
        self.unwatch(launch.sync.fileno())
        launch.sync.close()
        del self.launching[proc.key]
        if launch.error is not None:
            self._launch_failed(launch, launch.error)
            return
        self.procs[proc.key] = proc
        names = [name for name in ("pidfd", "pty") if name in proc.fds]
        reply: Message = {"re": launch.seq, "pid": proc.pid, "start_time": proc.start_time, "started_at": proc.started_at, "names": names}
        self._send(launch.peer, reply, [proc.fds[name] for name in names])
        self._watch_exit(proc)

    def _launch_failed(self, launch: Launch, error: Message) -> None:
        proc = launch.proc
        try:
            os.kill(proc.pid, signal.SIGKILL)
            os.waitpid(proc.pid, 0)
        except OSError:
            pass
        for directory in launch.dirs:
            try:
                os.rmdir(directory)
            except OSError:
                continue
        event = {"event": "exit", "key": proc.key, "code": 128, "signal": 0, "at": time.time_ns(), "failed": True}
        for peer in [peer for peer in self.peers if peer.role == "keeper"]:
            self._send(peer, event)
        self._send(launch.peer, {"re": launch.seq, "error": error})
        proc.close()

    def _watch_exit(self, proc: Proc) -> None:
        self.watch(proc.fds["pidfd"], select.EPOLLIN, lambda _events: self._exited(proc))

    def _exited(self, proc: Proc) -> None:
        status = self._wait_status(proc)
        self.unwatch(proc.fds["pidfd"])
        code, number = pidfd.decode_status(status) if status is not None else (255, 0)
        proc.exit = {"code": code, "signal": number, "at": time.time_ns()}
        if status is None:
            proc.exit["unknown"] = True
        for peer in list(self.peers):
            if peer.role:
                self._send(peer, {"event": "exit", "key": proc.key, "container": proc.container, **proc.exit})

    def _wait_status(self, proc: Proc) -> int | None:
        """The wait status: of our child by waitpid; of one inherited by custody from its zombie or, once reaped, from its pidfd."""
        try:
            pid, status = os.waitpid(proc.pid, os.WNOHANG)
            if pid == proc.pid:
                return status
        except ChildProcessError:
            pass
        status_left = pidfd.zombie_status(proc.pid, proc.start_time)
        return status_left if status_left is not None else pidfd.exit_status(proc.fds["pidfd"])

    def _op_custody(self, _peer: Peer, message: Message, fds: Fds) -> Message:
        """A process that a former supervisor started, from the keeper's hands."""
        key = message["key"]
        if key in self.procs or key in self.launching:
            return {}
        if "pidfd" not in fds:
            raise RequestError("protocol", errno.EINVAL, "custody without a pidfd")
        proc = Proc(message, dict(fds))
        fds.clear()
        self.procs[key] = proc
        if proc.exit is None:
            self._watch_exit(proc)
        for other in [other for other in self.peers if other.role == "sampand"]:
            self._send(other, *self._custody(proc, "custody"))
        return {}

    def _op_close_stdin(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        proc = self.procs.get(message["key"])
        launch = self.launching.get(message["key"])
        holder = proc or (launch.proc if launch else None)
        if holder is not None and "stdin" in holder.fds:
            os.close(holder.fds.pop("stdin"))
        return {}

    def _op_forget(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        proc = self.procs.get(message["key"])
        if proc is not None:
            if proc.exit is None:
                raise RequestError("request", errno.EBUSY, "the process has not ended")
            del self.procs[proc.key]
            proc.close()
        return {}

    def _op_shutdown(self, _peer: Peer, _message: Message, _fds: Fds) -> Message:
        if any(proc.exit is None for proc in self.procs.values()) or self.launching:
            raise RequestError("request", errno.EBUSY, "there are processes")
        self.running = False
        return {}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def serve(exec_root: str) -> None:
    """Serve on <exec_root>/supervisor.sock until told to shut down."""
    path = f"{exec_root}/supervisor.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(16)
    Server(listener).serve()
    os.unlink(path)
