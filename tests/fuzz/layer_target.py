"""The fuzzed program: bytes as a layer's tar, read and indexed; now and then mounted and walked by the kernel.

python -m tests.fuzz.layer_target [libFuzzer options] CORPUS... ; `--scratch=DIR` first: where to put layer files to be mounted
"""

import contextlib
import os
import stat
import sys
import zlib
from pathlib import Path

import atheris  # type: ignore[import-untyped, unused-ignore]

with atheris.instrument_imports(include=["sampan.archive"]):
    from sampan.archive import layerfile
    from sampan.archive.reader import InvalidArchive
    from sampan.archive.source import TruncatedArchive
    from tests.support.tars import repaired

from sampan.linux.erofs import mount_erofs

MOUNT_EACH = 40
"""One accepted input in so many is mounted."""
READ_MAX = 1 << 16


def walk(fd: int) -> None:
    """Look at everything, read the begin and the end of files."""
    for name in os.listdir(fd):
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        path = f"/proc/self/fd/{fd}/{name}"
        for key in os.listxattr(path, follow_symlinks=False):
            os.getxattr(path, key, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                walk(below)
            finally:
                os.close(below)
        elif stat.S_ISLNK(info.st_mode):
            os.readlink(name, dir_fd=fd)
        elif stat.S_ISREG(info.st_mode):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                assert len(os.pread(file, READ_MAX, 0)) == min(READ_MAX, info.st_size)
                os.pread(file, READ_MAX, max(0, info.st_size - READ_MAX))
            finally:
                os.close(file)


class Target:
    """One run's state."""

    def __init__(self, scratch: Path) -> None:
        self.file = scratch / "layer"

    def one(self, data: bytes) -> None:
        """libFuzzer's TestOneInput."""
        archive = memoryview(repaired(data))
        position = 0

        def read(limit: int) -> bytes:
            nonlocal position
            piece = bytes(archive[position : position + limit])
            position += len(piece)
            return piece

        with contextlib.suppress(FileNotFoundError):
            self.file.unlink()
        fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                written = layerfile.write(read, fd, None)
            except (InvalidArchive, TruncatedArchive):
                return
            assert written.tar_size == len(archive)
            assert b"".join(layerfile.tar_of(fd)) == archive
            if zlib.crc32(archive) % MOUNT_EACH == 0:
                mount = mount_erofs(str(self.file))
                root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
                try:
                    walk(root)
                finally:
                    os.close(root)
                    os.close(mount)
        finally:
            os.close(fd)


def main() -> None:
    """Entry point."""
    scratch = Path(sys.argv.pop(1).removeprefix("--scratch="))
    atheris.Setup(sys.argv, Target(scratch).one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
