"""sampand's start. The keeper and its supervisor come up while the rest of sampand is loaded, which takes as long: see entry."""

import contextlib
import faulthandler
import fcntl
import gc
import os
import resource
import sys
from functools import partial

from sampan.daemon.config import DaemonConfig, engine_cgroup, log_level, parse_command_line, read_again
from sampan.daemon.messages import set_up
from sampan.errors import EngineError, SystemFailure
from sampan.linux import libc, prctl
from sampan.runtime import spawning
from sampan.systemd import Service


def _prepare_process() -> None:
    """Every descriptor the host allows, and orphans of a killed keeper come to us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    libc.share_malloc_arena()
    prctl.set_child_subreaper()
    os.umask(0o022)


def _take_pidfile(path: str) -> int:
    """Write our PID, and keep a lock that tells a second daemon; its descriptor. Raises SystemFailure.

    The lock is on a file of its own that only root can open: whoever may read a file may also lock it.
    """
    os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.read(fd, 32).decode(errors="replace").strip()
        os.close(lock)
        raise SystemFailure(f"failed to start daemon: process with PID {holder} is still running ({path})") from None
    finally:
        os.close(fd)
    return lock


def _run(config: DaemonConfig, service: Service) -> None:
    """Serve until a signal ends it. Raises EngineError, OSError."""
    keeper = None if spawning.answers(f"{config.exec_root}/keeper.sock") else spawning.spawn_keeper(config.exec_root, engine_cgroup(config))
    try:
        # Only now: two hundred modules are loaded while the keeper and its supervisor start.
        import asyncio

        from sampan.daemon.serving import serve

        gc.enable()
        asyncio.run(serve(config, keeper, partial(read_again, sys.argv[1:]), service))
    except (EngineError, OSError):
        if keeper is not None:
            spawning.end_keeper(keeper, config.exec_root)
        raise


def entry() -> None:
    """The program `sampand`."""
    gc.disable()  # loading makes nothing that could be garbage
    service = Service()
    config = parse_command_line(sys.argv[1:])
    set_up(config.log_format, log_level(config))
    faulthandler.enable()
    if os.geteuid() != 0:
        print("sampand needs to be started with root privileges", file=sys.stderr)
        raise SystemExit(1)
    _prepare_process()
    try:
        pidfile = _take_pidfile(config.pidfile)
        _run(config, service)
    except EngineError as error:
        print(f"failed to start daemon: {error.message.removeprefix('failed to start daemon: ')}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        print(f"failed to start daemon: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    with contextlib.suppress(OSError):
        os.unlink(config.pidfile)
    os.close(pidfile)
