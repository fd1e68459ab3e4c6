"""`sampan build` beside `docker build`, without a builder: what they send and say to a daemon that only listens, byte for byte."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from sampan.testing.fakedaemon import FakeDaemon

SUCCESS = (
    b'{"stream":"Step 1/1 : FROM scratch"}\n{"stream":"\\n"}\n{"stream":" ---\\u003e 0123456789ab\\n"}\n'
    b'{"stream":"\\u001b[91mwarned\\n\\u001b[0m"}\n{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"aa"}\n'
    b'{"aux":{"ID":"sha256:0123"}}\n{"stream":"Successfully built 0123456789ab\\n"}\n'
)
FAILED = (
    b'{"stream":"Step 1/1 : RUN exit 4\\n"}\n'
    b'{"errorDetail":{"code":4,"message":"The command \'x\' returned a non-zero code: 4"},"error":"x"}\n'
)
REFUSED = b'{"message":"dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)"}\n'
_NOTICE = re.compile(r"DEPRECATED: The legacy builder.*?\n\n", re.DOTALL)
_RANDOM = re.compile(rb"\.dockerfile\.[0-9a-f]{20}")


class Outcome(NamedTuple):
    """One client's run."""

    code: int
    out: str
    err: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


class Clients:
    """Both clients, a daemon, and a directory to build in."""

    def __init__(self, tmp_path: Path, docker: str) -> None:
        self.daemon = FakeDaemon(tmp_path / "socket", lambda _: 0, version="1.50")
        self.daemon.build_answer = (200, SUCCESS)
        self.directory = tmp_path / "here"
        self.directory.mkdir()
        (self.directory / "Dockerfile").write_text("FROM scratch\nFOO bar\nLABEL a=b\n")
        (tmp_path / "config").mkdir()
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "config"), "DOCKER_BUILDKIT": "0",
            "DOCKER_HOST": f"unix://{tmp_path}/socket", "FROM_HERE": "value",
        }  # fmt: skip
        self.programs = {"docker": [docker], "sampan": [sys.executable, "-m", "sampan.cli"]}

    def run(self, program: str, *arguments: str, stdin: bytes = b"") -> Outcome:
        """One client's."""
        sent = len(self.daemon.uploads)
        done = subprocess.run(
            [*self.programs[program], *arguments],
            input=stdin,
            capture_output=True,
            cwd=self.directory,
            env=self.environment,
            timeout=60,
            check=False,
        )
        headers, body = self.daemon.uploads[-1] if len(self.daemon.uploads) > sent else ({}, b"")
        headers = {name: value for name, value in headers.items() if name != "user-agent"}
        query = dict(self.daemon.log[-1]["query"]) if body else {}
        if query.get("dockerfile", [""])[0].startswith(".dockerfile."):
            query["dockerfile"] = [".dockerfile."]
        err = re.sub(r"time=.*?level=error.*\n", "", _NOTICE.sub("", done.stderr.decode()))
        return Outcome(done.returncode, done.stdout.decode(), err.replace("docker", "sampan"), query, headers, body)

    def same(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """What both do, which has to be the same."""
        theirs, ours = (self.run(program, *arguments, stdin=stdin) for program in self.programs)
        assert entries(ours.body) == entries(theirs.body)
        assert len(ours.body) == len(theirs.body)
        assert ours._replace(body=b"") == theirs._replace(body=b"")
        return ours


def entries(archive: bytes) -> list[tuple[object, ...]]:
    """All that a tar says, in its order; bytes of headers may differ, where Go puts its version."""
    if not archive:
        return []
    with tarfile.open(fileobj=io.BytesIO(archive + bytes(1024)), errors="surrogateescape") as read:
        found = []
        for entry in read:
            file = read.extractfile(entry) if entry.isreg() else None
            content = sha256(file.read()).hexdigest() if file else ""
            numbers = (entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.devmajor, entry.devminor)
            found.append((entry.name, entry.type, numbers, entry.linkname, entry.pax_headers, content))
        return found


@pytest.fixture
def clients(tmp_path: Path, docker_path: str) -> Iterator[Clients]:
    made = Clients(tmp_path, docker_path)
    with made.daemon:
        yield made


def nasty(directory: Path) -> None:
    """Files of all kinds, names and modes."""
    (directory / "sub/deep/deeper").mkdir(parents=True)
    (directory / "sub/deep/deeper/file").write_bytes(os.urandom(3_000_000))
    (directory / "empty").mkdir(mode=0o700)
    (directory / "empty file").touch(0o600)
    (directory / "größe-→").write_text("x")
    (directory / ("long-" + "n" * 150)).write_text("long")
    (directory / "sub" / ("d" * 90)).mkdir()
    (directory / "sub" / ("d" * 90) / ("f" * 90)).write_text("longer")
    (directory / "setuid").write_text("s")
    (directory / "setuid").chmod(0o6755)
    (directory / "sticky").mkdir()
    (directory / "sticky").chmod(0o1777)
    (directory / "to-file").symlink_to("Dockerfile")
    (directory / "to-outside").symlink_to("/etc/passwd")
    (directory / "dangling").symlink_to("n" * 120)
    (directory / "to-umlaut").symlink_to("größe")
    (directory / "to-directory").symlink_to("sub")
    os.link(directory / "setuid", directory / "zz-linked")
    os.link(directory / "to-file", directory / "to-file-linked")
    os.mkfifo(directory / "fifo")
    (directory / ".hidden").write_text("h")
    (directory / ".wh.whiteout").write_text("w")
    (directory / "a.b").write_text("after a/?")
    (directory / "a").mkdir()
    (directory / "a/b").write_text("before a.b?")
    os.utime(directory / "a/b", ns=(-5_000_000_000, -1_500_000_000))
    os.utime(directory / ".hidden", ns=(1, 1_999_999_999))
    os.chown(directory / "a/b", 1234, 5678)
    os.setxattr(directory / "a.b", "user.kept", b"not")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(directory / "setuid", "security.capability", capability)


@pytest.mark.root
def test_a_nasty_directory_is_sent_as_docker_sends_it(clients: Clients) -> None:
    nasty(clients.directory)
    sent = clients.same("build", ".")
    assert sent.code == 0
    assert "\nStep 1/1 : FROM scratch\n" in sent.out
    assert len(sent.body) > 3_000_000


@pytest.mark.root
@pytest.mark.parametrize(
    "ignore",
    [
        "*\n!sub/deep\n",
        "**\n!a*\n",
        "sub\n!sub/deep/deeper/file\n",
        "sub/**\n!sub/deep/*\n",
        "# comment\n\n  */*r*  \n/to-*\nempty/\n",
        "Dockerfile\n.dockerignore\n",
        "*\n",
        "!*/deep\n**/*e*\n",
        "a\n!a/b\na/*\n!a/b\n",
        "[a-s]*\n!s[^e]*\n",
        "./sub/../empty*\n\\.hidden\n",
        "**/f*\n!**/file\n",
    ],
)
def test_ignored_files_are_dockers(clients: Clients, ignore: str) -> None:
    nasty(clients.directory)
    (clients.directory / ".dockerignore").write_text(ignore)
    assert clients.same("build", ".").code == 0


ALL_OPTIONS = (
    "-t", "x:1", "-t", "example.org/y", "--build-arg", "A=1", "--build-arg", "A=2", "--build-arg", "FROM_HERE", "--build-arg", "NOT_HERE",
    "--label", "l=1", "--label", "k", "--ulimit", "nofile=10:20", "--ulimit", "core=1", "--add-host", "a:1.2.3.4", "--cache-from", "b,c",
    "--cache-from", "d", "--memory", "1g", "--memory-swap", "-1", "--shm-size", "1m", "-c", "5", "--cpu-period", "1", "--cpu-quota", "2",
    "--cpuset-cpus", "0", "--cpuset-mems", "0", "--cgroup-parent", "/x", "--isolation", "default", "--no-cache", "--force-rm", "--rm=false",
    "--pull", "--security-opt", "a,b", "--network", "host", "--target", "stage", "--platform", "linux/x86_64",
)  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [ALL_OPTIONS, ("-q",), ("--network", "default", "--pull=false"), ("--compress=false",), ("--platform", "arm64"), ("-f", "Dockerfile")],
    ids=lambda options: " ".join(options)[:30],
)
def test_options_go_over_the_wire_as_dockers(clients: Clients, options: tuple[str, ...]) -> None:
    assert clients.same("build", *options, ".").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("nopath",),
        ("-f", "nofile", "."),
        ("-f", "no/such/file", "."),
        ("-f", "-", "-"),
        ("-f", "x", "-"),
        ("-t", "Bad:", "."),
        ("-t", "a:b:c", "."),
        ("--add-host", "x", "."),
        ("--label", "=x", "."),
        ("--build-arg", "=x", "."),
        ("-m", "1x", "."),
        ("--ulimit", "x", "."),
        ("-c", "x", "."),
        ("--unknown", "."),
        ("-f", "", "sub"),
        (),
        (".", "."),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_mistakes_are_told_as_docker_tells_them(clients: Clients, arguments: tuple[str, ...]) -> None:
    (clients.directory / "sub").mkdir()
    assert clients.same("build", *arguments, stdin=b"FROM scratch\n").code != 0


