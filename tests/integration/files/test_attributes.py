"""All that a file can have besides its content survives the way through cp, commit, export and import."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.property.test_layers import ACL, CAPABILITY
from tests.support.engine import Engine
from tests.support.layers import Seen, look, seen

pytestmark = pytest.mark.root

OWNER = 3_000_000
"""More than the octal digits of a header can say."""
BEFORE_1970 = -1_000_000_000
"""Seconds; layers know no others, as docker's."""


@pytest.fixture
def tree() -> Iterator[Path]:
    """Files with everything; on a disk, because a tmpfs may lack user.* attributes."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as path:
        make(Path(path, "t"))
        yield Path(path)


def make(top: Path) -> None:
    heir = top / "heir"
    heir.mkdir(parents=True)
    for name in ("plain", "capable", "set-uid", "owned", "old", "heir/file"):
        (top / name).write_text(name)
    Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe name")).write_text("not UTF-8")
    os.link(top / "plain", top / "linked")
    (top / "soft").symlink_to("plain")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", stat.S_IFCHR | 0o620, os.makedev(1, 3))
    for name in ("owned", "soft", "fifo", "device", "heir"):
        os.chown(top / name, OWNER, OWNER + 1, follow_symlinks=False)
    os.chmod(top / "set-uid", 0o6755)
    os.setxattr(top / "plain", "user.note", bytes(range(256)))
    os.setxattr(top / "plain", "system.posix_acl_access", ACL)
    os.setxattr(top / "capable", "security.capability", CAPABILITY)
    os.setxattr(heir, "user.note", b"of a directory")
    os.setxattr(heir, "system.posix_acl_access", ACL)
    os.setxattr(heir, "system.posix_acl_default", ACL)
    for path in (*top.rglob("*"), top):
        mtime = BEFORE_1970 if path.name in ("old", "soft", "fifo", "heir") else 1_700_000_000
        os.utime(path, (mtime, mtime), follow_symlinks=False)


def inside(engine: Engine, image: str, name: str) -> dict[bytes, Seen]:
    """The tree as a running container of an image has it."""
    done = engine.cli("run", "-d", "--name", name, "--network=none", image, "sleep", "1000")
    assert done.returncode == 0, done.stderr
    top = Path(f"/proc/{engine.request('GET', f'/containers/{name}/json')[1]['State']['Pid']}/root/t")
    return {b"": seen(os.fsencode(top)), **look(top)}


def test_nothing_is_lost_between_cp_and_import(engine: Engine, tree: Path) -> None:
    command = ["tar", "-C", str(tree), "--format=pax", "--xattrs", "--xattrs-include=*", "-cf", "-", "t"]
    archive = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    expected = {b"": seen(os.fsencode(tree / "t")), **look(tree / "t")}
    assert engine.cli("create", "--name", "copied", "busybox").returncode == 0
    try:
        assert engine.cli("cp", "-", "copied:/", stdin=archive).returncode == 0
        assert engine.cli("commit", "copied", "attributes:committed").returncode == 0
        assert inside(engine, "attributes:committed", "committed") == expected
        status, exported = engine.request("GET", "/containers/committed/export")
        assert status == 200
        done = engine.cli("import", "-", "attributes:imported", stdin=exported)
        assert done.returncode == 0, done.stderr
        assert inside(engine, "attributes:imported", "imported") == expected
    finally:
        engine.remove_containers()
        for tag in ("committed", "imported"):
            engine.request("DELETE", f"/images/attributes:{tag}")
