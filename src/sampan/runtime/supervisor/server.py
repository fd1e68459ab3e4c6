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

from sampan.linux import clone, idmap, namespaces, pidfd, prctl
from sampan.runtime.protocol import Message
from sampan.runtime.supervisor import child, oci
from sampan.runtime.supervisor.loop import REAPED, Fds, Loop, Peer, RequestError, listen

_OF_THE_LAUNCH = ("pidfd", "pty", "stdin", "stdout", "stderr")
"""Descriptors that a process gets once: one that is missing has been closed."""


class Proc:
    """A container's init, an exec, or a probe (an exec that the next sampand is to end). Owns its descriptors until forgotten."""

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
    """A child between fork and execve; or a helper of an OCI runtime's, from its fork to its end."""

    def __init__(self, proc: Proc, sync: socket.socket, peer: "Peer", seq: int | None, dirs: list[str], by_helper: bool) -> None:
        self.proc, self.sync, self.peer, self.seq, self.dirs, self.by_helper = proc, sync, peer, seq, dirs, by_helper
        self.error: Message | None = None
        self.went = False
        self.started = not by_helper
        """Whether there is no more to be heard of than the end."""
        self.helper: tuple[int, int] | None = None
        """(pid, pidfd) of the helper, once it has said which process is the container's."""


def fork_into(directory: str, target: int = -1) -> tuple[int, str]:
    """Fork with the child in the container's v2 cgroup, made if it is missing: (pid, directory). If that fails: (pid, "").

    The child then tries by itself, and what hinders it is reported as any failure of the child's. target: a pidfd of the container's init,
    whose cgroup it is if the container's own takes no processes as controllers are on below it.
    """
    if directory:
        with contextlib.suppress(OSError):
            umask = os.umask(0o022)  # its users may look at it, as at those of v1
            try:
                os.makedirs(directory, exist_ok=True)
            finally:
                os.umask(umask)
            try:
                return _fork_at(directory), directory
            except OSError as error:
                if error.errno != errno.EBUSY or target < 0:
                    raise
            return _fork_at(below(directory, target)), directory
    return os.fork(), ""


def below(directory: str, target: int) -> str:
    """Where below a container's v2 cgroup the process of a pidfd is. Raises OSError."""
    with open(f"/proc/{pidfd.number(target)}/cgroup") as file:
        path = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "")
    own = f"/{os.path.basename(directory)}/"
    if own not in path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
    return f"{directory}/{path.partition(own)[2]}"


def _fork_at(directory: str) -> int:
    cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return clone.fork_into(cgroup)
    finally:
        os.close(cgroup)


