"""What ADD fetches and unpacks, contexts of every compression, and archives that mean harm."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard

from tests.golden.build.record import caller, prepare
from tests.integration.build.conftest import Build
from tests.support.builds import Content, build, context
from tests.support.disks import tmpfs
from tests.support.engine import Engine
from tests.support.serving import Serving

Docker = Callable[..., "subprocess.CompletedProcess[str]"]
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


# URLs


class Web(Serving):
    """A server whose answer is what a test says."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = [b"content"]
        self.pause = 0.0
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                for name, value in web.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in web.pieces:
                    self.wfile.write(piece)
                    time.sleep(web.pause)

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(Handler)
        self.url = f"http://{self.host}"


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


def test_progress_is_told_now_and_then(run_build: Build, web: Web) -> None:
    web.pieces, web.pause = [b"x"] * 300, 0.002
    web.headers = {"Content-Length": "300"}
    begun = time.monotonic()
    built = run_build(f"FROM buildbase\nADD {web.url}/f /f\n")
    lines = [line for line in built.lines if line.get("status") == "Downloading"]
    assert 2 <= len(lines) <= (time.monotonic() - begun) / 0.1 + 3
    assert lines[-1]["progressDetail"] == {"current": 300, "total": 300}
    assert lines[-1]["progress"].startswith("[=====")
    web.headers = {}
    built = run_build(f"FROM buildbase\nADD {web.url}/f /g\n")
    assert [line for line in built.lines if "progress" in line][-1]["progress"].strip() == "300B"


@pytest.mark.parametrize(
    ("modified", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1445412480),
        ("Wed, 21 Oct 2015 09:28:00 +0200", 1445412480),
        ("", 0),
        ("yesterday", 0),
        ("Wed, 21 Oct 2015 07:28:00 +9999", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_times_of_urls(run_build: Build, web: Web, modified: str, seconds: int) -> None:
    web.headers = {"Last-Modified": modified} if modified else {}
    assert f"time {seconds}\n" in run_build(f"FROM buildbase\nADD {web.url}/f /f\nRUN stat -c 'time %Y' /f\n", nocache=1).text


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        ("/a/f%20g", "", "f g"),
        ("/a/", 'attachment; filename="h"', "h"),
        ("/", 'attachment; filename="../../i"', "i"),
        ("/..%2f..%2fj", "", "j"),
        ("/?x=1", "attachment", ""),
        ("/", 'attachment; filename=".."', ""),
    ],
)
def test_names_of_urls(run_build: Build, web: Web, path: str, disposition: str, name: str) -> None:
    web.headers = {"Content-Disposition": disposition} if disposition else {}
    built = run_build(f"FROM buildbase\nADD {web.url}{path} /d/\nRUN ls -A /d\n", nocache=1)
    if name:
        assert f"\n{name}\n" in built.text
    else:
        assert "cannot determine filename for source" in built.error


# compressions


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_add_unpacks(run_build: Build, kind: str) -> None:
    data = COMPRESSIONS[kind](context({"in": None, "in/f": "unpacked\n", "in/l": {"link": "f"}}))
    files: dict[str, Content] = {"archive": data, "plain": COMPRESSIONS[kind](b"no archive\n")}
    text = "FROM buildbase\nADD archive plain /d/\nCOPY archive /copied\nRUN cat /d/in/l; ls -A /d; wc -c < /copied\n"
    built = run_build(text, files, nocache=1)
    assert built.error == ""
    assert f"unpacked\nin\nplain\n{len(data)}\n" in built.text


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_contexts(run_build: Build, docker: Docker, engine: Engine, kind: str) -> None:
    assert run_build("FROM buildbase\n").error == ""
    data = COMPRESSIONS[kind](context({"Dockerfile": "FROM buildbase\nCOPY f /f\nRUN cat /f\n", "f": f"context of {kind}\n"}))
    assert f"context of {kind}\n" in docker("build", "--no-cache", "-", stdin=data).stdout
    assert f"context of {kind}\n" in engine.cli("build", "--no-cache", "-", stdin=data).stdout


# archives that mean harm


def members(*entries: tuple[str, dict[str, object]]) -> bytes:
    """A tar of members with these fields; `data` is the content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, fields in entries:
            info = tarfile.TarInfo(name)
            data = fields.pop("data", b"")
            assert isinstance(data, bytes)
            for field, value in fields.items():
                setattr(info, field, value)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the host's that everybody may write to."""
    made = tmp_path / "victim"
    made.mkdir()
    made.chmod(0o777)
    (made / "secret").write_text("secret of the host\n")
    return made


