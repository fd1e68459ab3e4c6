"""What the kernel is asked for project quotas, byte by byte: most hosts that tests run on have none."""

import ctypes
import errno
import fcntl
import struct
from typing import Any

import pytest

from sampan.linux import libc, projectquota
from sampan.linux.projectquota import Project

FSXATTR, DISK_QUOTA = "=IIIII8s", "=bbHIQQQQQQiiHHbbbbQQQiHh8s"


class Kernel:
    """Answers ioctls and quotactl_fd with what a test has put here, and writes down what it was asked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.attributes = struct.pack(FSXATTR, 0x80000000, 7, 8, 9, 10, b"rest")
        self.answer: bytes | OSError = b""
        patch.setattr(fcntl, "ioctl", self._ioctl)
        patch.setattr(libc, "syscall", self._syscall)

    def _ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        self.asked.append((fd, request, argument))
        return self.attributes

    def _syscall(self, name: str, fd: int, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
        self.asked.append((name, fd, command, project, buffer.raw))
        if isinstance(self.answer, OSError):
            raise self.answer
        ctypes.memmove(buffer, self.answer, len(self.answer))
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_the_project_of_a_directory(kernel: Kernel) -> None:
    assert projectquota.project_of(5) == Project(9, False)
    kernel.attributes = struct.pack(FSXATTR, 0x200, 0, 0, 1 << 31, 0, b"")
    assert projectquota.project_of(5) == Project(1 << 31, True)
    assert kernel.asked == [(5, 0x801C581F, bytes(28))] * 2  # _IOR('X', 31, struct fsxattr)


@pytest.mark.parametrize(("inherited", "flags"), [(True, 0x80000200), (False, 0x80000000)])
def test_only_the_project_is_changed(kernel: Kernel, inherited: bool, flags: int) -> None:
    projectquota.set_project(5, Project(77, inherited))
    wanted = struct.pack(FSXATTR, flags, 7, 8, 77, 10, b"rest")
    assert kernel.asked[-1] == (5, 0x401C5820, wanted)  # _IOW('X', 32, struct fsxattr)


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (1, 1), (512, 1), (513, 2), (20 << 20, 40960), (2**63 - 1024, 2**54 - 2)])
def test_a_limit(kernel: Kernel, size: int, blocks: int) -> None:
    projectquota.set_limit(5, 77, size)
    wanted = struct.pack(DISK_QUOTA, 1, 2, 0b1100, 77, blocks, *[0] * 19, b"")
    assert len(wanted) == 112
    assert kernel.asked == [("quotactl_fd", 5, 0x580402, 77, wanted)]  # QCMD(Q_XSETQLIM, PRJQUOTA)


@pytest.mark.parametrize(("flags", "enforced"), [(0x3F, True), (0x20, True), (0x1F, False), (0, False)])
def test_whether_limits_count(kernel: Kernel, flags: int, enforced: bool) -> None:
    kernel.answer = struct.pack("=bBH", 1, 0, flags)
    assert projectquota.is_enforced(5) is enforced
    assert kernel.asked == [("quotactl_fd", 5, 0x580802, 0, b"\1" + bytes(159))]  # Q_XGETQSTATV, struct fs_quota_statv


@pytest.mark.parametrize("field", [None, *range(6)])
def test_whether_a_project_is_used(kernel: Kernel, field: int | None) -> None:
    numbers = [int(index == field) for index in range(6)]
    kernel.answer = struct.pack(DISK_QUOTA, 1, 2, 0, 77, *numbers, *[5] * 14, b"")
    assert projectquota.is_used(5, 77) is (field in (4, 5))
    assert kernel.asked == [("quotactl_fd", 5, 0x580302, 77, bytes(112))]


def test_what_xfs_does_not_know_is_not_used(kernel: Kernel) -> None:
    kernel.answer = OSError(errno.ENOENT, "no")
    assert not projectquota.is_used(5, 77)
    kernel.answer = OSError(errno.EIO, "broken")
    with pytest.raises(OSError, match="broken"):
        projectquota.is_used(5, 77)
