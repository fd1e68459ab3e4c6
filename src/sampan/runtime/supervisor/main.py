"""The program of the keeper and of the supervisor: `main.py keeper|supervisor --exec-root DIR [--cgroup NAME] [--build NAME]`,
run with `python -I -S`.

Before it serves it executes itself once more from a read-only detached mount of its interpreter: a container with CAP_SYS_PTRACE can
reach /proc/PID/exe of a process that joins it, and could write the interpreter through it once idle (CVE-2019-5736). Then it makes itself
non-dumpable. Arguments are parsed by hand and imports are few on purpose: fork cost grows with the size of this process.
"""

import ctypes
import fcntl
import gc
import os
import resource
import sys

TYPE_CHECKING = False  # importing typing would double what is loaded before the second execve
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
if _PACKAGE_ROOT not in sys.path:
    sys.path.insert(0, _PACKAGE_ROOT)

from sampan.linux import capabilities, libc, mounts, prctl  # noqa: E402  (the package is found only now)

_SEALED = "SAMPAN_SEALED"
_NOFILE = "SAMPAN_NOFILE"
_LOCK = "SAMPAN_LOCK"


def seal(arguments: list[str]) -> None:
    """Execute ourselves from a read-only clone of the interpreter's mount; returns when we already are.

    Where the kernel has no such calls (before 5.12) it goes on unsealed and says so.
    """
    if os.environ.get(_SEALED):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", _SEALED: "1", _NOFILE: f"{soft}:{hard}"}
    environment |= {_LOCK: os.environ[_LOCK]} if _LOCK in os.environ else {}
    program = os.path.realpath(sys.executable)
    words = [sys.executable, "-I", "-S", os.path.abspath(__file__), *arguments]
    try:
        fd = mounts.clone_tree(mounts.AT_FDCWD, program, False)
        mounts.mount_setattr(fd, attributes=mounts.MOUNT_ATTR_RDONLY, propagation=mounts.MS_PRIVATE)
        os.execve(fd, words, environment)
    except OSError as error:
        print(f"cannot run from a read-only copy of {program}: {error}", file=sys.stderr, flush=True)
        os.execve(program, words, environment)


def _prepare(role: str, cgroup: str) -> None:
    from sampan.runtime.supervisor import child, init

    prctl.set_dumpable(False)
    libc.set_name(f"sampan-{role}"[:15])
    os.umask(0o077)
    os.chdir("/")
    soft, _, hard = os.environ.get(_NOFILE, "1024:524288").partition(":")
    child.Host.program = os.path.abspath(__file__)
    child.Host.nofile = (int(soft), int(hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    child.Host.argument_area = init.argument_area()
    child.Host.bounding = capabilities.bounding_set()
    if role == "keeper":
        prctl.set_child_subreaper()
    if cgroup:
        _leave_cgroup(cgroup)
    # No cycle is made on the hot path; a collection in a forked child would copy every page it walks.
    gc.collect()
    gc.freeze()
    gc.disable()
    ctypes.set_errno(0)


def _leave_cgroup(name: str) -> None:
    """Into a cgroup of our own, beside the containers': whoever ends sampand's cgroup must not end us. Best effort."""
    try:
        with open("/proc/self/mountinfo") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        left, _, right = line.partition(" - ")
        point, kind = left.split(" ")[4], right.split(" ")[0]
        if kind not in ("cgroup", "cgroup2"):
            continue
        directory = f"{point}/{name}"
        try:
            os.makedirs(directory, exist_ok=True)
            for item in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{directory}/{item}") and kind == "cgroup":
                    with open(f"{point}/{item}") as source, open(f"{directory}/{item}", "w") as target:
                        target.write(source.read())
            with open(f"{directory}/cgroup.procs", "w") as file:
                file.write("0")
        except OSError:
            continue


def _only_one(path: str) -> bool:
    """Take the lock of this role, for as long as the process lives. A POSIX lock: forked children do not share it.

    Once we have become another version (loop.become), we hold it already; it would be lost with any descriptor of its file that is closed.
    """
    from sampan.runtime.supervisor import child

    inherited = os.environ.pop(_LOCK, "")
    fd = child.Host.lock = int(inherited) if inherited else os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.set_inheritable(fd, False)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def spawner(arguments: list[str]) -> "Callable[[], int]":
    """A function for the keeper that starts a supervisor as its child and returns the pid."""

    def spawn() -> int:
        words = [sys.executable, "-I", "-S", os.path.abspath(__file__), "supervisor", *arguments]
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                # What we run from is sealed already, and the environment says so.
                os.execve("/proc/self/exe", words, dict(os.environ))
            finally:
                os._exit(127)
        return pid

    return spawn


def main(arguments: list[str]) -> "NoReturn":
    """Run the role named by the first argument."""
    if arguments[:1] == ["child"]:
        from sampan.runtime.supervisor import child

        _prepare("supervisor", "")
        child.run_anew(int(arguments[1]))
    if not arguments or arguments[0] not in ("keeper", "supervisor") or "--exec-root" not in arguments[1:-1]:
        print("usage: main.py keeper|supervisor --exec-root DIR [--cgroup NAME] [--build NAME]", file=sys.stderr)
        sys.exit(2)
    role = arguments[0]
    exec_root = arguments[arguments.index("--exec-root") + 1]
    cgroup, build = (arguments[arguments.index(word) + 1] if word in arguments[:-1] else "" for word in ("--cgroup", "--build"))
    seal(arguments)
    from sampan.runtime.supervisor import child

    os.makedirs(f"{exec_root}/rootfs", 0o700, exist_ok=True)
    if not _only_one(f"{exec_root}/{role}.lock"):
        print(f"another {role} serves {exec_root}", file=sys.stderr)
        sys.exit(3)
    child.Host.mount_point, child.Host.build = f"{exec_root}/rootfs", build
    if role == "supervisor":
        from sampan.runtime.supervisor import server

        _prepare(role, cgroup)
        server.serve(exec_root)
    else:
        from sampan.runtime.supervisor import keeper

        _prepare(role, cgroup)
        keeper.serve(exec_root, spawner(arguments[1:]))
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
