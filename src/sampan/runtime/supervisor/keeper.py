"""The keeper: holds every container's stdio and pidfd, pumps output into the logs, and is parent of the supervisor.

Single-threaded, one epoll loop. It waits for nobody: a slow sampand is queued for and then dropped; a hung log disk stalls logs only.
Messages: see runtime/protocol.py for the shapes, runtime/client.py (KeeperClient) for the requests.
"""

import contextlib
import errno
import fcntl
import os
import select
import socket
import sys
import termios
import time
from collections.abc import Callable

from sampan.linux import pidfd, prctl
from sampan.runtime.logframe import STDERR, STDOUT, Position
from sampan.runtime.protocol import Channel, ChannelClosed, Message, is_served
from sampan.runtime.supervisor.keeper_json import JsonFileWriter, JsonFollower, swap
from sampan.runtime.supervisor.keeper_log import BUFFER_FILES, BUFFER_SIZE, SegmentWriter, Stage
from sampan.runtime.supervisor.loop import REAPED, Fds, Loop, Peer, RequestError, listen

READ_SIZE = 256 * 1024
TURN_SECONDS = 0.002
"""What one output is read for before the others have their turn; the last read may take some ms (JsonFileWriter.read_size)."""
EXEC_KINDS = ("exec", "probe")
RETRY_SECONDS = 0.01
END_SECONDS = 5.0
F_SETPIPE_SZ = 1031
PIPE_SIZE = 256 * 1024
BIG_PIPES = 32
"""Streams up to which pipes are enlarged: beyond, uid 0's pipe-user-pages-soft would shrink the containers' own pipes."""
PTY_SIZE = 64 * 1024
"""No terminal holds more: FIONREAD does not say all of it (Linux drivers/tty/pty.c: buffers of 8 KiB, before the 4 KiB of n_tty.c)."""


class Reader:
    """A log reader in sampand. An attached one holds the container back when it falls too far behind."""

    def __init__(self, name: str, peer: Peer, eventfd: int, attach: bool, position: Position) -> None:
        self.name, self.peer, self.eventfd, self.attach, self.position = name, peer, eventfd, attach, position

    def notify(self) -> None:
        """Wake it; a full counter means that it is awake already."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.eventfd, 1)


class Stream:
    """One run of a container: its descriptors, its writers, its readers. An exec has descriptors only."""

    def __init__(self, key: str, container: str, tty: bool) -> None:
        self.key, self.container, self.tty = key, container, tty
        self.fds: Fds = {}
        self.facts: Message = {}
        self.exit: Message | None = None
        self.log: Message = {}
        self.segments: SegmentWriter | None = None
        self.json: JsonFollower | None = None
        self.readers: dict[str, Reader] = {}
        self.open: dict[str, float] = {}
        """The outputs that have not ended, and how many bytes may come of them still (left())."""
        self.paused = False
        self.held = False
        """Nothing is read before the process is known: it is what an OCI runtime says of a launch that fails."""
        self.drained = False
        self.forgotten = False
        """sampand is done with it, but attached readers or unread output are not."""

    def set_log(self, log: Message, *, fresh: bool) -> None:
        """Open the writers; fresh: in a segment of its own, as another run of the container writes on."""
        self.log = log
        if log.get("driver") == "local":
            # At least two: a reader reports that it is through with a segment by going on to the next one.
            files = log.get("max_file", 0)
            self.segments = SegmentWriter(log["dir"], log.get("max_size", 0), max(2, files) if files > 0 else 0, fresh=fresh)
        else:
            self.segments = SegmentWriter(log["dir"], BUFFER_SIZE, BUFFER_FILES, ephemeral=True, fresh=fresh)
        if log.get("driver") == "json-file":
            writer = JsonFileWriter(log["path"], log.get("max_size", 0), log.get("max_file", 1), log.get("attrs", ""))
            self.json = JsonFollower(writer, self.segments, alone=not fresh)

    def left(self, name: str) -> float:
        """How many bytes of an output count: after the exit those there are now, as a stranger may hold it and write for ever."""
        if self.exit is None:
            return float("inf")
        return PTY_SIZE if name == "pty" else _waiting(self.fds[name])

    def take(self, name: str, fd: int, stage: Stage) -> int:
        """Move what a pipe or terminal has, into the log; how many bytes, 0 at its end. Raises BlockingIOError, EIO (a terminal ended)."""
        segments = self.segments
        if segments is None:
            return 0
        stream = STDERR if name == "stderr" else STDOUT
        now = time.time_ns()
        most = READ_SIZE if self.json is None else self.json.writer.read_size
        waiting = 0 if name == "pty" else min(_waiting(fd), most)
        taken = segments.take(stream, fd, waiting, now) if waiting else stage.take(segments, stream, fd, now)
        if self.json is not None:
            self.json.catch_up()
        return taken

    @property
    def over_budget(self) -> bool:
        """Whether going on would rotate away what the slowest attached reader has not read. The end waits for no reader."""
        writer = self.segments if self.exit is None else None
        return writer is not None and any(reader.attach and writer.would_overrun(reader.position) for reader in self.readers.values())

    def close(self) -> None:
        """Close everything; a driver whose segments are only a buffer leaves none on disk."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        for reader in self.readers.values():
            os.close(reader.eventfd)
        self.readers.clear()
        if self.segments is not None:
            self.segments.close()
        if self.json is not None:
            self.json.close()


