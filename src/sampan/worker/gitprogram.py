"""A program that runs git for the engine: on a repository that strangers have made, from a server that may be anybody.

`python -I -c "...; from sampan.worker.gitprogram import main; main(JSON)"`, with the directory to be filled among its descriptors, says one
line of JSON, and leaves no process behind. Two processes: one keeps its rights, watches the disk and the clock, and ends the other with all
that it has started (they are a PID namespace); the other one gives all its rights up, sees every file system read-only but that directory,
and is nobody. For ssh it stays root, without a capability: the keys are root's, as docker has it.
"""

import json
import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import Any, Final, NoReturn

from sampan.archive.room import NoRoom, Room
from sampan.gitclone import Git, GitError
from sampan.linux import capabilities, libc, mounts, prctl
from sampan.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID
from sampan.worker import confine

_NOBODY: Final = 65534
_MEMORY_MAX: Final = 1 << 30
"""Bytes that each process of git may have."""
_LOOK_EVERY: Final = 0.2
_PLACES: Final = ("/mnt", "/tmp")
"""Where the directory is seen: the way to where it really is may be closed to nobody."""
_TRANSPORTS: Final = "git:http:https:ssh"
"""Also those of submodules: no files of this host, no programs (`ext::`)."""


def main(text: str) -> NoReturn:
    """text: `parent` (pid), `directory` (descriptor), `limit` (s), `ssh`, `environment`, `repository`, and `resolve` (a ref) or `refs`,
    `keep` (its `.git`).

    Says {"error": text}, {"ref", "commit"} of a ref to be resolved, or {"commit"} of what has been checked out.
    """
    request = json.loads(text)
    confine.die_with(request["parent"])
    confine.be_expendable(_MEMORY_MAX)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        pid, go = _start(request)
    except OSError as error:
        _say({"error": f"cannot run git: {error}"})
        sys.exit(1)
    problem = ""
    try:
        problem = _watched(pid, go, request)
    finally:
        _end(pid)
    if problem:
        _say({"error": problem})
    sys.exit(0)


def _say(answer: dict[str, Any]) -> None:
    os.write(1, b"\n" + json.dumps(answer).encode() + b"\n")


def _start(request: dict[str, Any]) -> tuple[int, int]:
    """(pid of the process that runs git, a pipe that lets it begin)."""
    waits, go = os.pipe2(os.O_CLOEXEC)
    user = os.geteuid() if request["ssh"] or os.geteuid() else _NOBODY
    os.fchown(request["directory"], user, user)
    bounding = capabilities.bounding_set()
    os.fchdir(request["directory"])  # of the mount namespaces it is in the new one then, as the descriptor is not
    if os.geteuid() == 0:
        libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC)
    pid = os.fork()
    if pid:
        os.close(waits)
        return pid, go
    status = 1
    try:
        os.close(go)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        place = _give_up(request["directory"], user, bounding)
        libc.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.read(waits, 1):  # else whom we would die with is dead already
            _say(_answer(request, place))
            status = 0
    except (OSError, ValueError) as error:
        _say({"error": f"cannot run git: {error}"})
    finally:
        os._exit(status)


def _give_up(directory: int, user: int, bounding: int) -> str:
    """All rights, and every writable file system but the one directory. Returns its path from now on. Raises OSError."""
    os.umask(0o022)
    if os.geteuid():
        prctl.set_no_new_privs()
        return os.getcwd()
    place = next(path for path in _PLACES if os.path.isdir(path))
    mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
    tree = mounts.clone_tree(mounts.AT_FDCWD, ".", False)
    root, target = (os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in ("/", place))
    mounts.mount_setattr(root, attributes=mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID, recursive=True)
    mounts.mount_setattr(tree, attributes=mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC)
    mounts.move_mount(tree, target, place)
    for fd in (tree, root, target, directory):  # by the last one the way out would be open
        os.close(fd)
    os.chdir(place)
    capabilities.limit_bounding(0, bounding)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    capabilities.capset(0, 0, 0)
    prctl.set_no_new_privs()
    return place


def _answer(request: dict[str, Any], place: str) -> dict[str, Any]:
    environment = {**request["environment"], "GIT_ALLOW_PROTOCOL": _TRANSPORTS}
    git = Git(place, environment)
    try:
        if "resolve" in request:
            ref, commit = git.resolve(request["repository"], request["resolve"])
            return {"ref": ref, "commit": commit}
        git.begin(request["repository"])
        commit = git.check_out(request["refs"])
        if not request["keep"]:
            shutil.rmtree(f"{place}/.git")
        return {"commit": commit}
    except (GitError, OSError) as error:
        return {"error": str(error)}


def _watched(pid: int, go: int, request: dict[str, Any]) -> str:
    """Let it run to its end. Returns why it must not go on, if so."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    os.write(go, b"g")
    deadline = time.monotonic() + request["limit"]
    while not poll.poll(_LOOK_EVERY * 1000):
        if time.monotonic() > deadline:
            return f"git has not come to an end in {request['limit']:g} seconds"
        try:
            Room(request["directory"]).take(1)
        except NoRoom as error:
            return str(error)
    return ""


def _end(pid: int) -> None:
    """Kill it and what it has started; return when they are gone."""
    for kill in (os.killpg, os.kill):  # it may not have made its group yet
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