class Server(Loop):
    """The loop and its tables."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener)
        self.procs: dict[str, Proc] = {}
        self.launching: dict[str, Launch] = {}
        self.helpers: set[int] = set()
        """pidfds of those that make user namespaces."""
        self.told = not pidfd.has_children()
        """Whether the keeper has told us what it holds. We have children if we were another version: each may be a container's."""
        self.reap_again = self.watch_children(self._reap_strays)
        self.own_pidns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def _greeted(self, peer: Peer) -> None:
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
        return {**self._identity(), "procs": [proc.facts() for proc in self.procs.values()]}

    def _op_list(self, peer: Peer, _message: Message, _fds: Fds) -> Message:
        if peer.role == "keeper":  # it asks when it has told all
            self.told = True
            self._reap_strays()
        return {"procs": [proc.facts() for proc in self.procs.values()]}

    def _op_launch(self, peer: Peer, message: Message, fds: Fds) -> Message | None:
        return self._fork(peer, message, fds, "init")

    def _op_exec(self, peer: Peer, message: Message, fds: Fds) -> Message | None:
        target = message["target"]
        if pidfd.start_time(target["pid"]) != target["start_time"]:
            raise RequestError("join", errno.ESRCH, "the container's process is gone")
        fds["target"] = os.pidfd_open(target["pid"])
        if "userns" in message["plan"]:
            try:
                fds["userns"] = idmap.of_process(target["pid"])
            except ProcessLookupError:
                raise RequestError("join", errno.ESRCH, "the container's process is gone") from None
        if pidfd.start_time(target["pid"]) != target["start_time"]:
            raise RequestError("join", errno.ESRCH, "the container's process is gone")
        return self._fork(peer, message, fds, "probe" if message.get("probe") else "exec")

    def _op_userns(self, peer: Peer, message: Message, _fds: Fds) -> None:
        """A new user namespace with these maps, with net a network namespace that it owns, too; the descriptors are in the reply."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = os.fork()
            if pid == 0:
                child.make_userns(message["maps"], bool(message["net"]), theirs)
        handle = os.pidfd_open(pid)
        self.helpers.add(handle)
        self.watch(handle, select.EPOLLIN, lambda _events: self._userns_made(peer, message.get("seq"), ours, handle))

    def _userns_made(self, peer: Peer, seq: int | None, sync: socket.socket, handle: int) -> None:
        self.unwatch(handle)
        self.helpers.discard(handle)
        pidfd.reap(handle)
        os.close(handle)
        with sync:
            data, made, _, _ = socket.recv_fds(sync, 65536, 2, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        lost = {"error": {"step": "user namespace", "errno": errno.ECHILD, "path": "", "message": ""}}
        self._send(peer, {"re": seq, **(json.loads(data) if data else lost)}, made)
        for fd in made:
            os.close(fd)

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
        launch = Launch(Proc(facts, held), ours, peer, message.get("seq"), dirs, "oci" in plan)
        self.launching[key] = launch
        ours.setblocking(False)
        self.watch(ours.fileno(), select.EPOLLIN, lambda _events: self._launch_ready(launch))
        return None

    def _fork_child(self, plan: Message, fds: Fds, sync: socket.socket, kind: str) -> int:
        if "oci" in plan:
            if (helper := os.fork()) == 0:
                oci.run(plan, fds, sync)
            return helper
        entered = True
        if kind != "init":
            namespaces.setns(fds["target"], namespaces.FLAGS["pid"])
        elif plan["namespaces"]["pid"] == "private":
            namespaces.unshare(namespaces.FLAGS["pid"])
        elif plan["namespaces"]["pid"] == "fd":
            namespaces.setns(fds["pidns"], namespaces.FLAGS["pid"])
        else:
            entered = False
        try:
            pid, joined = fork_into(plan["cgroup"]["unified"], fds.get("target", -1))
            if pid == 0:
                if plan["process"]["init"]:
                    child.execute_anew(plan, fds, sync, joined)
                child.run(plan, fds, sync, joined)
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
                if "pty" in launch.proc.fds:  # the child may be traced by its container by then, and say what that likes
                    os.close(launch.proc.fds.pop("pty"))
                launch.proc.fds["pty"] = received[0]
            if not data:
                self.unwatch(launch.sync.fileno())
                launch.sync.close()
                if launch.helper is None:
                    self._launch_done(launch)
                else:
                    # Its child is ours then, and not a moment before.
                    self.watch(launch.helper[1], select.EPOLLIN, lambda _events: self._helper_ended(launch))
                return
            message = json.loads(data)
            if "error" in message:
                launch.error = message["error"]
            elif message.get("ready") and (not launch.by_helper or self._take_process(launch, message)):
                self._launch_go(launch)
            elif message.get("started"):
                launch.started = launch.went

    def _take_process(self, launch: Launch, message: Message) -> bool:
        """The process that a runtime has made, in place of the helper, whose child it is until that ends. False: that is told so."""
        proc, pid = launch.proc, message["pid"]
        fields = pidfd.stat_fields(pid)
        if launch.helper is not None or fields is None or int(fields[1]) != proc.pid:
            with contextlib.suppress(OSError):
                launch.sync.send(b"no")
            return False
        launch.helper = (proc.pid, proc.fds["pidfd"])
        proc.pid, proc.start_time, proc.fds["pidfd"] = pid, pidfd.start_time(pid), os.pidfd_open(pid)
        return True

    def _launch_go(self, launch: Launch) -> None:
        proc = launch.proc
        event, fds = self._custody(proc, "proc")
        for peer in [peer for peer in self.peers if peer.role == "keeper"]:
            self._send(peer, event, fds)
        proc.started_at = time.time_ns()
        launch.went = True
        with contextlib.suppress(OSError):
            launch.sync.send(b"go")

    def _launch_done(self, launch: Launch) -> None:
        """End of file: execve succeeded, or the child is ending with the error it reported, or it was killed before it could report."""
        proc = launch.proc
        if launch.error is None and not (launch.went and launch.started):
            launch.error = {"step": "start", "errno": errno.ECHILD, "path": "", "message": "the process ended while it was being set up"}
        if launch.error is not None:
            with contextlib.suppress(OSError):
                pidfd.send_signal(proc.fds["pidfd"], signal.SIGKILL)
            # It is gone in a moment; nobody waits for that here.
            self.watch(proc.fds["pidfd"], select.EPOLLIN, lambda _events: self._launch_failed(launch))
            return
        del self.launching[proc.key]
        self.procs[proc.key] = proc
        names = [name for name in ("pidfd", "pty") if name in proc.fds]
        reply: Message = {"re": launch.seq, "pid": proc.pid, "start_time": proc.start_time, "started_at": proc.started_at, "names": names}
        self._send(launch.peer, reply, [proc.fds[name] for name in names])
        self._watch_exit(proc)

    def _helper_ended(self, launch: Launch) -> None:
        assert launch.helper is not None
        pid, handle = launch.helper
        self.unwatch(handle)
        if launch.error is not None or not launch.started:
            self._end_group(pid)
        pidfd.reap(handle)
        os.close(handle)
        launch.helper = None
        self._launch_done(launch)

    @staticmethod
    def _end_group(pid: int) -> None:
        """A helper that was killed leaves the runtime at work; the container's process is in a group of its own. Before it is reaped."""
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)

    def _give_up(self, launch: Launch) -> None:
        """End what is being started. That it failed is heard of as of every end."""
        if launch.by_helper:
            self._end_group(launch.helper[0] if launch.helper else launch.proc.pid)
        with contextlib.suppress(OSError):
            pidfd.send_signal(launch.proc.fds["pidfd"], signal.SIGKILL)

    def _drop(self, peer: Peer) -> None:
        """A start ends with who has asked for it: nobody would know what came of it, and a runtime that hangs would never end."""
        super()._drop(peer)
        for launch in self.launching.values():
            if launch.peer is peer:
                self._give_up(launch)

    def _launch_failed(self, launch: Launch) -> None:
        proc = launch.proc
        self.unwatch(proc.fds["pidfd"])
        del self.launching[proc.key]
        if launch.by_helper:
            self._end_group(proc.pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(proc.pid, os.WNOHANG)
        for directory in launch.dirs:
            try:
                os.rmdir(directory)
            except OSError:
                continue
        event = {"event": "exit", "key": proc.key, "code": 128, "signal": 0, "at": time.time_ns(), "failed": True}
        for peer in [peer for peer in self.peers if peer.role == "keeper"]:
            self._send(peer, event)
        self._send(launch.peer, {"re": launch.seq, "error": launch.error})
        proc.close()
        self._reap_strays()

    def _watch_exit(self, proc: Proc) -> None:
        self.watch(proc.fds["pidfd"], select.EPOLLIN, lambda _events: self._exited(proc))

    def _exited(self, proc: Proc) -> None:
        found = self._how_it_ended(proc)
        self.unwatch(proc.fds["pidfd"])
        code, number = found or (255, 0)
        proc.exit = {"code": code, "signal": number, "at": time.time_ns()}
        if found is None:
            proc.exit["unknown"] = True
        # Reaped by the keeper on a kernel whose pidfds cannot tell: it knows the code, and says it to sampand itself.
        silent = found is None and any(peer.role == "keeper" for peer in self.peers)
        for peer in list(self.peers):
            if peer.role == "keeper" or (peer.role == "sampand" and not silent):
                self._send(peer, {"event": "exit", "key": proc.key, "container": proc.container, **proc.exit})
        # Only now: were we killed before the others know, its zombie would still be there for the keeper to ask.
        pidfd.reap(proc.fds["pidfd"])
        self._reap_strays()

    def _reap_strays(self) -> None:
        """Orphans that came to us; whoever is in our tables is reaped when its end has been told."""
        if not self.told:
            return
        known = {proc.pid for proc in self.procs.values() if proc.exit is None}
        for launch in self.launching.values():
            known |= {launch.proc.pid, *((launch.helper[0],) if launch.helper else ())}
        for _ in range(REAPED):
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in known:
                return
            os.waitpid(found.si_pid, os.WNOHANG)
        os.write(self.reap_again, b"\0")

    def _how_it_ended(self, proc: Proc) -> tuple[int, int] | None:
        """(code, signal): of our child; of one inherited by custody from its zombie or, once reaped, from its pidfd."""
        handle = proc.fds["pidfd"]
        with contextlib.suppress(ChildProcessError):
            return pidfd.peek_child(handle)
        status = pidfd.zombie_status(proc.pid, proc.start_time)
        status = status if status is not None else pidfd.exit_status(handle)
        return None if status is None else pidfd.decode_status(status)

    def _op_custody(self, peer: Peer, message: Message, fds: Fds) -> Message:
        """A process that a former supervisor started, from others' hands; of one that is known, descriptors that it got since."""
        key = message["key"]
        if key in self.procs or key in self.launching:
            if key in self.procs:
                self._hold_more(peer, self.procs[key], fds)
            return {}
        if "pidfd" not in fds:
            raise RequestError("protocol", errno.EINVAL, "custody without a pidfd")
        proc = Proc(message, dict(fds))
        fds.clear()
        self.procs[key] = proc
        if proc.exit is None:
            self._watch_exit(proc)
        for other in [other for other in self.peers if other.role and other is not peer]:
            self._send(other, *self._custody(proc, "custody"))
        return {}

    def _hold_more(self, peer: Peer, proc: Proc, fds: Fds) -> None:
        more = {name: fds.pop(name) for name in list(fds) if name not in proc.fds and name not in _OF_THE_LAUNCH}
        if more:
            proc.fds.update(more)
            event = {"event": "custody", **proc.facts(), "record": proc.record, "names": list(more)}
            for other in [other for other in self.peers if other.role and other is not peer]:
                self._send(other, event, list(more.values()))

    def _op_close_stdin(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        proc = self.procs.get(message["key"])
        launch = self.launching.get(message["key"])
        holder = proc or (launch.proc if launch else None)
        if holder is not None and "stdin" in holder.fds:
            os.close(holder.fds.pop("stdin"))
        return {}

    def _op_forget(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        """Nothing is known of it any more, and what is being started is ended. Refused until it has."""
        if (launch := self.launching.get(message["key"])) is not None:
            self._give_up(launch)
            raise RequestError("request", errno.EBUSY, "the process is being started")
        proc = self.procs.get(message["key"])
        if proc is not None:
            if proc.exit is None:
                raise RequestError("request", errno.EBUSY, "the process has not ended")
            del self.procs[proc.key]
            proc.close()
        return {}

    def _op_renew(self, peer: Peer, message: Message, fds: Fds) -> None:
        if self.launching or self.helpers:
            raise RequestError("request", errno.EBUSY, "processes are being started")
        super()._op_renew(peer, message, fds)

    def _op_shutdown(self, _peer: Peer, _message: Message, _fds: Fds) -> Message:
        if any(proc.exit is None for proc in self.procs.values()) or self.launching:
            raise RequestError("request", errno.EBUSY, "there are processes")
        self.running = False
        return {}


def serve(exec_root: str) -> None:
    """Serve on <exec_root>/supervisor.sock until told to shut down."""
    prctl.set_child_subreaper()  # what an OCI runtime has started is our child then, as what we fork ourselves
    path = f"{exec_root}/supervisor.sock"
    listener = listen(path)
    Server(listener).serve()
    os.unlink(path)
