"""cp, diff and export typed into docker's client and into ours: the same words, codes and files."""

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import CLI, Engine

pytestmark = pytest.mark.root

Run = Callable[..., subprocess.CompletedProcess[str]]
CHANGES = """
echo new > /new; mkdir -p /nd/sub; echo q > /nd/sub/f; echo more >> /lib/a; chmod 600 /lib/b; ln /lib/sub/c /lib/sub/c2; rm /lib/sub/d
mv /ren /renamed; rm -r /opq; mkdir /opq; echo n > /opq/n; rm -r /typed; echo f > /typed; rm /lib.x; mkdir /lib.x; echo i > /lib.x/i
rm /lib-y; ln -s /etc /lib-y; chown -h 5:6 /lnk; touch /etc/passwd; mkdir /home/t; rmdir /home/t; chmod 700 /home; mknod /fifo p
rm /abs; echo re > /abs; echo x > /tmp/x; rm /tmp/x; touch -r /lib/sub/c /lib/sub/c
"""
LISTED = """C /abs
C /etc
C /etc/passwd
A /fifo
C /home
C /lib
C /lib-y
C /lib.x
A /lib.x/i
C /lib/a
C /lib/b
C /lib/sub
A /lib/sub/c2
D /lib/sub/d
C /lnk
A /nd
A /nd/sub
A /nd/sub/f
A /new
C /opq
A /opq/n
D /opq/o1
D /opq/o2
D /ren
A /renamed
A /renamed/x
A /renamed/y
A /renamed/y/z
C /typed
"""
"""What dockerd 20.10 and 28.5 list for CHANGES, sorted."""


def image() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, text: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mtime = kind, len(text), link, 1_000_000_000
            info.mode = 0o755 if kind == tarfile.DIRTYPE or name.startswith("bin/") else 0o644
            tar.addfile(info, io.BytesIO(text))

        for name in ("bin", "etc", "home", "lib", "lib/sub", "tmp", "proc", "sys", "dev"):
            add(name, tarfile.DIRTYPE)
        add("bin/busybox", text=Path("/bin/busybox").read_bytes())
        for applet in ("sh", "mkdir", "chmod", "ln", "rm", "mv", "chown", "touch", "rmdir", "mknod", "sleep", "cat"):
            add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        for name in ("etc/passwd", "lib/a", "lib/b", "lib/sub/c", "lib/sub/d", "lib.x", "lib-y", "ren/x", "ren/y/z", "opq/o1", "opq/o2"):
            add(name, text=b"text")
        add("typed/f", text=b"text")
        add("lnk", tarfile.SYMTYPE, link="lib/sub")
        add("abs", tarfile.SYMTYPE, link="/etc/passwd")
        add("dangling", tarfile.SYMTYPE, link="/nowhere/x")
    return buffer.getvalue()


@pytest.fixture
def engine(engine_of_each_driver: Engine) -> Engine:
    """Instead of the session's one: each test with both storage drivers."""
    return engine_of_each_driver


@pytest.fixture
def files_image(engine: Engine) -> str:
    if engine.request("GET", "/images/files:1/json")[0] != 200:
        assert engine.cli("import", "-", "files:1", stdin=image()).returncode == 0
    return "files:1"


@pytest.fixture(params=["docker", "sampan"])
def program(request: pytest.FixtureRequest, docker_path: str) -> list[str]:
    """One of the two clients."""
    return [docker_path] if request.param == "docker" else CLI