def _waiting(fd: int) -> int:
    """Bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


class Keeper(Loop):
    """The loop and its tables."""

    def __init__(self, listener: socket.socket, exec_root: str, spawn_supervisor: Callable[[], int]) -> None:
        super().__init__(listener)
        self.exec_root = exec_root
        self.spawn_supervisor = spawn_supervisor
        self.streams: dict[str, Stream] = {}
        self.supervisor: Channel | None = None
        self.supervisor_pid = 0
        self.supervisor_handle = -1
        """A pidfd of the one that we are connected to."""
        self.settled = False
        """Whether the supervisor and we have told each other all that each of us holds."""
        self.seq = 0
        self.ends_at = 0.0
        """Of the monotonic clock: when we end at the latest, once told to; before that, with the supervisor. 0: not told."""
        self.stage = Stage(f"{exec_root}/keeper.stage")
        self.reap_again = self.watch_children(self._reap)

    def serve(self) -> None:
        """Run until a shutdown request; the supervisor is looked after all the while."""
        self._look_after_supervisor()
        while self.running:
            self._turn(-1 if self.settled and not self.ends_at else RETRY_SECONDS)
            if self.ends_at:
                self.running = self.supervisor is not None and time.monotonic() < self.ends_at
            elif self.supervisor is None:
                self._look_after_supervisor()
            elif not self.settled and not is_served(f"{self.exec_root}/supervisor.sock"):
                self._supervisor_gone(self.supervisor.fileno())

    # the supervisor

    def _look_after_supervisor(self) -> None:
        """Connect; if nobody answers and no child of ours is coming up, start one."""
        path = f"{self.exec_root}/supervisor.sock"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            if not is_served(path):
                os.unlink(path)  # nobody is to meet it once the next one has the lock
                raise ConnectionRefusedError(path)
            sock.connect(path)
        except OSError:
            sock.close()
            if not self.supervisor_pid:
                self.supervisor_pid = self.spawn_supervisor()
            return
        channel = Channel(sock)
        self.supervisor, self.settled = channel, False
        self.watch(channel.fileno(), select.EPOLLIN, self._supervisor_ready)
        self._tell_supervisor({"op": "hello", "role": "keeper", "seq": 0})

    def _tell_supervisor(self, message: Message, fds: list[int] | None = None) -> None:
        channel = self.supervisor
        if channel is None:
            return
        fd = channel.fileno()
        try:
            channel.send(message, fds or [])
            if channel.wants_write:
                self.epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        except ChannelClosed:
            self._supervisor_gone(fd)

    def _supervisor_gone(self, fd: int) -> None:
        """The connection, whose descriptor was fd, is over: also when a child of the supervisor's still has the other end of it."""
        channel, self.supervisor, self.settled = self.supervisor, None, False
        for watched in (fd, self.supervisor_handle):
            with contextlib.suppress(OSError, ValueError):
                self.unwatch(watched)
        if channel is not None:
            channel.close()
        if self.supervisor_handle >= 0:
            os.close(self.supervisor_handle)
            self.supervisor_handle = -1

    def _watch_supervisor(self, pid: int, fd: int) -> None:
        with contextlib.suppress(OSError):  # already gone: its lock will tell
            self.supervisor_handle = os.pidfd_open(pid)
            self.watch(self.supervisor_handle, select.EPOLLIN, lambda _events: self._supervisor_gone(fd))

    def _supervisor_ready(self, events: int) -> None:
        channel = self.supervisor
        if channel is None:
            return
        fd = channel.fileno()
        try:
            if events & select.EPOLLOUT:
                channel.flush()
                if not channel.wants_write:
                    self.epoll.modify(fd, select.EPOLLIN)
            while (received := channel.recv()) is not None:
                self._from_supervisor(*received)
        except ChannelClosed:
            self._supervisor_gone(fd)

    def _from_supervisor(self, message: Message, fds: list[int]) -> None:
        named: Fds = dict(zip(message.get("names") or [], fds, strict=False))
        try:
            self._note(message, named)
        finally:
            for fd in named.values():
                os.close(fd)

    def _note(self, message: Message, named: Fds) -> None:
        """What the supervisor says. Takes what it keeps out of named."""
        event = message.get("event")
        if event in ("proc", "custody"):
            self._take_proc(message, named)
        elif event == "exit" and message.get("failed"):
            self._launch_failed(message["key"])
        elif event == "exit":
            # One whose code the supervisor cannot read may be our child; if it is not, nobody can, and that is for us to say.
            self._reap()
            stream = self.streams.get(message["key"])
            exit_ = {name: message.get(name) for name in ("code", "signal", "at", "unknown")}
            if message.get("unknown") and (stream is None or stream.exit is None):
                self._broadcast({"event": "exit", "key": message["key"], "container": message.get("container"), **exit_})
            self._ended(message["key"], exit_, tell=False)
        elif message.get("re") == 0 and "procs" in message:
            if self.supervisor is not None:
                self._watch_supervisor(message["pid"], self.supervisor.fileno())
            known = {proc["key"] for proc in message["procs"]}
            for stream in list(self.streams.values()):
                if stream.key not in known and stream.facts:
                    self.seq += 1
                    body = {"op": "custody", "seq": self.seq, **stream.facts, "exit": stream.exit, "record": {"log": stream.log}}
                    self._tell_supervisor({**body, "names": list(stream.fds)}, list(stream.fds.values()))
            # Answered in order: after all those, and after everything it had to tell when it greeted us.
            self._tell_supervisor({"op": "list", "seq": -1})
        elif message.get("re") == -1:
            self.settled = True
            self._reap()  # what ended before we were executed anew

    def _launch_failed(self, key: str) -> None:
        """The process never came to be; a container's stream stays until sampand forgets it."""
        stream = self.streams.get(key)
        if stream is None:
            return
        stream.facts = {}
        if stream.segments is None:
            del self.streams[key]
            stream.close()

    def _take_proc(self, message: Message, named: Fds) -> None:
        """Note a process; take over what we do not hold yet."""
        key = message["key"]
        stream = self.streams.get(key)
        if stream is None:
            if message.get("exit") is not None and message.get("kind") in EXEC_KINDS:
                return
            stream = self.streams[key] = Stream(key, message["container"], bool(message.get("tty")))
        names = ("key", "container", "kind", "tty", "pid", "start_time", "started_at")
        stream.facts, stream.held = {name: message.get(name) for name in names}, False
        for name in list(named):
            if name not in stream.fds:
                stream.fds[name] = named.pop(name)
        log = (message.get("record") or {}).get("log") or {}
        if message.get("kind") == "init" and stream.segments is None and log:
            self._set_log(stream, log)
        self._watch_outputs(stream)
        if message.get("exit") is not None:
            self._ended(key, message["exit"], tell=False)

    def _reap(self) -> None:
        for _ in range(REAPED):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.supervisor_pid:
                self.supervisor_pid = 0
                continue
            code, number = pidfd.decode_status(status)
            for stream in list(self.streams.values()):
                if stream.facts.get("pid") == pid and stream.exit is None:
                    self._ended(stream.key, {"code": code, "signal": number, "at": time.time_ns()}, tell=True)
        os.write(self.reap_again, b"\0")

    def _ended(self, key: str, exit_: Message, *, tell: bool) -> None:
        """A process ended: what its pipes still hold goes to the log, then readers see the end."""
        stream = self.streams.get(key)
        if stream is None:
            return
        if stream.exit is None or (stream.exit.get("unknown") and not exit_.get("unknown")):
            stream.exit = exit_
        if tell:
            self._broadcast({"event": "exit", "key": key, "container": stream.container, **exit_})
        if stream.facts.get("kind") in EXEC_KINDS and stream.segments is None:
            del self.streams[key]
            stream.close()
            return
        if stream.segments is not None and any(reader.attach for reader in stream.readers.values()):
            # What is left (a pipe holds no more) goes into the last segment, so that rotation takes nothing away that is yet to be sent.
            stream.segments.max_size = 0
        stream.open = {name: min(count, stream.left(name)) for name, count in stream.open.items()}
        for name in list(stream.open):
            self._pump(stream, name)
        self._check_drained(stream)

    def _broadcast(self, message: Message) -> None:
        for peer in list(self.peers):
            if peer.role == "sampand":
                self._send(peer, message)

    # output

    def _set_log(self, stream: Stream, log: Message) -> None:
        """Open a stream's writers. An older run of the container whose output goes on keeps the segment it writes."""
        stream.set_log(log, fresh=any(other.open and other.container == stream.container for other in self.streams.values()))

    def _watch_outputs(self, stream: Stream) -> None:
        if stream.segments is None or stream.drained or stream.held:
            return
        for name in ("pty",) if stream.tty else ("stdout", "stderr"):
            fd = stream.fds.get(name, -1)
            if fd >= 0 and name not in stream.open:
                os.set_blocking(fd, False)
                if name != "pty" and len(self.streams) <= BIG_PIPES:
                    with contextlib.suppress(OSError):
                        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
                stream.open[name] = stream.left(name)
                if not stream.paused:
                    self.watch(fd, select.EPOLLIN, lambda _events, s=stream, n=name: self._pump(s, n))  # type: ignore[misc]

    def _pump(self, stream: Stream, name: str) -> None:
        """Move what there is into the log, for a turn's time at the most."""
        fd = stream.fds.get(name, -1)
        grown = False
        ends_at = time.monotonic() + TURN_SECONDS
        while fd >= 0 and name in stream.open and not (stream.readers and stream.over_budget):
            try:
                taken = stream.take(name, fd, self.stage)
            except BlockingIOError:
                if stream.exit is not None:
                    self._output_ended(stream, name)
                break
            except OSError as error:
                # EIO: the last slave of the terminal was closed. Whatever else it is, this descriptor gives no more.
                if error.errno != errno.EIO:
                    print(f"{stream.key} {name}: {error}", file=sys.stderr, flush=True)
                taken = 0
            grown = grown or taken > 0
            stream.open[name] -= taken
            if not taken or stream.open[name] <= 0:
                self._output_ended(stream, name)
            if time.monotonic() >= ends_at:
                break
        if grown:
            for reader in stream.readers.values():
                reader.notify()
            self._tell_rotated(stream)
        self._hold_back(stream)
        self._check_drained(stream)

    def _tell_rotated(self, stream: Stream) -> None:
        """There are files for sampand to compress: told once in a turn, however many they are.

        Who does not read is told when it does, at the run's end at the latest: too many of these would have it dropped, readers and all.
        """
        if stream.json is None or not stream.json.writer.rotated or not stream.log.get("compress"):
            return
        peers = [peer for peer in self.peers if peer.role == "sampand"]
        told = [peer for peer in peers if stream.drained or not peer.channel.wants_write]
        stream.json.writer.rotated = len(told) < len(peers)
        for peer in told:
            self._send(peer, {"event": "rotated", "key": stream.key, "container": stream.container})

    def _peer_ready(self, peer: Peer, events: int) -> None:
        super()._peer_ready(peer, events)
        if events & select.EPOLLOUT:
            for stream in list(self.streams.values()):
                self._tell_rotated(stream)

    def _output_ended(self, stream: Stream, name: str) -> None:
        stream.open.pop(name, None)
        if name in stream.fds:
            self.unwatch(stream.fds[name])

    def _hold_back(self, stream: Stream) -> None:
        """Stop or go on reading, as the slowest attached reader demands."""
        over = stream.over_budget
        if over == stream.paused:
            return
        stream.paused = over
        for name in list(stream.open):
            fd = stream.fds[name]
            if over:
                self.unwatch(fd)
            else:
                self.watch(fd, select.EPOLLIN, lambda _events, s=stream, n=name: self._pump(s, n))  # type: ignore[misc]
        if not over:
            for name in list(stream.open):
                self._pump(stream, name)

    def _check_drained(self, stream: Stream) -> None:
        if stream.drained or stream.exit is None or stream.open or stream.segments is None:
            return
        stream.drained = True
        if stream.json is not None:
            stream.json.close()
        self._tell_rotated(stream)
        for reader in stream.readers.values():
            reader.notify()
        self._broadcast({"event": "drained", "key": stream.key, "container": stream.container, "pos": list(stream.segments.position)})
        self._discard_if_done(stream)

    def _discard_if_done(self, stream: Stream) -> None:
        """The end of a forgotten stream, once its output is in the log and its attached readers are through."""
        if not stream.forgotten or stream.open or any(reader.attach for reader in stream.readers.values()):
            return
        if self.streams.pop(stream.key, None) is not None:
            stream.close()

    # requests

    def _op_hello(self, peer: Peer, message: Message, _fds: Fds) -> Message:
        peer.role = message.get("role", "")
        streams = [
            {"key": stream.key, "container": stream.container, "exit": stream.exit, "drained": stream.drained,
             "pos": list(stream.segments.position) if stream.segments else None}
            for stream in self.streams.values()
        ]  # fmt: skip
        return {**self._identity(), "settled": self.settled, "streams": streams}

    def _op_adopt(self, _peer: Peer, message: Message, fds: Fds) -> Message:
        key = message["key"]
        if key in self.streams:
            raise RequestError("request", errno.EEXIST, f"stream {key} exists")
        stream = Stream(key, message["container"], bool(message["tty"]))
        stream.held = bool(message.get("held"))
        self._set_log(stream, message["log"])
        if stream.json is not None:
            stream.json.end_line()  # of a run whose end no keeper saw
        stream.fds.update(fds)
        fds.clear()
        self.streams[key] = stream
        self._watch_outputs(stream)
        if message.get("exit") and stream.segments is not None:
            stream.segments.max_size = 0  # its attached readers are yet to come
            self._ended(key, message["exit"], tell=False)
        return {"pos": list(stream.segments.position) if stream.segments else None}

    def _op_follow(self, peer: Peer, message: Message, fds: Fds) -> Message:
        stream = self.streams.get(message["key"])
        if stream is None or stream.segments is None:
            raise RequestError("request", errno.ENOENT, "no such stream")
        end = stream.segments.position
        position = tuple(message["pos"]) if message.get("pos") else end
        eventfd = fds.pop("eventfd")
        os.set_blocking(eventfd, False)
        former = stream.readers.pop(message["reader"], None)
        if former is not None:
            os.close(former.eventfd)
        reader = Reader(message["reader"], peer, eventfd, bool(message.get("attach")), (int(position[0]), int(position[1])))
        stream.readers[reader.name] = reader
        reader.notify()
        return {"pos": list(end), "drained": stream.drained}

    def _reader(self, name: str) -> tuple[Stream, Reader] | None:
        for stream in self.streams.values():
            if name in stream.readers:
                return stream, stream.readers[name]
        return None

    def _op_progress(self, _peer: Peer, message: Message, _fds: Fds) -> None:
        found = self._reader(message["reader"])
        if found is not None:
            stream, reader = found
            reader.position = (int(message["pos"][0]), int(message["pos"][1]))
            self._hold_back(stream)

    def _op_unfollow(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        found = self._reader(message["reader"])
        if found is not None:
            self._end_reader(*found)
        return {}

    def _end_reader(self, stream: Stream, reader: Reader) -> None:
        del stream.readers[reader.name]
        os.close(reader.eventfd)
        self._hold_back(stream)
        self._discard_if_done(stream)

    def _op_close_stdin(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        stream = self.streams.get(message["key"])
        if stream is not None and "stdin" in stream.fds:
            os.close(stream.fds.pop("stdin"))
        return {}

    def _op_forget(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        stream = self.streams.get(message["key"])
        if stream is None:
            return {}
        stream.forgotten = True
        if stream.exit is None:
            # A launch that failed: nothing will ever be written.
            for name in list(stream.open):
                self._output_ended(stream, name)
        self._discard_if_done(stream)
        return {}

    def _op_compressed(self, _peer: Peer, message: Message, _fds: Fds) -> Message:
        path, original = message["path"], message["original"]
        writers = [stream.json.writer for stream in self.streams.values() if stream.json is not None and stream.json.writer.path == path]
        if any(writer.fd >= 0 and os.fstat(writer.fd).st_ino == original[0] for writer in writers):
            raise RequestError("request", errno.EBUSY, "another run of the container still writes it")
        return {"swapped": swap(path, message["number"], original, message["copy"])}

    def _op_shutdown(self, _peer: Peer, _message: Message, _fds: Fds) -> Message:
        if any(stream.facts and (stream.exit is None or stream.open) for stream in self.streams.values()):
            raise RequestError("request", errno.EBUSY, "there are processes")
        if not self.settled:
            raise RequestError("request", errno.EAGAIN, "the supervisor is coming up, and would not hear of it")
        self._tell_supervisor({"op": "shutdown"})
        self.ends_at = time.monotonic() + END_SECONDS
        return {}

    def _drop(self, peer: Peer) -> None:
        super()._drop(peer)
        for stream in list(self.streams.values()):
            for reader in [reader for reader in stream.readers.values() if reader.peer is peer]:
                self._end_reader(stream, reader)


def serve(exec_root: str, spawn_supervisor: Callable[[], int]) -> None:
    """Serve on <exec_root>/keeper.sock until told to shut down."""
    prctl.set_child_subreaper()
    path = f"{exec_root}/keeper.sock"
    Keeper(listen(path), exec_root, spawn_supervisor).serve()
    os.unlink(path)
