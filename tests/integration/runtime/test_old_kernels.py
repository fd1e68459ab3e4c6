"""Overlays as kernels before 6.5 want them, tried on this one, which takes both ways."""

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux import mounts, overlay

pytestmark = pytest.mark.root


@pytest.mark.parametrize("count", [2, 50, 51, 127, 499])
@pytest.mark.parametrize("writable", [True, False], ids=["writable", "read-only"])
def test_many_layers(short_root: Path, monkeypatch: pytest.MonkeyPatch, count: int, writable: bool) -> None:
    monkeypatch.setattr(overlay, "_kernel", lambda: (6, 1))
    lowers = [short_root / f"low{number}" for number in range(count)]
    for number, lower in enumerate(lowers):
        lower.mkdir()
        (lower / f"f{number}").touch()
        (lower / "top").write_text(str(number))
    for name in ("upper", "work"):
        (short_root / name).mkdir()
    above = (str(short_root / "upper"), str(short_root / "work")) if writable else ("", "")
    namespace = os.readlink("/proc/self/ns/mnt")
    here = os.getcwd()
    done = threading.Event()  # sampand has threads, too
    threading.Thread(target=done.wait).start()
    fd = overlay.mount_overlay([str(lower) for lower in lowers], *above, 0 if writable else mounts.MOUNT_ATTR_RDONLY)
    done.set()
    os.chdir(here)
    try:
        assert len(os.listdir(f"/proc/self/fd/{fd}")) == count + 1
        file = os.open("top", os.O_RDONLY, dir_fd=fd)
        assert os.read(file, 10) == b"0"
        os.close(file)
        if writable:
            os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            assert (short_root / "upper/new").exists()
        else:
            with pytest.raises(OSError, match="Read-only"):
                os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        place = os.open(short_root / "low1", os.O_PATH | os.O_DIRECTORY)
        mounts.move_mount(fd, place)
        os.close(place)
        mounts.umount2(str(short_root / "low1"), mounts.MNT_DETACH)
    finally:
        os.close(fd)
    assert os.readlink("/proc/self/ns/mnt") == namespace
    assert str(short_root) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def short_root() -> Iterator[Path]:
    """On a real disk."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as path:
        yield Path(path)
