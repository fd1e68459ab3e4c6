"""`sampan build` where it goes beyond docker's client, and contexts from elsewhere."""

import bz2
import gzip
import http.server
import io
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.cli.commands import build
from sampan.cli.contexts import is_git_url
from sampan.cli.contexttar import directory_tar
from sampan.cli.excerpt import excerpt, lines_of
from sampan.dockerignore import Matcher
from sampan.gitclone import split_url
from sampan.testing.fakedaemon import FakeDaemon
from tests.support.nobody import as_nobody

OK = b'{"stream":"Successfully built 0123\\n"}\n'


class Run:
    """One `sampan build`."""

    def __init__(self, daemon: FakeDaemon, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.headers, self.body = daemon.uploads[-1] if daemon.uploads else ({}, b"")
        self.query = daemon.log[-1]["query"] if daemon.log else {}

    def names(self) -> list[str]:
        """What was sent."""
        with tarfile.open(fileobj=io.BytesIO(self.body)) as archive:
            return archive.getnames()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "socket", lambda _: 0) as made:
        made.build_answer = (200, OK)
        yield made


@pytest.fixture
def here(tmp_path: Path) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nFOO bar\nLABEL a=b\n")
    (directory / "file").write_text("x")
    return directory


@pytest.fixture
def sampan(daemon: FakeDaemon, here: Path) -> Callable[..., Run]:
    def run(*arguments: str, stdin: bytes = b"", **environment: str) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "sampan.cli", "build", *arguments],
            input=stdin,
            capture_output=True,
            cwd=here,
            env={"PATH": os.environ["PATH"], "HOME": str(here), "DOCKER_HOST": f"unix://{daemon.path}", **environment},
            timeout=60,
            check=False,
        )
        return Run(daemon, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def packed(files: dict[str, str]) -> bytes:
    """A tar."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return made.getvalue()


def test_the_place_of_an_error_is_shown(daemon: FakeDaemon, sampan: Callable[..., Run]) -> None:
    message = "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)"
    daemon.build_answer = (400, b'{"message":"%s"}\n' % message.encode())
    shown = "1 | FROM scratch\n 2 | FOO bar\n   | ^^^\n 3 | LABEL a=b\n 4 |\n"
    for arguments in (("."), ("./Dockerfile",), ("-f", "Dockerfile", ".")):
        done = sampan(*arguments)
        assert done.code == 1
        assert done.err == f"Error response from daemon: {message}\n{'./' if arguments == ('./Dockerfile',) else ''}Dockerfile:2\n {shown}"
    assert "Dockerfile:2\n" in sampan("-", stdin=b"FROM scratch\nFOO bar").err
    assert "Dockerfile:" not in sampan("-", stdin=packed({"Dockerfile": "FROM scratch\nFOO bar"})).err
    daemon.build_answer = (400, b'{"message":"failed to parse Dockerfile: x","lines":[3,3]}\n')
    assert "Dockerfile:3\n" in sampan(".").err


@pytest.mark.parametrize(
    ("message", "marked"),
    [
        ("dockerfile parse error on line 1: unknown flag: --foo (did you mean from?)", "COPY --foo=x a b\n     ^^^^^"),
        ('dockerfile parse error on line 1: invalid network mode "b"', "COPY --foo=x a b\n               ^"),
        ("dockerfile parse error on line 1: COPY requires at least two arguments", "COPY --foo=x a b\n^^^^"),
        ("dockerfile parse error on line 1: something else", "COPY --foo=x a b\n^^^^^^^^^^^^^^^^"),
    ],
)
def test_carets(message: str, marked: str) -> None:
    lines = lines_of(message)
    assert lines == (1, 1)
    drawn = excerpt(b"COPY --foo=x a b\n", "D", lines, message).split("\n")
    line, caret = marked.split("\n")
    assert drawn[1:3] == [f" 1 | {line}", f"   | {caret}"]


@pytest.mark.parametrize("text", [b"", b"\0\x1b[31m\xff\n" * 3, b"x" * 100_000, b"\n" * 10, "\u202e→".encode()])
def test_no_text_breaks_the_drawing(text: bytes) -> None:
    for lines in ((1, 1), (2, 9), (0, 0), (9, 2), (10**9, 10**9)):
        drawn = excerpt(text, "Dockerfile", lines, "x")
        assert "\x1b" not in drawn
        assert len(drawn) < 5000


def test_a_dockerfiles_path_is_its_directory_too(sampan: Callable[..., Run], here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/Containerfile").write_text("FROM scratch\n")
    done = sampan("sub/Containerfile")
    assert (done.code, done.query["dockerfile"]) == (0, ["Containerfile"])
    assert done.names() == ["Containerfile"]
    assert "context must be a directory" in sampan("-f", "Dockerfile", "file").err


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_archives_are_passed_on_as_they_are(sampan: Callable[..., Run], here: Path, compress: Callable[[bytes], bytes]) -> None:
    data = compress(packed({"Dockerfile": "FROM scratch\n", "big": "y" * 100_000}))
    (here / "context.tar").write_bytes(data)
    for done in (sampan("context.tar"), sampan("-", stdin=data), sampan("-f", "other", "-", stdin=data)):
        assert (done.code, done.body) == (0, data)
        assert done.headers["content-type"] == "application/x-tar"
    done = sampan("-f", "-", "context.tar", stdin=b"FROM elsewhere\n")
    assert done.code == 0
    assert done.names() == ["Dockerfile", "big", ".dockerignore", done.query["dockerfile"][0]]


def test_anything_else_on_stdin_is_a_dockerfile(sampan: Callable[..., Run]) -> None:
    for text in (b"FROM scratch\n", b"", b"\0" * 1024, b"x" * 5000):
        done = sampan("-", stdin=text)
        assert (done.code, done.names()) == (0, ["Dockerfile"])
    assert "too large for a Dockerfile" in sampan("-", stdin=b"#" * (17 << 20)).err


def test_the_ignore_file_of_a_dockerfile_comes_before_the_contexts(sampan: Callable[..., Run], here: Path) -> None:
    (here / ".dockerignore").write_text("file\n")
    (here / "Other").write_text("FROM scratch\n")
    (here / "Other.dockerignore").write_text("*\n!file\n")
    assert sampan("-f", "Other", ".").names() == [".dockerignore", "Other", "file"]
    assert sampan(".").names() == [".dockerignore", "Dockerfile", "Other", "Other.dockerignore"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_what_cannot_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as top:
        Path(top).chmod(0o755)
        directory = Path(top, "context")
        for name, mode in (("closed", 0), ("listed", 0o744)):
            (directory / name).mkdir(parents=True)
            (directory / name / "file").touch()
            (directory / name).chmod(mode)
        (directory / "file").touch(0)
        matcher = Matcher([])
        assert as_nobody(lambda: list(directory_tar(str(directory), matcher))) == f"error checking context: can't stat '{directory}/closed'"
        (directory / "closed").chmod(0o755)
        problem = f"error checking context: no permission to read from '{directory}/file'"
        assert as_nobody(lambda: list(directory_tar(str(directory), matcher))) == problem
        (directory / "file").unlink()
        problem = f"error checking context: can't stat '{directory}/listed/file'"
        assert as_nobody(lambda: list(directory_tar(str(directory), matcher))) == problem


def test_a_large_context_takes_no_memory(daemon: FakeDaemon, here: Path) -> None:
    with (here / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    program = (
        "import sys; from sampan.cli.main import main; code = main(sys.argv[1:]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr); sys.exit(code)"
    )
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{daemon.path}", "HOME": str(here)}
    command = [sys.executable, "-c", program, "build", "."]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert len(daemon.uploads[-1][1]) > 64 << 20
    assert int(done.stderr.split()[-1]) < 64 << 10  # KiB


class Files(http.server.BaseHTTPRequestHandler):
    """Serves a few files."""

    files: dict[str, bytes]

    def do_GET(self) -> None:
        """One file."""
        content = self.files.get(self.path.partition("?")[0])
        self.send_response(404 if content is None else 200)
        body = b"nothing here\n" if content is None else content
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' output."""


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, bytes]]]:
    files: dict[str, bytes] = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Files,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", files
    server.shutdown()
    thread.join()
    server.server_close()