def test_bad_ignore_files_are_told_as_docker_tells_them(clients: Clients) -> None:
    for text in ("a[\n", "!\n", "x\\\n"):
        (clients.directory / ".dockerignore").write_text(text)
        assert clients.same("build", ".").code == 1


def test_failures_and_their_exit_codes_are_dockers(clients: Clients) -> None:
    clients.daemon.build_answer = (200, FAILED)
    assert clients.same("build", ".").code == 4
    assert clients.same("build", "-q", ".").code == 4
    clients.daemon.build_answer = (500, b'{"message":"no space"}')
    assert clients.same("build", ".").err == "Error response from daemon: no space\n"
    clients.daemon.build_answer = (200, b'{"stream":"sha256:abc\\n"}\n')
    assert clients.same("build", "-q", ".").out == "sha256:abc\n"


def test_ids_are_written_as_docker_writes_them(clients: Clients) -> None:
    file = clients.directory.parent / "iid"
    for quiet in ((), ("-q",)):
        written = set()
        for program in clients.programs:
            file.write_text("stale")
            assert clients.run(program, "build", *quiet, "--iidfile", str(file), ".").code == 0
            written.add(file.read_text())
        assert len(written) == 1
    clients.daemon.build_answer = (200, FAILED)
    for program in clients.programs:
        file.write_text("stale")
        assert clients.run(program, "build", "--iidfile", str(file), ".").code == 4
        assert not file.exists()
    clients.daemon.build_answer = (200, b'{"stream":"nothing\\n"}\n')
    clients.same("build", "--iidfile", str(file), ".")


