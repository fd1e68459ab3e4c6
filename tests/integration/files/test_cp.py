"""docker cp's archive calls on real containers: the same whether they run or not, and nothing mounted afterwards."""

import contextlib
import http.client
import io
import os
import signal
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sampan.daemon.teardown import UnixConnection
from tests.support.engine import Engine, processes_of

pytestmark = pytest.mark.root

SETUP = (
    "mkdir -p /d/sub /tmp; echo one > /d/a; echo two > /d/sub/b; ln /d/a /d/hard; ln -s sub /d/lnk; ln -s /d/sub /abs; ln -s /no /dangling;"
    "ln -s ../../../../../../etc/passwd /d/out; chown 7:8 /d/a; chmod 4755 /d/a; mkfifo /d/pipe; "
)


def archive(*entries: tuple[str, bytes, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, 0o640, 55, 66, 1_234_567_890
            if isinstance(content, str):
                info.linkname = content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def opened(body: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(body))


FILE = archive(("f", tarfile.REGTYPE, b"content"))


class Box:
    """One container, and its archive calls."""

    def __init__(self, engine: Engine, running: bool, **host: Any) -> None:
        self.engine, self.running = engine, running
        config = {"Image": "busybox", "Cmd": ["sh", "-c", f"{SETUP} exec sleep 1000"], "User": "0", "HostConfig": host}
        self.id = engine.request("POST", "/containers/create", config)[1]["Id"]
        self.act("start")
        self.sh("test -p /d/pipe", wait=True)
        if not running:
            self.act("kill")

    def act(self, word: str) -> None:
        status, body = self.engine.request("POST", f"/containers/{self.id}/{word}")
        assert status == 204, body

    def sh(self, script: str, wait: bool = False) -> str:
        deadline = time.monotonic() + 30
        while (done := self.engine.cli("exec", self.id, "sh", "-c", script)).returncode and wait:
            assert time.monotonic() < deadline, done
            time.sleep(0.05)
        return done.stdout

    def url(self, path: str, more: str = "") -> str:
        return f"/containers/{self.id}/archive?path={quote(path)}{more}"

    def get(self, path: str) -> tarfile.TarFile:
        status, body = self.engine.request("GET", self.url(path))
        assert status == 200, body
        return opened(body)

    def put(self, path: str, body: bytes, more: str = "") -> tuple[int, str]:
        status, answer = self.engine.request("PUT", self.url(path, more), body)
        return status, answer["message"] if status != 200 else ""

    def content(self, path: str) -> bytes:
        tar = self.get(path)
        file = tar.extractfile(tar.getmembers()[0])
        assert file is not None
        return file.read()


@pytest.fixture(params=[True, False], ids=["running", "stopped"])
def box(engine: Engine, request: pytest.FixtureRequest) -> Box:
    return Box(engine, request.param)


def test_a_tree_comes_out_whole(box: Box) -> None:
    found = {member.name: member for member in box.get("/d").getmembers()}
    assert list(found) == ["d", "d/a", "d/hard", "d/lnk", "d/out", "d/pipe", "d/sub", "d/sub/b"]
    assert (found["d/a"].mode, found["d/a"].uid, found["d/a"].gid) == (0o4755, 7, 8)
    assert (found["d/hard"].type, found["d/hard"].linkname) == (tarfile.LNKTYPE, "d/a")
    assert found["d/lnk"].linkname == "sub"
    assert found["d/out"].linkname == "../../../../../../etc/passwd"
    assert found["d/pipe"].type == tarfile.FIFOTYPE


def test_names_follow_the_path_asked_for(box: Box) -> None:
    assert [member.name for member in box.get("/d/lnk/").getmembers()] == ["lnk", "lnk/b"]
    assert [member.name for member in box.get("/abs/.").getmembers()] == [".", "./b"]
    assert [member.name for member in box.get("abs").getmembers()] == ["abs"]
    assert [member.name for member in box.get("../../d/sub").getmembers()] == ["sub", "sub/b"]


def test_no_link_leads_out(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    box.put("/d", archive(("up", tarfile.SYMTYPE, "../" * 20 + str(secret)), ("upd", tarfile.SYMTYPE, "../" * 20 + str(tmp_path))))
    assert box.engine.request("GET", box.url("/d/upd/secret"))[0] == 404
    assert box.engine.request("HEAD", box.url("/d/up/"))[0] == 404
    status, _ = box.put("/d", archive(("upd/new", tarfile.REGTYPE, b"x")))
    assert status == 400
    status, _ = box.put("/d", archive(("../../new", tarfile.REGTYPE, b"x")))
    assert status == 400
    assert os.listdir(tmp_path) == ["secret"]


def test_errors_are_dockers(box: Box) -> None:
    assert box.engine.request("GET", box.url("/none"))[1]["message"] == f"Could not find the file /none in container {box.id}"
    assert box.engine.request("GET", box.url("/d/a/"))[1]["message"] == "lstat /d/a/: not a directory"
    assert box.engine.request("GET", box.url(""))[1]["message"] == "bad parameter: pathcannot be empty"
    assert box.put("/none", FILE) == (404, f"Could not find the file /none in container {box.id}")
    assert box.put("/d/a", FILE) == (400, "extraction point is not a directory")
    assert box.put("/", archive(("d", tarfile.REGTYPE, b"")), "&noOverwriteDirNonDir=1") == (
        400,
        'cannot overwrite directory "d" with non-directory "/"',
    )
    assert box.put("/d", archive(("a", tarfile.DIRTYPE, b"")), "&noOverwriteDirNonDir=true") == (
        400,
        'cannot overwrite non-directory "a" with directory "/d"',
    )
    assert box.put("/d", b"no archive" * 100)[0] == 400
    assert box.put("/d", FILE[:600]) == (400, "unexpected EOF")


def test_names_that_no_program_could_use(box: Box) -> None:
    before = [member.name for member in box.get("/d/sub").getmembers()]
    for name in ("n" * 256, "p" * 256 + "/f", "d/" * 2047 + "f"):
        bad = archive((name, tarfile.REGTYPE, b"x"), ("after", tarfile.REGTYPE, b"x"))
        assert box.put("/d/sub", bad) == (400, f"{name[:200]}...: File name too long")
    assert [member.name for member in box.get("/d/sub").getmembers()] == before
    assert box.put("/d/sub", archive(("n" * 255, tarfile.REGTYPE, b"x"))) == (200, "")
    assert box.content("/d/sub/" + "n" * 255) == b"x"


def test_what_is_put_is_there_when_it_runs(box: Box) -> None:
    assert box.put("/d/lnk", archive(("x", tarfile.REGTYPE, b"put"), (".wh.y", tarfile.REGTYPE, b"plain"))) == (200, "")
    if not box.running:
        box.act("start")
    assert box.sh("cat /d/sub/x /d/sub/.wh.y; stat -c '%u %g %a %Y' /d/sub/x", wait=True) == "putplain55 66 640 1234567890\n"


def test_owner_is_the_containers_user(engine: Engine) -> None:
    made = engine.request("POST", "/containers/create", {"Image": "busybox", "User": "www-data"})[1]["Id"]
    for more, owner in (("", (55, 66)), ("&copyUIDGID=true", (33, 33))):
        status, body = engine.request("PUT", f"/containers/{made}/archive?path=/tmp{more}", FILE)
        assert status == 200, body
        _, body = engine.request("GET", f"/containers/{made}/archive?path=/tmp/f")
        member = opened(body).getmembers()[0]
        assert (member.uid, member.gid) == owner


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_mounts_are_part_of_the_tree(engine: Engine, tmp_path: Path, running: bool) -> None:
    for name in ("rw", "ro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "there").write_text(name)
    box = Box(engine, running, Binds=[f"{tmp_path}/rw:/rw", f"{tmp_path}/ro:/data/ro:ro"])
    assert box.content("/rw/there") == b"rw"
    assert box.content("/data/ro/there") == b"ro"
    assert box.put("/rw", FILE) == (200, "")
    assert (tmp_path / "rw/f").read_bytes() == b"content"
    assert box.put("/data/ro", FILE) == (400, "mounted volume is marked read-only")
    assert os.listdir(tmp_path / "ro") == ["there"]
    exported = opened(engine.request("GET", f"/containers/{box.id}/export")[1]).getnames()
    assert "rw" in exported
    assert "rw/there" not in exported


def test_read_only_root(engine: Engine, tmp_path: Path) -> None:
    made = engine.request(
        "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"ReadonlyRootfs": True, "Binds": [f"{tmp_path}:/rw"]}}
    )[1]["Id"]
    status, body = engine.request("PUT", f"/containers/{made}/archive?path=/tmp", FILE)
    assert (status, body["message"]) == (400, "container rootfs is marked read-only")
    assert engine.request("PUT", f"/containers/{made}/archive?path=/rw", FILE)[0] == 200
    assert (tmp_path / "f").exists()


def test_a_running_containers_tmpfs_is_seen_and_its_proc_is_not(engine: Engine) -> None:
    box = Box(engine, True, Tmpfs={"/mem": ""})
    assert box.put("/mem", FILE) == (200, "")
    assert box.sh("cat /mem/f") == "content"
    box.sh("echo said > /mem/g")
    assert box.content("/mem/g") == b"said\n"
    names = box.get("/").getnames()
    for place in ("/proc/", "/sys/", "/dev/null"):
        assert not [name for name in names if name.startswith(place)]
    assert box.sh("test -e /proc/1 -a -e /dev/null && echo still there") == "still there\n"


def test_a_copy_leaves_room_for_others(engine: Engine) -> None:
    box = Box(engine, True, Tmpfs={"/mem": "size=8m"})
    nearly_all = archive(("f", tarfile.REGTYPE, bytes(range(256)) * 32_000))
    status, message = box.put("/mem", nearly_all)
    assert status == 500
    assert message.startswith("no space left on device: ")
    assert message.endswith(" kept for others")
    assert box.put("/mem", FILE) == (200, "")


def test_what_looks_at_no_mount_makes_no_source(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    box = Box(engine, False, Binds=[f"{source}:/there"])
    source.rmdir()
    assert engine.request("GET", f"/containers/{box.id}/changes")[0] == 200
    assert engine.request("GET", f"/containers/{box.id}/export")[0] == 200
    assert engine.request("POST", f"/commit?container={box.id}&repo=nosource")[0] == 201
    assert not source.exists()
    assert box.get("/there").getnames() == ["there"]
    assert source.exists()  # as dockerd


def test_a_user_of_any_length(box: Box) -> None:
    made = box.engine.request("POST", "/containers/create", {"Image": "busybox", "User": "x" * 150_000})[1]["Id"]
    others = box.engine.request("PUT", f"/containers/{made}/archive?path=/tmp&copyUIDGID=true", FILE)
    assert others[0] in (400, 404, 500)
    assert "worker" not in others[1]["message"]
    assert box.put("/tmp", FILE) == (200, "")


def test_holes_stay_holes(box: Box, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.truncate(64 << 20)
        file.seek((64 << 20) - 5)
        file.write(b"nearl")
    assert box.engine.cli("cp", str(sparse), f"{box.id}:/d/sparse").returncode == 0
    assert box.engine.cli("cp", f"{box.id}:/d/sparse", str(tmp_path / "back")).returncode == 0
    back = (tmp_path / "back").stat()
    assert back.st_size == 64 << 20
    assert back.st_blocks * 512 < 8 << 20
    assert (tmp_path / "back").read_bytes() == sparse.read_bytes()
    if not box.running:
        box.act("start")
    assert int(box.sh("du -k /d/sparse", wait=True).split()[0]) < 8 << 10


def test_copy_onto_itself(box: Box, tmp_path: Path) -> None:
    """A file through the client out of a container and back into its own place."""
    whole = box.engine.request("GET", box.url("/d/."))[1]
    assert box.put("/d", whole) == (200, "")
    # the directory itself has a new time now, as its entries were replaced
    assert box.engine.request("GET", box.url("/d/."))[1][512:] == whole[512:]


def test_compressed_archives(box: Box) -> None:
    import bz2
    import gzip
    import lzma

    import zstandard

    for name, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstandard.compress)):
        assert box.put("/d", pack(archive((name, tarfile.REGTYPE, b"x")))) == (200, "")
        assert box.content(f"/d/{name}") == b"x"


def slow_reader(box: Box, path: str) -> UnixConnection:
    """A GET whose client stops reading after the head."""
    connection = UnixConnection(box.engine.socket, 60)
    connection.request("GET", box.url(path))
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return connection


@pytest.fixture
def stalled(engine: Engine) -> Iterator[tuple[Box, UnixConnection]]:
    """A stopped container with a copy out of it that does not go on."""
    box = Box(engine, True)
    box.sh("dd if=/dev/urandom of=/d/big bs=1M count=64")
    box.act("kill")
    connection = slow_reader(box, "/d/big")
    deadline = time.monotonic() + 30
    while not jobs(box.engine):
        assert time.monotonic() < deadline, "no worker at the container's tree"
        time.sleep(0.02)
    yield box, connection
    connection.close()


def jobs(engine: Engine) -> list[int]:
    """Workers with a mount namespace of their own."""
    found = []
    ours = os.readlink("/proc/self/ns/mnt")
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            inside = "sampan.worker.main" in Path(f"/proc/{entry}/cmdline").read_text() and os.readlink(f"/proc/{entry}/ns/mnt") != ours
            if inside and str(engine.data_root) in Path(f"/proc/{entry}/mountinfo").read_text():
                found.append(int(entry))
    return found


def mounts_of(engine: Engine) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(engine.root) in line]


def test_a_killed_worker_leaves_nothing(stalled: tuple[Box, UnixConnection]) -> None:
    box, connection = stalled
    assert mounts_of(box.engine) == []
    for job in jobs(box.engine):
        os.kill(job, signal.SIGKILL)
    response = connection.getresponse()
    with pytest.raises((OSError, http.client.HTTPException)):
        response.read()
    assert jobs(box.engine) == []
    assert mounts_of(box.engine) == []
    assert box.content("/d/sub/b") == b"two\n"
    box.act("start")


def test_the_end_of_the_client_ends_the_worker(stalled: tuple[Box, UnixConnection]) -> None:
    box, connection = stalled
    connection.close()
    deadline = time.monotonic() + 30
    while jobs(box.engine):
        assert time.monotonic() < deadline, "the worker goes on"
        time.sleep(0.02)
    box.act("start")


@pytest.mark.parametrize(
    "engine_of_each_driver",
    ["live_engine", pytest.param("overlay_engine", marks=pytest.mark.slow)],
    ids=["own-driver", "overlay2"],
    indirect=True,
)
def test_a_start_waits_for_copies_and_ends_those_that_stall(stalled: tuple[Box, UnixConnection]) -> None:
    box, _ = stalled
    starting = threading.Thread(target=box.act, args=("start",))
    starting.start()
    starting.join(60)
    assert not starting.is_alive()
    assert jobs(box.engine) == []
    assert box.sh("grep one /d/a", wait=True) == "one\n"  # written anew by the start


def test_no_worker_process_is_left(box: Box) -> None:
    box.get("/")
    assert jobs(box.engine) == []
    assert [line for line in processes_of("sampan.worker.main") if "defunct" in line] == []