@pytest.fixture
def client(program: list[str], engine: Engine) -> Run:
    """A function that runs the client; what docker's own logs beside its messages is left out."""

    def run(*args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        done = engine.run_client(program, *args, stdin=stdin)
        done.stderr = "".join(line for line in done.stderr.splitlines(True) if not line.startswith("time="))
        return done

    return run


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("src/d/e", "dst"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "src/f").write_text("hello\n")
    (tmp_path / "src/d/two").write_text("two\n")
    (tmp_path / "src/d/l").symlink_to("two")
    (tmp_path / "src/ld").symlink_to("d")
    (tmp_path / "src/bad").symlink_to("nowhere")
    return tmp_path


NOT_FOUND = "Error response from daemon: Could not find the file {} in container box\n"
REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("src/f", "dst"), "must specify at least one container source\n"),
    (("box:/a", "other:/b"), "copying between containers is not supported\n"),
    (("-", "-"), "must specify at least one container source\n"),
    (("", "box:/x"), "source can not be empty\n"),
    (("src/f", ""), "destination can not be empty\n"),
    (("src/f", "none:/x"), "Error response from daemon: No such container: none\n"),
    (("none:/x", "."), "Error response from daemon: No such container: none\n"),
    (("src/f", "box:/tmp/new/"), "no such directory\n"),
    (("src/f", "box:/nodir/x"), NOT_FOUND.format("/nodir")),
    (("src/f", "box:/dangling"), NOT_FOUND.format("/nowhere")),
    (("src/f", "box:"), "no such directory\n"),
    (("src/d", "box:/etc/passwd"), "cannot copy directory\n"),
    (("src/f/", "box:/tmp"), "not a directory\n"),
    (("src/nope", "box:/tmp"), "lstat {here}/src/nope: no such file or directory\n"),
    (("-L", "src/bad", "box:/tmp"), "lstat {here}/src/nowhere: no such file or directory\n"),
    (("-", "box:/etc/passwd"), 'destination "box:/etc/passwd" must be a directory\n'),
    (("box:/etc/passwd", "nodir/p"), 'invalid output path: directory "{here}/nodir" does not exist\n'),
    (("box:/etc/passwd", "dst/nd/"), "no such directory\n"),
    (("box:/lib", "src/f"), "cannot copy directory\n"),
    (("box:/etc/passwd", "/dev/null"), 'invalid output path: "/dev/null" must be a directory or a regular file: got a device\n'),
    (("box:/nope", "dst"), NOT_FOUND.format("/nope")),
    (("-L", "box:/dangling", "dst"), NOT_FOUND.format("/nowhere/x")),
    (("box:/etc/passwd/", "dst"), "Error response from daemon: lstat /etc/passwd/: not a directory\n"),
    (("box:", "dst/x"), "Error response from daemon: bad parameter: pathcannot be empty\n"),
]


def test_refusals(client: Run, source: Path, files_image: str) -> None:
    assert client("create", "--name", "box", files_image, "sh").returncode == 0
    for args, message in REFUSED:
        done = client("cp", *args)
        assert (args, done.returncode, done.stderr) == (args, 1, message.replace("{here}", str(source)))


def listing(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) + (f" -> {os.readlink(path)}" if path.is_symlink() else "") for path in top.rglob("*"))


def test_out_of_a_container(client: Run, source: Path, files_image: str) -> None:
    assert client("create", "--name", "box", files_image, "sh").returncode == 0
    for args in (
        ("box:/etc/passwd", "dst"),
        ("box:/etc/passwd", "dst/p2"),
        ("box:/lib", "dst"),
        ("box:/lib/", "dst/lib2"),
        ("box:/lib/.", "dst/lib3"),
        ("box:/lib/sub/.", "dst/lib3"),
        ("box:lnk", "dst"),
        ("-L", "box:/lnk", "dst/followed"),
        ("box:/lnk/.", "dst/inside"),
        ("-L", "box:/abs", "dst"),
    ):
        done = client("cp", *args)
        assert (args, done.returncode, done.stdout + done.stderr) == (args, 0, "")
    lib = ["a", "b", "sub", "sub/c", "sub/d"]
    assert listing(source / "dst") == sorted(
        ["passwd", "p2", "lib", "lib2", "lib3", "lib3/c", "lib3/d", "lnk -> lib/sub", "followed", "followed/c", "followed/d", "abs"]
        + ["inside", "inside/c", "inside/d"]
        + [f"{top}/{name}" for top in ("lib", "lib2", "lib3") for name in lib]
    )


def test_into_a_container(client: Run, source: Path, files_image: str, engine: Engine) -> None:
    assert client("run", "-d", "--name", "box", files_image, "sleep", "1000").returncode == 0
    for args in (
        ("src/f", "box:/tmp"),
        ("src/f", "box:/tmp/named"),
        ("src/f", "box:lnk"),
        ("src/d", "box:/tmp"),
        ("src/d/.", "box:/tmp/content"),
        ("src/d/", "box:/tmp/dir"),
        ("src/ld", "box:/tmp"),
        ("-L", "src/ld", "box:/tmp/followed"),
        ("src/ld/", "box:/tmp/slash"),
        ("src/bad", "box:/tmp"),
        ("-q", "src/f", "box:/abs"),
    ):
        done = client("cp", *args)
        assert (args, done.returncode, done.stdout + done.stderr) == (args, 0, "")
    _, body = engine.request("GET", "/containers/box/archive?path=/tmp/.")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        names = [f"{item.name} -> {item.linkname}" if item.issym() else item.name for item in tar.getmembers()[1:]]
    whole = ["", "/e", "/l -> two", "/two"]
    top = ["./bad -> nowhere", "./f", "./ld -> d", "./named"]
    assert sorted(names) == sorted([*top, *(f"./{name}{part}" for name in ("content", "d", "dir", "followed", "slash") for part in whole)])
    assert client("exec", "box", "cat", "/lib/sub/f", "/etc/passwd").stdout == "hello\nhello\n"


