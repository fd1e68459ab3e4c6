"""Images and stopped containers whose /dev, /proc or /sys is not what it ought to be. What dockerd 28 does was asked by hand."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.tars import tar

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
MakeImage = Callable[..., str]
APPLETS = ("sh", "stat", "cat", "sleep", "echo", "chmod", "tty", "ls", "true", "readlink")
ORDINARY = 'error mounting "{0}" to rootfs at "/{1}": filesystem "{0}" must be mounted on ordinary directory'
NO_DIRECTORY = 'error mounting "tmpfs" to rootfs at "/dev": mount src=tmpfs, dst=/dev: not a directory'
SHOW = "stat -f -c %T /dev/ /proc/ /sys/; stat -c '%F %t %T %a' /dev/null; cat /proc/1/comm; true"
SOUND = ["tmpfs", "proc", "sysfs", "character special file 1 3 666", "sh"]


@pytest.fixture
def make_image(engine: Engine) -> MakeImage:
    """A function that makes an image of busybox out of further entries: name=target of a symlink, or bytes for a file."""

    def make(name: str, entries: dict[str, str | bytes]) -> str:
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w") as archive:
            every = {"bin/busybox": Path(shutil.which("busybox") or "").read_bytes(), **{f"bin/{word}": "busybox" for word in APPLETS}}
            for path, content in {"elsewhere/x": b"", **every, **entries}.items():
                member = tarfile.TarInfo(path)
                member.mode = 0o755
                if isinstance(content, str):
                    member.type, member.linkname = tarfile.SYMTYPE, content
                    archive.addfile(member)
                else:
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        status, answer = engine.request("POST", f"/images/create?fromSrc=-&repo={name}", output.getvalue())
        assert status == 200, answer
        return name

    return make


@pytest.mark.parametrize("place", ["dev", "proc", "sys"])
@pytest.mark.parametrize("content", ["elsewhere", "/elsewhere", "/nowhere", "../../../../dev", b"a file"])
def test_an_images_entry_gives_way_to_a_directory(place: str, content: str | bytes, docker: Docker, make_image: MakeImage) -> None:
    """As dockerd's init layer: it unlinks what is no directory."""
    image = make_image(f"hostile-{place}", {place: content})
    for flags in ([], ["-t"], ["--read-only"]):
        done = docker("run", *flags, "--network=none", "--name", "hostile", image, "sh", "-c", f"{SHOW}; ls elsewhere")
        assert (done.returncode, done.stdout.split()) == (0, [*" ".join(SOUND).split(), "x"]), done.stderr
        assert docker("diff", "hostile").stdout == ""
        assert docker("start", "-a", "hostile").returncode == 0
        docker("rm", "hostile")


@pytest.mark.parametrize(
    ("place", "entry", "failure", "code"),
    [
        ("dev", ("f", "dev", "x"), NO_DIRECTORY, 127),
        ("proc", ("l", "proc", "elsewhere"), ORDINARY.format("proc", "proc"), 128),
        ("proc", ("f", "proc", "x"), ORDINARY.format("proc", "proc"), 128),
        ("sys", ("l", "sys", "elsewhere"), ORDINARY.format("sysfs", "sys"), 128),
        ("sys", ("f", "sys", "x"), ORDINARY.format("sysfs", "sys"), 128),
    ],
)
def test_what_is_copied_there_later_is_refused(
    place: str, entry: tuple[str, str, str], failure: str, code: int, engine: Engine, docker: Docker, make_image: MakeImage
) -> None:
    image = make_image("plain", {})
    docker("create", "--network=none", "--name", "hostile", image, "true")
    assert engine.request("PUT", "/containers/hostile/archive?path=/", tar(entry))[0] == 200
    done = docker("start", "-a", "hostile")
    assert done.returncode == 1
    assert failure in done.stderr
    state = engine.request("GET", "/containers/hostile/json")[1]["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", code, 0)
    assert failure in state["Error"]
    assert engine.request("GET", "/containers/hostile/json")[1]["NetworkSettings"]["SandboxKey"] == ""
    # nothing half-made: with the directory back it starts
    assert engine.request("PUT", "/containers/hostile/archive?path=/", tar(("d", place)))[0] == 200
    assert docker("start", "-a", "hostile").returncode == 0


