"""What the child says of a failed launch, in docker's words and with docker's exit code."""

import errno
import os

import pytest

from sampan.engine.launch_failures import MOUNT_HINT, STARTING, exec_failure, start_failure
from sampan.runtime import ops
from sampan.runtime.client import LaunchError

EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "
SOURCES = {"/data": "/srv/data"}
RC = "error setting cgroup config for procHooks process: "


def failed(step: str, number: int, path: str = "", message: str = "") -> LaunchError:
    return LaunchError(step, number, path, message)


@pytest.mark.parametrize(
    ("error", "args", "sentence", "code"),
    [
        (failed(ops.STEP_EXEC, errno.ENOENT), ["sh"], 'exec: "sh": executable file not found in $PATH', 127),
        (failed(ops.STEP_EXEC, errno.ENOENT), ["/x"], 'exec: "/x": stat /x: no such file or directory', 127),
        (failed(ops.STEP_EXEC, errno.ENOTDIR), ["/x/y"], 'exec: "/x/y": stat /x/y: no such file or directory', 127),
        (failed(ops.STEP_EXEC, errno.EACCES), ["/x"], 'exec: "/x": permission denied', 126),
        (failed(ops.STEP_EXEC, errno.EISDIR), ["/etc"], 'exec: "/etc": is a directory: permission denied', 126),
        (failed(ops.STEP_EXEC, errno.ENOEXEC), ["/x"], 'exec: "/x": exec format error', 126),
        (failed(ops.STEP_EXEC, errno.E2BIG), ["/x"], 'exec: "/x": argument list too long', 126),
        (failed(ops.STEP_MOUNT, errno.ENOTDIR, "/data"), [], 'error mounting "/srv/data" to rootfs at "/data": mount src=/srv/data, '
         f"dst=/data, flags=MS_BIND|MS_REC: not a directory{MOUNT_HINT}", 127),
        (failed(ops.STEP_MOUNT, errno.EACCES, "/data"), [], 'error mounting "/srv/data" to rootfs at "/data": mount src=/srv/data, '
         "dst=/data, flags=MS_BIND|MS_REC: permission denied", 126),
        (failed(ops.STEP_MOUNT, errno.ENOTDIR, "/dev"), [], 'error mounting "tmpfs" to rootfs at "/dev": mount src=tmpfs, dst=/dev: '
         f"not a directory{MOUNT_HINT}", 127),
        (failed(ops.STEP_MOUNT_REFUSED, errno.EPERM, "/proc", "no symlinks"), [], "no symlinks", 128),
        (failed(ops.STEP_CGROUP_WRITE, errno.EINVAL, "", "failed to write 9"), [], f"{RC}failed to write 9", 128),
        (failed(ops.STEP_RLIMIT, errno.EPERM), [], "error setting rlimits for ready process: Operation not permitted", 128),
        (failed(ops.STEP_HOSTNAME, errno.EINVAL), [], "sethostname: invalid argument", 128),
        (failed(ops.STEP_OOM, errno.EACCES), [], "oom_score_adj: Permission denied", 128),
        (failed(ops.STEP_SYSCTL, errno.EINVAL, "/proc/sys/net/x"), [], "sysctl /proc/sys/net/x: invalid argument", 128),
        (failed(ops.STEP_SECCOMP, errno.EINVAL, "", "Bad filter"), [], "seccomp: Bad filter", 128),
    ],
)  # fmt: skip
def test_a_container_that_does_not_start(error: LaunchError, args: list[str], sentence: str, code: int) -> None:
    found = start_failure(error, args, SOURCES)
    assert (found.message, found.exit_code) == (STARTING + sentence, code)


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (failed(ops.STEP_USER, 0, "", "unable to find user x: no matching entries"), "unable to find user x: no matching entries", 126),
        (failed(ops.STEP_CWD_MAKE, errno.ENOTDIR, "/w", "Cannot mkdir: /w is not a directory"), "Cannot mkdir: /w is not a directory", 127),
        (failed(ops.STEP_DEVICE, errno.ENOTBLK, "/dev/x"), 'error gathering device information while adding custom device "/dev/x": '
         "not a device node", 128),
        (failed(ops.STEP_DEVICE, errno.ENOENT, "/dev/x"), 'error gathering device information while adding custom device "/dev/x": '
         "no such file or directory", 127),
    ],
)  # fmt: skip
def test_sentences_that_stand_alone(error: LaunchError, sentence: str, code: int) -> None:
    found = start_failure(error, [], SOURCES)
    assert (found.message, found.exit_code) == (sentence, code)


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (failed(ops.STEP_EXEC, errno.ENOENT), EXEC + 'exec: "sh": executable file not found in $PATH', 127),
        (failed(ops.STEP_EXEC, errno.EACCES), EXEC + 'exec: "sh": permission denied', 126),
        (failed(ops.STEP_CWD, errno.ENOENT), EXEC + 'chdir to cwd ("/w") set in config.json failed: no such file or directory', 127),
        (failed(ops.STEP_CWD, errno.ENOTDIR), EXEC + f'chdir to cwd ("/w") set in config.json failed: not a directory{MOUNT_HINT}', 127),
        (failed(ops.STEP_USER, 0, "", "unable to find user x: no matching entries"), "unable to find user x: no matching entries", 128),
        (failed(ops.STEP_JOIN, errno.ESRCH), EXEC + "join: " + os.strerror(errno.ESRCH), 128),
    ],
)
def test_an_exec_that_does_not_start(error: LaunchError, sentence: str, code: int) -> None:
    found = exec_failure(error, ["sh"], "/w")
    assert (found.message, found.exit_code) == (sentence, code)