def refused(run_build: Build, engine: Engine, victim: Path, archive: bytes) -> str:
    """Why an ADD of it fails, after a look that nothing is left of it anywhere."""
    built = run_build("FROM buildbase\nADD archive /d/\n", {"archive": archive})
    assert built.error
    assert [path.name for path in victim.iterdir()] == ["secret"]
    deadline = time.monotonic() + 10
    while (left := sorted(os.listdir(engine.data_root / "build"))) != ["mounts", "void"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == ["mounts", "void"]
    elsewhere = ["-name", "sampan-escaped*", "-not", "-path", "*/overlay/trash/*"]  # other tests' layers, on their way out
    found = subprocess.run(["find", str(engine.root), "/tmp", *elsewhere], capture_output=True, text=True, check=False)
    assert found.stdout == ""
    return built.error


@pytest.mark.parametrize("name", ["../sampan-escaped", "a/../../sampan-escaped", "/../../sampan-escaped", "./../sampan-escaped"])
def test_members_that_lead_out(run_build: Build, engine: Engine, victim: Path, name: str) -> None:
    assert "breakout" in refused(run_build, engine, victim, members((name, {"data": b"x"})))


def test_a_member_longer_than_its_archive(run_build: Build, engine: Engine, victim: Path) -> None:
    info = tarfile.TarInfo("sampan-escaped")
    info.size = 1 << 62
    assert refused(run_build, engine, victim, info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_an_archive_that_is_cut(run_build: Build, engine: Engine, victim: Path, kind: str) -> None:
    data = COMPRESSIONS[kind](members(("sampan-escaped", {"data": os.urandom(3_000_000)})))
    assert refused(run_build, engine, victim, data[: len(data) // 2])


@pytest.mark.parametrize("up", ["", "../../../../../../../../.."])
def test_links_lead_nowhere_else(run_build: Build, victim: Path, up: str) -> None:
    """While it is unpacked, a link's root is the destination, as docker has it: what is written through it stays in there."""
    archive = members(
        ("/absolute", {"data": b"absolute\n"}),
        ("read", {"type": tarfile.SYMTYPE, "linkname": up + str(victim / "secret")}),
        ("inner", {"type": tarfile.DIRTYPE, "mode": 0o755}),
        ("within", {"type": tarfile.SYMTYPE, "linkname": up + "/inner"}),
        ("within/f", {"data": b"through\n"}),
    )
    text = "FROM buildbase\nADD archive /d/\nRUN cat /d/absolute /d/inner/f; cat /d/read\n"
    built = run_build(text, {"archive": archive}, nocache=1)
    assert "absolute\nthrough\n" in built.text
    assert "secret of the host" not in built.text
    archive = members(("out", {"type": tarfile.SYMTYPE, "linkname": up + str(victim)}), ("out/f", {"data": b"through"}))
    run_build("FROM buildbase\nADD archive /d/\n", {"archive": archive})
    assert [path.name for path in victim.iterdir()] == ["secret"]


@pytest.mark.parametrize("target", ["../../../../../../etc/passwd", "/etc/passwd", "/proc/1/environ"])
def test_hard_links_lead_nowhere_else(run_build: Build, target: str) -> None:
    archive = members(("hard", {"type": tarfile.LNKTYPE, "linkname": target}))
    built = run_build("FROM buildbase\nADD archive /d/\nRUN cat /d/hard\n", {"archive": archive}, nocache=1)
    assert built.error
    assert "nobody" not in built.text  # the host's; the image has no such user


def test_devices_open_for_nobody(run_build: Build) -> None:
    archive = members(
        ("memory", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 1, "mode": 0o666}),
        ("disk", {"type": tarfile.BLKTYPE, "devmajor": 7, "devminor": 0, "mode": 0o666}),
        ("f", {"data": b"beside\n"}),
    )
    text = "FROM buildbase\nADD archive /d/\nRUN cat /d/f; for d in memory disk; do head -c 1 /d/$d | wc -c; done\n"
    built = run_build(text, {"archive": archive}, nocache=1)
    assert "beside\n" in built.text
    assert built.text.count("Operation not permitted") == 2


def test_a_bomb_fills_no_disk(make_engine: Callable[..., Engine]) -> None:
    with TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as place, tmpfs(Path(place) / "s", "size=200m", lazily=True) as small:
        engine = make_engine(place=small)
        engine.start()
        call = caller(engine.socket)
        prepare(call)
        info = tarfile.TarInfo("zeros")
        info.size = 1 << 30
        squeezed = zstandard.ZstdCompressor().compressobj()
        data = squeezed.compress(info.tobuf()) + b"".join(squeezed.compress(bytes(1 << 20)) for _ in range(1 << 10)) + squeezed.flush()
        for files in ({"Dockerfile": "FROM buildbase\nADD bomb /d/\n", "bomb": data}, {"Dockerfile": "FROM buildbase\n", "bomb": data}):
            built = build(call, files if "ADD" in files["Dockerfile"] else COMPRESSIONS["zst"](context({"zeros": bytes(300 << 20)})))
            assert "no space left on device" in built.error + built.message
        assert build(call, {"Dockerfile": "FROM buildbase\nRUN echo lives > /f\n"}).error == ""
        engine.stop()