@pytest.mark.parametrize("flag", ["--volume=/data", "--volume=/tmp:/data", "--tmpfs=/data"])
@pytest.mark.parametrize("place", ["/proc", "/proc/sys", "proc/self"])
def test_nothing_is_mounted_over_proc_by_a_link_of_the_image(flag: str, place: str, docker: Docker, make_image: MakeImage) -> None:
    image = make_image("hostile-proc", {"data": place})
    done = docker("run", "--rm", "--network=none", flag, image, "true")
    assert done.returncode == 125
    assert '"/data" cannot be mounted because it is inside /proc' in done.stderr


def test_a_link_copied_to_dev_later_is_followed_inside(tmp_path: Path, engine: Engine, docker: Docker, make_image: MakeImage) -> None:
    """The same path leads to the host's devices when it is resolved outside: the console would be a terminal of the host's."""
    (tmp_path / "link").symlink_to("/dev")
    image = make_image("plain", {f"{tmp_path}/link/x"[1:]: b""})
    docker("create", "-t", "--network=none", "--name", "hostile", image, "sh", "-c", f"{SHOW}; stat -c %i /dev/console /dev/pts/0")
    assert engine.request("PUT", "/containers/hostile/archive?path=/", tar(("l", "dev", f"{tmp_path}/link")))[0] == 200
    done = docker("start", "-a", "hostile")
    *sound, console, terminal = done.stdout.split()
    assert (sound, console) == (" ".join(SOUND).split(), terminal), done.stderr


@pytest.mark.parametrize(
    "entries", [{"dev": "/elsewhere"}, {"dev": "../../../../dev"}, {"dev/console": "/dev/pts/0"}, {"dev/pts": "/elsewhere"}]
)
def test_the_terminal_is_the_containers_own(entries: dict[str, str | bytes], docker: Docker, make_image: MakeImage) -> None:
    """By a name resolved outside, an image could have had a terminal of the host's bound on its /dev/console."""
    image = make_image("hostile-terminal", entries)
    script = "tty; for f in /dev/console /dev/pts/0; do stat -c '%F %t:%T' $f; stat -c %i $f; done; echo /dev/pts/*"
    done = docker("run", "--rm", "-t", "--network=none", image, "sh", "-c", script)
    lines = done.stdout.split("\r\n")
    kind, inode = "character special file 88:0", lines[2]
    assert lines == ["/dev/pts/0", kind, inode, kind, inode, "/dev/pts/0 /dev/pts/ptmx", ""], done.stderr


@pytest.mark.parametrize("content", ["passwd", "/etc/passwd", b"x"])
def test_a_device_replaces_what_the_image_has_there(content: str | bytes, docker: Docker, make_image: MakeImage) -> None:
    """A chmod by name would go through the link."""
    image = make_image("hostile-device", {"etc/passwd": b"root:x:0:0::/:/bin/sh\n", "etc/zero": content})
    script = "stat -c '%F %t:%T %a' /etc/zero; stat -c '%F %a' /etc/passwd"
    done = docker("run", "--rm", "--network=none", "--device=/dev/zero:/etc/zero", image, "sh", "-c", script)
    assert done.stdout == "character special file 1:5 666\nregular file 755\n", done.stderr


MASKED = "for f in /proc/keys /proc/timer_list /proc/kcore; do [ -e $f ] && stat -c '%F %t:%T' $f; done"


@pytest.mark.parametrize("content", ["zero", "/etc/passwd", b"readable"])
def test_masks_are_null_devices_whatever_the_image_has(content: str | bytes, docker: Docker, make_image: MakeImage) -> None:
    image = make_image("hostile-null", {"dev/null": content, "dev/zero": b"x"})
    done = docker("run", "--rm", "--network=none", image, "sh", "-c", MASKED)
    assert set(done.stdout.splitlines()) == {"character special file 1:3"}, done.stderr


@pytest.mark.parametrize("source", ["file", "/dev/zero"])
def test_something_else_mounted_on_the_null_device_is_no_mask(
    source: str, tmp_path: Path, engine: Engine, docker: Docker, make_image: MakeImage
) -> None:
    """CVE-2025-31133: what is bound over the masked paths would be readable, or a device of the container's choice."""
    (tmp_path / "file").write_text("readable")
    image = make_image("plain", {})
    done = docker("run", "--network=none", "--name", "hostile", "-v", f"{tmp_path / source}:/dev/null", image, "sh", "-c", MASKED)
    if done.returncode == 0:
        assert set(done.stdout.splitlines()) == {"character special file 1:3"}
    else:
        assert (done.returncode, done.stdout) == (125, "")
        assert "/dev/null" in done.stderr
        assert engine.request("GET", "/containers/hostile/json")[1]["State"]["Status"] == "created"
