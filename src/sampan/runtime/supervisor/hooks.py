"""createContainer hooks of devices (CDI): programs of the host's vendors, run by the forked child in the container's namespaces while the
host's files are still in sight (OCI runtime-spec, "POSIX-platform Hooks"). A hook that hangs holds up its own start only."""

import errno
import json
import os
import select
import signal
from typing import Any

from sampan.linux import apparmor
from sampan.runtime import ops


def run(plan: ops.Plan, where: list[str]) -> None:
    """All of a plan, one after the other. Raises OSError in runc's words for the first that fails."""
    profile = plan["process"].get("apparmor", "")
    if plan.get("hooks"):
        apparmor.confine_at_exec(profile and "unconfined")  # the container's own profile is not for them
    state = {"ociVersion": "1.2.1", "id": plan["id"], "status": "creating", "pid": os.getpid(), "bundle": plan.get("bundle", "")}
    for number, hook in enumerate(plan.get("hooks", ())):
        where[:] = [ops.STEP_HOOK, hook["path"]]
        problem = _problem_of(hook, json.dumps({**state, "annotations": {}}).encode())
        if problem:
            raise OSError(errno.EIO, f"error running createContainer hook #{number}: {problem}", hook["path"])
    if plan.get("hooks"):
        apparmor.confine_at_exec(profile)


def _problem_of(hook: dict[str, Any], state: bytes) -> str:
    """Run one; what went wrong, "" for nothing."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.pwrite(files[0], state, 0)
    os.umask(0o022)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(files)]
        environment = dict(entry.split("=", 1) for entry in hook["env"])
        pid = os.posix_spawn(hook["path"], hook["args"], environment, file_actions=actions, setpgroup=0)
    except OSError as error:
        return f"fork/exec {hook['path']}: {os.strerror(error.errno or errno.EIO).lower()}"
    finally:
        os.umask(0)
    ended = select.poll()
    handle = os.pidfd_open(pid)
    ended.register(handle, select.POLLIN)
    in_time = bool(ended.poll(hook["timeout"] * 1000))
    os.close(handle)
    if not in_time:
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not in_time:
        return f"hook ran past specified timeout of {hook['timeout']:.1f}s"
    if code == 0:
        return ""
    stdout, stderr = (os.pread(fd, 2048, 0).decode(errors="replace") for fd in files[1:])
    how = f"exit status {code}" if code > 0 else f"signal: {signal.strsignal(-code) or -code}".lower()
    return f"{how}, stdout: {stdout}, stderr: {stderr}"
