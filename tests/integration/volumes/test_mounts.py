"""Every kind of mount and its options: parts of volumes, images, file systems as volumes, owners, propagation."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Ok = Callable[..., str]


@pytest.fixture
def folder(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of the host that belongs to user 1234, group 2345, with a file of his and one of root's."""
    place = engine.root / f"host-{request.node.name.partition('[')[0]}"
    place.mkdir(exist_ok=True)
    (place / "his").write_text("his")
    (place / "roots").write_text("root's")
    for path in (place, place / "his"):
        os.chown(path, 1234, 2345)
    yield place
    subprocess.run(["rm", "-rf", str(place)], check=True, timeout=30)


def owners(place: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in sorted(place.iterdir())}


@pytest.mark.parametrize(("user", "inside"), [("0", "0:0"), ("77:88", "77:88"), ("daemonic", "33:44")])
def test_idmap(ok: Ok, folder: Path, user: str, inside: str) -> None:
    """The owner's files are the container's user's, new ones his on the host; what belongs to others stays theirs."""
    if user == "daemonic":
        ok("run", "--name", "named-user", "busybox", "sh", "-c", "echo daemonic:x:33:44::/:/bin/sh >>/etc/passwd")
        ok("commit", "named-user", "idmap:1")
    image = "idmap:1" if user == "daemonic" else "busybox"
    script = "stat -c %u:%g /h /h/his; echo >/h/new; mkdir /h/dir; stat -c %u:%g /h/new; stat -c %u:%g /h/roots"
    shown = ok("run", "--rm", "-u", user, "-v", f"{folder}:/h:idmap", image, "sh", "-c", script).splitlines()
    assert shown == [inside] * 3 + (["65534:65534"] if user == "0" else ["0:0"])
    assert owners(folder) == {"dir": (1234, 2345), "his": (1234, 2345), "new": (1234, 2345), "roots": (0, 0)}
    ok("run", "--rm", "-u", user, "-v", "data:/h:idmap", image, "true")


def test_idmap_of_what_cannot_be(error: Callable[..., str]) -> None:
    message = error("run", "--rm", "-u", "5", "-v", "/proc/1:/h:idmap", "busybox", "true")
    assert message.endswith("idmap: invalid argument: the file system of the source, or this kernel, has no ID-mapped mounts")