@pytest.mark.parametrize("ignore", ["", "x\nDockerfile"])
@pytest.mark.parametrize("how", ["-", "outside"])
def test_a_dockerfile_from_elsewhere_is_put_in(clients: Clients, ignore: str, how: str) -> None:
    if ignore:
        (clients.directory / ".dockerignore").write_text(ignore)
    (clients.directory / "file").write_text("content")
    outside = clients.directory.parent / "Other"
    outside.write_text("FROM other\n")
    found = []
    for program in clients.programs:
        sent = clients.run(program, "build", "-f", how if how == "-" else str(outside), ".", stdin=b"FROM stdin\n")
        assert sent.code == 0
        assert sent.query["dockerfile"] == [".dockerfile."]
        found.append(unpacked(sent.body))
    theirs, ours = found
    assert sorted(ours) == sorted(theirs)
    assert (b"FROM stdin\n" if how == "-" else b"FROM other\n") in [content for _, _, content in ours]


def unpacked(archive: bytes) -> list[tuple[str, int, bytes]]:
    """(name, mode, content) of all entries; random names as one."""
    with tarfile.open(fileobj=io.BytesIO(archive + bytes(1024))) as read:
        found = []
        for entry in read:
            file = read.extractfile(entry)
            content = file.read() if file else b""
            name = _RANDOM.sub(b".dockerfile.", entry.name.encode()).decode()
            found.append((name, entry.mode, _RANDOM.sub(b".dockerfile.", content)))
        return found


def test_credentials_go_along(clients: Clients) -> None:
    auths = {
        "example.org": {"auth": base64.b64encode(b"me:secret").decode()},
        "b.example": {"auth": base64.b64encode(b"you:other").decode()},
    }
    (clients.directory.parent / "config/config.json").write_text(json.dumps({"auths": auths, "proxies": {"default": {"httpProxy": "p"}}}))
    sent = [clients.run(program, "build", "--build-arg", "X=y", ".") for program in clients.programs]
    theirs, ours = (json.loads(base64.urlsafe_b64decode(each.headers["x-registry-config"])) for each in sent)
    assert ours == theirs
    assert sent[0].query == sent[1].query
