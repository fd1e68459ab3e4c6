"""The zygote: a warm process that forks one child a job. Its control socket is descriptor 0.

A program of its own: `python -m sampan.worker.main`.

It does no work itself and keeps nothing on disk: killing it at any time loses only the jobs under way. It ends, and its children with it,
when sampand's end of the control socket closes.
"""

import os
import select
import signal
import socket
import sys
from typing import Any

from sampan.archive.compression import CompressionError
from sampan.archive.reader import InvalidArchive
from sampan.archive.room import NoRoom
from sampan.archive.source import TruncatedArchive
from sampan.linux import libc, prctl
from sampan.worker import confine, wire
from sampan.worker.jobs import JOBS
from sampan.worker.spool_jobs import JOBS as SPOOL_JOBS
from sampan.worker.tree_jobs import JOBS as TREE_JOBS
from sampan.worker.tree_jobs import Refused
from sampan.worker.view import Gone

_HOSTILE = (InvalidArchive, TruncatedArchive, CompressionError)


def _run(message: dict[str, Any], fds: list[int], reply: socket.socket) -> dict[str, Any]:
    name, args = message["name"], message["args"]
    if name in JOBS:
        return JOBS[name](args, fds)
    reporting = SPOOL_JOBS.get(name) or TREE_JOBS[name]
    return reporting(args, fds, lambda progress: wire.send(reply, {"progress": progress}))


def _outcome(message: dict[str, Any], fds: list[int], reply: socket.socket) -> dict[str, Any]:
    """Run a job and word how it ended."""
    try:
        return {"result": _run(message, fds, reply)}
    except Refused as error:
        kind, text = error.kind, error.message
    except Gone as error:
        kind, text = "gone", str(error)
    except _HOSTILE as error:
        kind, text = "invalid", str(error)
    except OSError as error:
        kind, text = "system", os.strerror(error.errno) if error.errno else str(error)
        if error.filename:
            name = (
                os.fsencode(error.filename).decode("utf-8", "backslashreplace") if not isinstance(error.filename, int) else error.filename
            )
            text = f"{name}: {text}"
    except NoRoom as error:
        kind, text = "system", str(error)
    except MemoryError:
        kind, text = "system", "out of memory"
    except Exception as error:
        kind, text = "system", f"{type(error).__name__}: {error}"
    return {"error": {"kind": kind, "message": text[: wire.ERROR_TEXT_MAX]}}


def _child(message: dict[str, Any], fds: list[int], parent: int) -> None:
    """In the child: one job, its answer, the end. Never returns."""
    try:
        libc.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)  # the control socket: only the zygote may hold it
        confine.close_others(fds)
        confine.be_expendable()
        reply = socket.socket(fileno=fds[0])
        wire.send(reply, _outcome(message, fds[1:], reply))
    except BaseException as error:
        print(f"worker: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


class Zygote:
    """Waits for jobs and for the ends of its children."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._jobs: dict[int, int] = {}
        """job -> pidfd"""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Serve until the control socket closes."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._serve():
                    return

    def _serve(self) -> bool:
        received = wire.recv(self._control)
        if received is None:
            return False
        message, fds = received
        if "cancel" in message:
            pidfd = self._jobs.get(message["cancel"])
            if pidfd is not None:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return True
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _child(message, fds, parent)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._jobs[message["job"]] = pidfd
        self._poll.register(pidfd, select.POLLIN)
        return True

    def _reap(self, pidfd: int) -> None:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        self._jobs = {job: other for job, other in self._jobs.items() if other != pidfd}


def main() -> None:
    """Entry point."""
    control = socket.socket(fileno=0)
    control.setblocking(True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a ^C at the terminal is sampand's business
    libc.set_name("sampan-worker")
    os.umask(0)
    confine.cut_off()
    confine.compile_filter()
    Zygote(control).run()


if __name__ == "__main__":
    main()
