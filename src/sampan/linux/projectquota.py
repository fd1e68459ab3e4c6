"""Project quotas: how many bytes all files of one project may have together, on XFS and ext4.

A directory's project may be inherited by what is made in it (ioctl_xfs_fsgetxattr(2), linux/fs.h); limits are the file system's
(quotactl(2), linux/quota.h, linux/dqblk_xfs.h), which keeps them over mounts. The VFS takes XFS's commands for ext4 (fs/quota/quota.c).
quotactl_fd came with Linux 5.14. Only the initial user namespace may change projects.
"""

import ctypes
import errno
import fcntl
import struct
from typing import NamedTuple

from sampan.linux import libc

_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=IIIII8s")
"""struct fsxattr: xflags, extsize, nextents, projid, cowextsize"""
_FS_XFLAG_PROJINHERIT = 0x200

_PRJQUOTA = 2
_Q_XGETQUOTA, _Q_XSETQLIM, _Q_XGETQSTATV = (ord("X") << 8 | 3), (ord("X") << 8 | 4), (ord("X") << 8 | 8)
_DISK_QUOTA = struct.Struct("=bbHI6Q2i2H4b3QiHh8s")
"""struct fs_disk_quota: version, flags, what is set, id, limits of blocks (hard, soft) and inodes (the same), what is used, times"""
_FS_DQUOT_VERSION, _FS_PROJ_QUOTA = 1, 2
_FS_DQ_BSOFT, _FS_DQ_BHARD = 1 << 2, 1 << 3
_BLOCK = 512
_STATV = struct.Struct("=bBH156x")
"""struct fs_quota_statv: version, padding, flags"""
_FS_QSTATV_VERSION1, _FS_QUOTA_PDQ_ENFD = 1, 1 << 5


class Project(NamedTuple):
    """Whose a directory is."""

    number: int
    """0: of none"""
    is_inherited: bool
    """Whether what is made in it is of that project too; renaming what is of another one into it fails with EXDEV."""


def project_of(directory: int) -> Project:
    """By an open descriptor. Raises OSError: ENOTTY, EOPNOTSUPP where a file system has no projects."""
    flags, _, _, number, _, _ = _attributes(directory)
    return Project(number, bool(flags & _FS_XFLAG_PROJINHERIT))


def set_project(directory: int, project: Project) -> None:
    """Of the directory only: what is in it stays as it is. Raises OSError."""
    flags, extent_size, extents, _, cow_extent_size, rest = _attributes(directory)
    flags = flags | _FS_XFLAG_PROJINHERIT if project.is_inherited else flags & ~_FS_XFLAG_PROJINHERIT
    fcntl.ioctl(directory, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags, extent_size, extents, project.number, cow_extent_size, rest))


def _attributes(directory: int) -> tuple[int, int, int, int, int, bytes]:
    found: tuple[int, int, int, int, int, bytes] = _FSXATTR.unpack(fcntl.ioctl(directory, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))
    return found


def is_enforced(fd: int) -> bool:
    """Whether limits of projects count on fd's file system, as it is mounted now. Raises OSError where it cannot have them."""
    buffer = ctypes.create_string_buffer(_STATV.pack(_FS_QSTATV_VERSION1, 0, 0), _STATV.size)
    _quotactl(fd, _Q_XGETQSTATV, 0, buffer)
    _, _, flags = _STATV.unpack(buffer.raw)
    return bool(flags & _FS_QUOTA_PDQ_ENFD)


def is_used(fd: int, project: int) -> bool:
    """Whether fd's file system has files of a project. Raises OSError."""
    buffer = ctypes.create_string_buffer(_DISK_QUOTA.size)
    try:
        _quotactl(fd, _Q_XGETQUOTA, project, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:  # so XFS says; ext4 has zeros
            return False
        raise
    return any(_DISK_QUOTA.unpack(buffer.raw)[8:10])


def set_limit(fd: int, project: int, size: int) -> None:
    """What a project's files may take on fd's file system: size bytes, less than 2**63, rounded up to blocks; 0: no limit. Raises OSError.

    A write beyond it fails, with ENOSPC on XFS and EDQUOT on ext4.
    """
    blocks = -(-size // _BLOCK)
    fields = _FS_DQ_BHARD | _FS_DQ_BSOFT
    limit = _DISK_QUOTA.pack(_FS_DQUOT_VERSION, _FS_PROJ_QUOTA, fields, project, blocks, *[0] * 19, b"")
    _quotactl(fd, _Q_XSETQLIM, project, ctypes.create_string_buffer(limit, _DISK_QUOTA.size))


def _quotactl(fd: int, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    libc.syscall("quotactl_fd", fd, command << 8 | _PRJQUOTA, project, buffer)