def test_contexts_are_downloaded(sampan: Callable[..., Run], web: tuple[str, dict[str, bytes]]) -> None:
    url, files = web
    files["/x.tar.gz"] = gzip.compress(packed({"Dockerfile": "FROM scratch\n"}))
    files["/Dockerfile"] = b"FROM scratch\n"
    done = sampan(f"{url}/x.tar.gz", NO_PROXY="*")
    assert (done.code, done.body) == (0, files["/x.tar.gz"])
    assert done.out.startswith(f"Downloading build context from remote url: {url}/x.tar.gz")
    assert sampan(f"{url}/Dockerfile", NO_PROXY="*").names() == ["Dockerfile"]
    done = sampan(f"{url}/missing", NO_PROXY="*")
    problem = f"failed to GET {url}/missing with status 404 Not Found: nothing here"
    assert (done.code, done.err) == (1, f"unable to prepare context: unable to download remote context {url}/missing: {problem}\n")
    assert "connection refused" in sampan("http://127.0.0.1:1/x", NO_PROXY="*").err


def test_an_ignore_file_without_end(sampan: Callable[..., Run], here: Path) -> None:
    (here / ".dockerignore").symlink_to("/dev/zero")
    assert sampan(".").err.startswith("error reading .dockerignore: ")


def test_git_repositories_are_cloned(sampan: Callable[..., Run], here: Path, web: tuple[str, dict[str, bytes]]) -> None:
    url, files = web
    repository = here.parent / "repository"

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=master", *arguments]
        subprocess.run(command, cwd=repository, check=True, capture_output=True)

    repository.mkdir()
    git("init")
    (repository / "sub").mkdir()
    (repository / "sub/Dockerfile").write_text("FROM sub\n")
    (repository / "out").symlink_to("/etc")
    (repository / "theirs").mkdir()
    (repository / "theirs/Dockerfile").symlink_to(here / "Dockerfile")
    git("add", ".")
    git("commit", "-m", "one")
    git("branch", "other")
    git("update-server-info")
    files.update(
        {
            f"/r.git/{path.relative_to(repository / '.git')}": path.read_bytes()
            for path in (repository / ".git").rglob("*")
            if path.is_file()
        }
    )
    done = sampan(f"{url}/r.git#other:sub", NO_PROXY="*", TMPDIR=str(here.parent))
    assert done.err == ""
    assert (done.code, done.names()) == (0, ["Dockerfile"])
    assert "lstat" in sampan(f"{url}/r.git", NO_PROXY="*").err
    assert "not within git root" in sampan(f"{url}/r.git#:out", NO_PROXY="*").err
    assert "error fetching" in sampan(f"{url}/r.git#nope", NO_PROXY="*").err
    assert (
        "must be within the build context"
        in sampan("-f", "../../here/Dockerfile", f"{url}/r.git#:sub", NO_PROXY="*", TMPDIR=str(here.parent)).err
    )
    led_out = sampan(f"{url}/r.git#:theirs", NO_PROXY="*", TMPDIR=str(here.parent))
    assert led_out.err == "unable to prepare context: the Dockerfile (Dockerfile) must be within the build context\n"
    assert not list(here.parent.glob("docker-build-git*"))
    missing = sampan(f"{url}/r.git", PATH="/nonexistent")
    assert missing.err == "unable to prepare context: unable to find 'git': exec: \"git\": executable file not found in $PATH\n"


@pytest.mark.parametrize(
    ("url", "git"),
    [
        ("https://x/y.git", True),
        ("https://x/y.git#main:sub", True),
        ("https://x/y", False),
        ("git@x:y", True),
        ("github.com/x/y", True),
        ("x.git", False),
    ],
)
def test_what_is_a_repository(url: str, git: bool) -> None:
    assert is_git_url(url) == git


def test_urls_of_repositories() -> None:
    assert vars(split_url("github.com/x/y#a:b")) == {"repository": "https://github.com/x/y", "ref": "a", "subdirectory": "b"}
    assert vars(split_url("git@x:y.git#:b")) == {"repository": "git@x:y.git", "ref": "", "subdirectory": "b"}


def test_the_command_has_its_names() -> None:
    assert build.SPEC.aliases == ("image build", "build", "builder build")
