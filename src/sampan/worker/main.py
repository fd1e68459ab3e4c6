"""The zygote: a warm process that forks one child a job. Its control socket is descriptor 0.

A program of its own: `python -I -c "...; from sampan.worker.main import main; main(JOBS)"`, JOBS being how many share the memory.

One child is always ready, forked before its job is known. The zygote does no work itself and keeps nothing on disk: killing it at any
time loses only the jobs under way. It ends, and its children with it, when sampand's end of the control socket closes. No message ends it,
nor what a job comes to.
"""

import codecs
import gc
import os
import select
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from typing import Any

from sampan.archive.compression import CompressionError
from sampan.archive.reader import InvalidArchive
from sampan.archive.room import NoRoom
from sampan.archive.source import TrailingData, TruncatedArchive
from sampan.linux import libc
from sampan.worker import confine, wire
from sampan.worker.budget import TooMuchWork
from sampan.worker.build_jobs import JOBS as BUILD_JOBS
from sampan.worker.jobs import JOBS, Damaged
from sampan.worker.spool_jobs import JOBS as SPOOL_JOBS
from sampan.worker.tree_jobs import JOBS as TREE_JOBS
from sampan.worker.tree_jobs import Refused
from sampan.worker.view import Gone

_HOSTILE = (InvalidArchive, TruncatedArchive, TrailingData, CompressionError, TooMuchWork)


def _run(message: dict[str, Any], fds: list[int], reply: socket.socket) -> dict[str, Any]:
    name, args = message["name"], message["args"]
    if job := JOBS.get(name) or BUILD_JOBS.get(name):
        return job(args, fds)
    reporting = SPOOL_JOBS.get(name) or TREE_JOBS[name]
    return reporting(args, fds, lambda progress: wire.send(reply, {"progress": progress}))


def _begun(message: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
    """The message with its arguments, and the job's own descriptors."""
    if "spilled" not in message:
        return message, fds
    return {**message, "args": wire.read_spilled(fds[0])}, fds[1:]


def _outcome(message: dict[str, Any], fds: list[int], reply: socket.socket) -> dict[str, Any]:
    """Run a job and word how it ended."""
    try:
        message, fds = _begun(message, fds)
        return {"result": _run(message, fds, reply)}
    except Refused as error:
        kind, text = error.kind, error.message
    except Gone as error:
        kind, text = wire.Kind.GONE, str(error)
    except Damaged as error:
        kind, text = wire.Kind.DAMAGED, str(error)
    except _HOSTILE as error:
        kind, text = wire.Kind.INVALID, str(error)
    except OSError as error:
        kind, text = wire.Kind.SYSTEM, os.strerror(error.errno) if error.errno else str(error)
        if error.filename:
            name = (
                os.fsencode(error.filename).decode("utf-8", "backslashreplace") if not isinstance(error.filename, int) else error.filename
            )
            text = f"{name}: {text}"
    except NoRoom as error:
        kind, text = wire.Kind.SYSTEM, str(error)
    except MemoryError:
        kind, text = wire.Kind.SYSTEM, "out of memory"
    except Exception as error:
        kind, text = wire.Kind.SYSTEM, f"{type(error).__name__}: {error}"
    return _error(kind, text)


def _error(kind: wire.Kind, text: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": text[: wire.ERROR_TEXT_MAX].encode("utf-8", "backslashreplace").decode()}}


def _answer(message: dict[str, Any], fds: list[int], reply: socket.socket) -> None:
    """Do the job and say what it came to; an answer that does not fit into a packet is an error like others."""
    try:
        wire.send(reply, _outcome(message, fds, reply))
    except wire.BadMessage as error:
        wire.send(reply, _error(wire.Kind.SYSTEM, f"the answer: {error}"))


def _child(orders: socket.socket, parent: int, memory: int) -> None:
    """In the child: wait for one job, do it, answer, end. Never returns."""
    try:
        confine.die_with(parent)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)  # the control socket: only the zygote may hold it
        confine.close_others([orders.fileno()])
        confine.be_expendable(memory)
        confine.forget_modules()
        pidfd = os.pidfd_open(os.getpid())
        if received := wire.recv(orders):
            message, fds = received
            orders.close()
            reply = socket.socket(fileno=fds[0])
            wire.send(reply, {"started": True}, [pidfd])
            os.close(pidfd)
            _answer(message, fds[1:], reply)
    except BaseException as error:
        print(f"worker: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


class Zygote:
    """Waits for jobs and for the ends of its children."""

    def __init__(self, control: socket.socket, memory: int) -> None:
        """memory: what each job may have, bytes."""
        self._control = control
        self._memory = memory
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._next: tuple[socket.socket, int] | None = None
        """Where the child that waits for the next job gets it, and its pidfd"""

    def run(self) -> None:
        """Serve until the control socket closes."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._serve():
                    return

    def _serve(self) -> bool:
        """Take one message; False when there will be no more."""
        try:
            received = wire.recv(self._control)
        except (wire.BadMessage, OSError) as error:
            # its reply socket is closed with its other descriptors: whoever sent it sees that the job died
            print(f"worker: a message is dropped: {error}", file=sys.stderr, flush=True)
            return True
        if received is None:
            return False
        message, fds = received
        try:
            self._begin(message, fds)
        except OSError as error:  # no process, no memory, no descriptor for this one: others may end soon
            self._refuse(fds, error)
        finally:
            for fd in fds:
                os.close(fd)
        self._prepare()
        return True

    def _begin(self, message: dict[str, Any], fds: list[int]) -> None:
        """Hand a job to the child that waits; to another one, if that has been killed. Raises OSError."""
        while True:
            orders = (self._next or self._fork())[0]
            self._next = None
            with orders, suppress(BrokenPipeError):
                return wire.send(orders, message, fds)

    def _prepare(self) -> None:
        """Have a child that waits: a fork takes longer than many a job. It holds nothing of the jobs before."""
        if self._next is None:
            with suppress(OSError):  # the next job will say so
                self._next = self._fork()

    def _fork(self) -> tuple[socket.socket, int]:
        parent = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            pid = os.fork()
            if pid == 0:
                _child(theirs, parent, self._memory)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            self._poll.register(pidfd, select.POLLIN)
            undo.pop_all()
        return ours, pidfd

    @staticmethod
    def _refuse(fds: list[int], error: OSError) -> None:
        if fds:
            with suppress(OSError), socket.socket(fileno=os.dup(fds[0])) as reply:
                wire.send(reply, _error(wire.Kind.SYSTEM, f"cannot begin the job: {error.strerror}"))

    def _reap(self, pidfd: int) -> None:
        if self._next is not None and self._next[1] == pidfd:
            self._next[0].close()
            self._next = None
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        self._poll.unregister(pidfd)
        os.close(pidfd)


def main(parallel: int) -> None:
    """Entry point."""
    control = socket.socket(fileno=0)
    control.setblocking(True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a ^C at the terminal is sampand's business
    libc.set_name("sampan-worker")
    os.umask(0)
    for name in ("unicode_escape", "latin-1", "idna"):  # loaded at their first use, which may be inside
        codecs.lookup(name)
    confine.cut_off()
    confine.compile_filter()
    gc.freeze()  # a collection in a child would write to every page that it shares with this process
    Zygote(control, confine.share_of_memory(parallel)).run()