def test_archive_mode_gives_files_to_the_containers_user(client: Run, source: Path, files_image: str, engine: Engine) -> None:
    assert client("create", "--name", "box", "--user", "5:6", files_image, "sh").returncode == 0
    os.chown(source / "src/d/two", 1234, 1235)
    for args in (("src/d", "box:/tmp/as-it-is"), ("-a", "src/d", "box:/tmp/users")):
        assert client("cp", *args).returncode == 0
    _, body = engine.request("GET", "/containers/box/archive?path=/tmp/.")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        owners = {item.name: (item.uid, item.gid) for item in tar.getmembers()}
    assert owners["./as-it-is/two"] == (1234, 1235)
    assert owners["./users"] == owners["./users/two"] == owners["./users/l"] == (5, 6)


def test_archives_through_pipes(client: Run, source: Path, files_image: str, engine: Engine, program: list[str]) -> None:
    assert client("create", "--name", "box", files_image, "sh").returncode == 0
    packed = subprocess.run(["tar", "c", "-C", "src", "d"], check=True, capture_output=True).stdout
    assert client("cp", "-", "box:/tmp", stdin=packed).returncode == 0
    out = subprocess.run([*program, "cp", "box:/tmp/d", "-"], check=True, capture_output=True, env=engine.environment()).stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.getnames() == ["d", "d/e", "d/l", "d/two"]
    assert client("cp", "-", "box:/tmp", stdin=b"junk").stderr == "Error response from daemon: unexpected EOF\n"


def test_the_words_on_success(client: Run, source: Path, files_image: str) -> None:
    assert client("create", "--name", "box", files_image, "sh").returncode == 0
    assert client("cp", "--quiet=false", "src/f", "box:/tmp/x").stderr == "Successfully copied 2.05kB to box:/tmp/x\n"
    assert client("cp", "--quiet=false", "box:/tmp/x", "dst").stderr == f"Successfully copied 2.05kB to {source}/dst\n"


def test_diff(client: Run, files_image: str, tmp_path: Path) -> None:
    assert client("diff", "none").returncode == 1
    assert client("run", "--name", "box", files_image, "sh", "-c", CHANGES).returncode == 0
    assert client("diff", "box").stdout == LISTED


def test_diff_of_a_running_container(client: Run, files_image: str) -> None:
    assert client("run", "-d", "--name", "box", files_image, "sleep", "1000").returncode == 0
    assert client("diff", "box").stdout == ""
    assert client("exec", "box", "sh", "-c", "rm /lib/a; echo x > /dev/shm/x; echo x > /tmp/x").returncode == 0
    assert client("diff", "box").stdout == "C /lib\nD /lib/a\nC /tmp\nA /tmp/x\n"


def test_export(client: Run, files_image: str, tmp_path: Path, engine: Engine) -> None:
    assert client("run", "--name", "box", files_image, "sh", "-c", CHANGES).returncode == 0
    assert client("export", "-o", str(tmp_path / "out.tar"), "box").returncode == 0
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = tar.getnames()
        assert {".dockerenv", "new", "opq/n", "lib.x/i", "renamed/y/z"} <= set(names)
        assert not {name for name in names if ".wh." in name or name.startswith(("ren/", "opq/o", "typed/"))}
    assert os.listdir(tmp_path) == ["out.tar"]
    assert client("export", "-o", str(tmp_path), "box").stderr == "failed to export container: cannot write to a directory\n"
    assert client("export", "none").stderr == "Error response from daemon: No such container: none\n"
    assert client("import", str(tmp_path / "out.tar"), "again:1").returncode == 0
    assert client("run", "--rm", "again:1", "cat", "/new").stdout == "new\n"
