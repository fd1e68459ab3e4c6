"""Failed launches in the words of dockerd and runc, and the exit codes docker stores for them. Pure."""

import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from sampan.errors import InvalidArgument
from sampan.runtime import ops
from sampan.runtime.client import LaunchError


class StartFailure(InvalidArgument):
    """The process could not be started; the exit code is what docker stores: 126, 127 or 128."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


MOUNT_HINT = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
)
"""What dockerd adds to `not a directory`."""
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_NO_IDMAP = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_NOT_EXECUTABLE = (errno.EACCES, errno.EISDIR, errno.ENOEXEC)


def _exec_failure_code(error: LaunchError) -> int:
    """127 not found, 126 not executable, else 128 (moby daemon/errors.go, exec)."""
    if error.step not in (ops.STEP_EXEC, ops.STEP_CWD, ops.STEP_USER):
        return 128
    return 127 if error.errno in _NOT_FOUND else 126 if error.errno in _NOT_EXECUTABLE else 128


_RUNTIME = "failed to create task for container: failed to create shim task: OCI runtime "
RUNTIME_CREATE_BY = _RUNTIME + "create failed: "
RUNTIME_CREATE = RUNTIME_CREATE_BY + "runc create failed: "
STARTING = RUNTIME_CREATE + "unable to start container process: error during container init: "
_EXEC_STARTING = "OCI runtime exec failed: exec failed: unable to start container process: "


def _exec_detail(error: LaunchError, name: str) -> str:
    if "exec:" in error.message:
        return error.message
    if error.errno in _NOT_FOUND:
        found = "executable file not found in $PATH" if "/" not in name else f"stat {name}: no such file or directory"
        return f'exec: "{name}": {found}'
    if error.errno == errno.EISDIR:
        return f'exec: "{name}": is a directory: permission denied'
    return f'exec: "{name}": {error.message.lower()}'


class Explained(NamedTuple):
    """What went wrong in a launch, in the words of dockerd 28 and runc: clients look for `executable file not found`, ..."""

    detail: str
    code: int
    """The exit code of a container that was not got to start."""
    alone: bool = False
    """The sentence is not one of runc's init, and goes without its introduction."""


def explain(error: LaunchError, args: list[str], sources: Mapping[str, str]) -> Explained:
    """A failed launch of args. sources: what is bound, by the place in the container."""
    detail, path = error.message, error.path
    code = 127 if error.errno in _NOT_FOUND else 126 if error.errno in _NOT_EXECUTABLE else 128
    reason = os.strerror(error.errno).lower() if error.errno else detail
    match error.step:
        case ops.STEP_EXEC:
            return Explained(_exec_detail(error, args[0] if args else ""), 127 if error.errno in _NOT_FOUND else 126)
        case ops.STEP_USER:
            return Explained(detail, 126, alone=True)
        case ops.STEP_IDENTITY:
            return Explained(detail, 128)
        case ops.STEP_CWD_MAKE:
            return Explained(detail, code, alone=True)
        case ops.STEP_DEVICE:
            what = "not a device node" if error.errno == errno.ENOTBLK else reason
            return Explained(f'error gathering device information while adding custom device "{path}": {what}', code, alone=True)
        case ops.STEP_MOUNT if path in sources:
            source = sources[path]
            hint = MOUNT_HINT if error.errno == errno.ENOTDIR else ""
            return Explained(
                f'error mounting "{source}" to rootfs at "{path}": mount src={source}, dst={path}, flags=MS_BIND|MS_REC: {reason}{hint}',
                code,
            )
        case ops.STEP_MOUNT if path == "/dev" and error.errno == errno.ENOTDIR:
            return Explained(f'error mounting "tmpfs" to rootfs at "/dev": mount src=tmpfs, dst=/dev: {reason}{MOUNT_HINT}', code)
        case ops.STEP_SUBPATH if error.errno == errno.EXDEV:
            return Explained(f"path concatenation escapes the base directory, subpath: {path}", 128, alone=True)
        case ops.STEP_SUBPATH:
            return Explained(f"cannot access path {path}: lstat {path}: {reason}", 128, alone=True)
        case ops.STEP_IDMAP:
            hint = ": the file system of the source, or this kernel, has no ID-mapped mounts" if error.errno in _NO_IDMAP else ""
            return Explained(f'error mounting "{sources.get(path, path)}" to rootfs at "{path}": idmap: {reason}{hint}', 128)
        case ops.STEP_MOUNT_REFUSED | ops.STEP_HOOK:
            return Explained(detail, 128)
        case ops.STEP_CGROUP_WRITE if "/cpu.rt_" in path:  # runc sets these before the process is there
            return Explained(
                f"{RUNTIME_CREATE}unable to start container process: unable to apply cgroup configuration: {detail}", 128, alone=True
            )
        case ops.STEP_CGROUP_WRITE:
            return Explained(f"error setting cgroup config for procHooks process: {detail}", 128)
        case ops.STEP_RLIMIT:
            return Explained(f"error setting rlimits for ready process: {detail}", 128)
        case ops.STEP_APPARMOR:
            return Explained(f"unable to apply apparmor profile: apparmor failed to apply profile: write {path}: {reason}", 128)
        case ops.STEP_HOSTNAME:
            return Explained(f"sethostname: {reason}", code)
        case ops.STEP_OOM:
            code = 128
    if path and path not in detail:
        return Explained(f"{error.step} {path}: {detail[:1].lower()}{detail[1:]}", code)
    return Explained(f"{error.step}: {detail}", code)


def _of_runtime(introduction: str, error: LaunchError) -> StartFailure:
    """The words of an OCI runtime, and what dockerd makes of them (moby daemon/errors.go setExitCodeFromError)."""
    text, lower = error.message, error.message.lower()
    code = 128
    if "permission denied" in lower:
        code = 126
    elif "is a directory" in lower:
        text, code = f"{text}: permission denied", 126
    elif "not a directory" in lower:
        text, code = text + MOUNT_HINT, 127
    elif any(words in lower for words in ("executable file not found", "no such file or directory")):
        code = 127
    return StartFailure(introduction + text, code)


def start_failure(error: LaunchError, args: list[str], sources: Mapping[str, str]) -> StartFailure:
    """A container's failed launch; see explain."""
    if error.step == ops.STEP_RUNTIME:
        return _of_runtime(f"{_RUNTIME}{error.path} failed: ", error)
    explained = explain(error, args, sources)
    return StartFailure(explained.detail if explained.alone else STARTING + explained.detail, explained.code)


def exec_failure(error: LaunchError, args: list[str], cwd: str) -> StartFailure:
    """An exec's failed launch. cwd: the working directory that was asked for."""
    if error.step == ops.STEP_RUNTIME:
        return _of_runtime("OCI runtime exec failed: ", error)
    code = _exec_failure_code(error)
    if error.step == ops.STEP_CWD and error.errno:
        reason = os.strerror(error.errno).lower() + (MOUNT_HINT if error.errno == errno.ENOTDIR else "")
        return StartFailure(f'{_EXEC_STARTING}chdir to cwd ("{error.path or cwd}") set in config.json failed: {reason}', code)
    explained = explain(error, args, {})
    return StartFailure(explained.detail if explained.alone else _EXEC_STARTING + explained.detail, code)