def test_chown(ok: Ok, engine: Engine, folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd").st_uid
    ok("run", "--rm", "-u", "11:22", "-v", f"{folder}:/h:U", "-v", "data:/d:U", "busybox", "touch", "/h/new", "/d/new")
    assert owners(folder) == dict.fromkeys(("his", "link", "new", "roots"), (11, 22))
    assert owners(Path(engine.data_root, "volumes/data/_data")) == {"new": (11, 22)}
    assert os.stat("/etc/passwd").st_uid == before
    (folder / "later").write_text("x")
    ok("run", "--rm", "-u", "11:22", "-v", f"{folder}:/h:U", "busybox", "true")
    assert owners(folder)["later"] == (0, 0)  # the top is his: nothing is looked at again


def test_parts_of_volumes(engine: Engine, ok: Ok, error: Callable[..., str]) -> None:
    script = "mkdir -p /v/d/e; echo f >/v/d/f; ln -s d/e /v/inside; ln -s /etc /v/absolute; ln -s ../../.. /v/up"
    ok("run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", script)

    def mount(subpath: str) -> list[str]:
        return ["run", "--rm", "--mount", f"type=volume,src=data,dst=/p,volume-subpath={subpath}", "busybox"]

    assert ok(*mount("d"), "sh", "-c", "ls /p; touch /p/new") == "e\nf"
    assert ok(*mount("inside"), "sh", "-c", "cd /p && pwd -P && touch here") == "/p"
    assert ok(*mount("d/f"), "cat", "/p") == "f"
    path = f"{engine.data_root}/volumes/data/_data"
    assert sorted(os.listdir(f"{path}/d")) == ["e", "f", "new"]
    assert os.listdir(f"{path}/d/e") == ["here"]
    for subpath in ("absolute", "up"):
        assert error(*mount(subpath), "true") == f"path concatenation escapes the base directory, subpath: {path}/{subpath}"
    missing = f"cannot access path {path}/no: lstat {path}/no: no such file or directory"
    assert error(*mount("no"), "true") == missing
    assert error(*mount("../data"), "true") == ('invalid mount config for type "volume": subpath must be a relative path within the volume')


def test_images(engine: Engine, ok: Ok, error: Callable[..., str], docker: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ok("run", "--name", "made", "busybox", "sh", "-c", "mkdir /only; echo here >/only/f")
    ok("commit", "made", "mounted:1")
    ok("rm", "made")
    mounts = ["--mount", "type=image,src=mounted:1,dst=/i", "--mount", "type=image,src=mounted:1,dst=/part,image-subpath=only"]
    ok("create", "--name", "user", *mounts, "busybox", "sh", "-c", "cat /i/only/f /part/f; touch /part/x 2>&1; true")
    ok("rmi", "mounted:1")  # its files stay as long as the container does
    assert ok("start", "-a", "user") == "here\nhere\ntouch: /part/x: Read-only file system"
    done = docker("cp", "user:/part/f", "-")
    assert b"here" in done.stdout.encode()
    body = {"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "image", "Source": "nope", "Target": "/i"}]}}
    assert engine.request("POST", "/containers/create", body) == (404, {"message": "No such image: nope:latest"})
    words = "cannot access path no: lstat no: no such file or directory"
    assert error("run", "--mount", "type=image,src=busybox,dst=/i,image-subpath=no", "busybox", "true") == words


def test_a_tmpfs_as_volume(engine: Engine, ok: Ok) -> None:
    """It is there while somebody uses it, and everybody sees the same; sampand's end does not matter."""
    ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000,nosuid", "ram")
    ok("run", "-d", "--name", "keeper", "-v", "ram:/r", "busybox", "sh", "-c", "echo 1 >/r/f; exec sleep 1000")
    assert ok("run", "--rm", "-v", "ram:/r", "busybox", "sh", "-c", "until cat /r/f; do :; done; stat -c %u /r; df -m /r | tail -1") == (
        ok("exec", "keeper", "sh", "-c", "cat /r/f; stat -c %u /r; df -m /r | tail -1")
    )
    engine.stop(9)
    engine.start()
    assert ok("run", "--rm", "-v", "ram:/r", "busybox", "cat", "/r/f") == "1"
    path = f"{engine.data_root}/volumes/ram/_data"
    assert f" {path} rw,nosuid" in Path("/proc/self/mountinfo").read_text()
    ok("rm", "-f", "keeper")
    assert path not in Path("/proc/self/mountinfo").read_text()
    assert ok("run", "--rm", "-v", "ram:/r", "busybox", "ls", "/r") == ""
    ok("create", "--name", "stopped", "-v", "ram:/r", "busybox")
    ok("cp", "stopped:/r", "-")
    deadline = time.monotonic() + 30
    while path in Path("/proc/self/mountinfo").read_text():  # nobody waits for it
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_host_directory_as_volume(ok: Ok, folder: Path, error: Callable[..., str]) -> None:
    """Removing the volume leaves the directory as it is."""
    ok("volume", "create", "-o", "type=none", "-o", f"device={folder}", "-o", "o=bind,ro", "bound")
    assert ok("run", "--rm", "-v", "bound:/b", "busybox", "sh", "-c", "cat /b/his; touch /b/x 2>&1; true") == (
        "histouch: /b/x: Read-only file system"
    )
    ok("run", "-d", "--name", "user", "-v", "bound:/b", "busybox", "sleep", "1000")
    assert "volume is in use" in error("volume", "rm", "bound")
    ok("rm", "-f", "user")
    ok("volume", "rm", "bound")
    assert sorted(os.listdir(folder)) == ["his", "roots"]


def test_what_is_mounted_in_a_volume_is_not_emptied(engine: Engine, ok: Ok, error: Callable[..., str], folder: Path) -> None:
    ok("volume", "create", "data")
    place = Path(engine.data_root, "volumes/data/_data/inside")
    place.mkdir()
    subprocess.run(["mount", "--bind", str(folder), str(place)], check=True, timeout=30)
    try:
        assert error("volume", "rm", "data") == "remove data: volume has active mounts"
        assert ok("volume", "prune", "-af") == "Total reclaimed space: 0B"
        ok("run", "--name", "user", "-v", "/anon", "-v", "data:/d", "busybox", "ls", "/d/inside/his")
        ok("rm", "-v", "user")
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=30)
    assert (folder / "his").read_text() == "his"
    ok("volume", "rm", "data")
    assert (folder / "his").read_text() == "his"


def test_file_systems_that_cannot_be_had(engine: Engine, ok: Ok, error: Callable[..., str]) -> None:
    place = f"{engine.data_root}/volumes"
    ok("volume", "create", "-o", "type=none", "-o", "device=/not/here", "-o", "o=bind", "gone")
    call = f"mount /not/here:{place}/gone/_data, flags: 0x1000"
    words = f"error while mounting volume '{place}/gone/_data': failed to mount local volume: {call}: "
    assert error("run", "-v", "gone:/g", "busybox", "true") == f"{words}no such file or directory"
    ok("volume", "create", "-o", "type=cifs", "-o", "device=//127.0.0.1/x", "-o", "o=addr=127.0.0.1,password=secret", "share")
    message = error("run", "-v", "share:/s", "busybox", "true")
    if "cifs" not in Path("/proc/filesystems").read_text():
        assert message.endswith(
            "data: addr=127.0.0.1,password=********: no such device: this host's kernel has no file system of type 'cifs'"
        )
    assert "secret" not in message


def test_propagation(engine: Engine, ok: Ok, error: Callable[..., str]) -> None:
    place = engine.root / "shared"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True, timeout=30)
    try:
        subprocess.run(["mount", "--make-private", str(place)], check=True, timeout=30)
        words = f"path {place} is mounted on {place} but it is not a shared mount"
        assert error("run", "-v", f"{place}:/s:shared", "busybox", "true") == words
        subprocess.run(["mount", "--make-shared", str(place)], check=True, timeout=30)
        for mode in ("rshared", "rslave", "private"):
            ok("run", "-d", "--name", mode, "-v", f"{place}:/s:{mode}", "busybox", "sleep", "1000")
        (place / "sub").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place / "sub")], check=True, timeout=30)
        (place / "sub/f").write_text("x")
        assert [ok("exec", mode, "ls", "/s/sub") for mode in ("rshared", "rslave", "private")] == ["f", "f", ""]
        read_only = ["run", "--rm", "--mount", f"type=bind,src={place},dst=/s,readonly"]
        for more, word in (("", "r"), (",bind-recursive=writable", "w"), (",bind-recursive=readonly,bind-propagation=rprivate", "r")):
            script = "touch /s/x 2>/dev/null && echo top; touch /s/sub/x 2>/dev/null && echo w || echo r"
            assert ok(*read_only[:-1], read_only[-1] + more, "busybox", "sh", "-c", script) == word
        assert ok(*read_only[:-1], read_only[-1] + ",bind-recursive=disabled", "busybox", "ls", "/s/sub") == ""
    finally:
        engine.remove_containers()
        subprocess.run(["umount", "-R", str(place)], check=True, timeout=30)


def test_a_name_that_cannot_be(engine: Engine) -> None:
    status, body = engine.request("POST", "/containers/create", {"Image": "busybox", "Volumes": {"/" + "d" * 300: {}}})
    assert (status, "file name too long" in body["message"]) == (400, True)
