"""Git repositories: as contexts that the engine clones, and in ADD."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import docker as docker_py
import pytest

from tests.integration.build.conftest import Build
from tests.support.engine import Engine
from tests.support.gitserver import GitServer, commit, git


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """A server of a repository with a branch, a tag, links, and a submodule."""
    root = tmp_path_factory.mktemp("repositories")
    made = GitServer(root)
    commit(root / "part", {"inner": "of the submodule\n"})
    repository = root / "app"
    files = {
        "Dockerfile": "FROM buildbase\nCOPY . /c\nRUN cat /c/where\n",
        "where": "master\n",
        "sub/Dockerfile": "FROM buildbase\nCOPY . /c\nRUN cat /c/where\n",
        "sub/where": "below\n",
        "in": "-> /sub",
        "out": "-> ../../../../../../../../etc",
        "run.sh": "#!/bin/sh\n",
    }
    commit(repository, dict(files))
    (repository / "run.sh").chmod(0o755)
    git(repository, "submodule", "add", f"{made.url}/part.git", "part")
    commit(repository, {}, "with a part")
    git(repository, "checkout", "-b", "other")
    commit(repository, {"where": "other\n"})
    git(repository, "tag", "-a", "-m", "annotated", "v1")
    git(repository, "checkout", "master")
    commit(repository, {"later": "x"})
    yield made
    made.close()


@pytest.fixture
def app(server: GitServer) -> Path:
    """The repository."""
    return Path(server.root) / "app"


def nothing_is_left(engine: Engine) -> None:
    deadline = time.monotonic() + 20
    while (left := sorted(os.listdir(engine.data_root / "build"))) != ["mounts", "void"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == ["mounts", "void"]


# contexts


@pytest.mark.parametrize(
    ("fragment", "said"),
    [
        ("", "master\n"),
        ("#other", "other\n"),
        ("#v1", "other\n"),
        ("#other:", "other\n"),
        ("#refs/heads/other", "other\n"),
        ("#:sub", "below\n"),
        ("#master:in", "below\n"),
    ],
)
def test_contexts(run_build: Build, server: GitServer, fragment: str, said: str) -> None:
    built = run_build("", remote=f"{server.url}/app.git{fragment}", nocache=1)
    assert (built.message, built.error) == ("", "")
    assert said in built.text


def test_a_context_is_all_there_is_and_root_s(run_build: Build, server: GitServer, engine: Engine) -> None:
    built = run_build("", remote=f"{server.url}/app.git", t="cloned")
    assert built.error == ""
    command = "cat /c/part/inner; stat -c '%U %a %n' /c/run.sh /c/where /c/sub; readlink /c/out; ls -d /c/.git/HEAD"
    ran = engine.cli("run", "--rm", "cloned", "sh", "-c", command)
    assert ran.stdout == (
        "of the submodule\nroot 755 /c/run.sh\nroot 644 /c/where\nroot 755 /c/sub\n../../../../../../../../etc\n/c/.git/HEAD\n"
    )
    nothing_is_left(engine)


def test_docker_py(engine: Engine, run_build: Build, server: GitServer) -> None:
    run_build("FROM buildbase\n")
    client = docker_py.DockerClient(base_url=engine.url)
    image, log = client.images.build(path=f"{server.url}/app.git#other", nocache=True, tag="py:git")
    assert image.tags == ["py:git"]
    assert "other\n" in "".join(line.get("stream", "") for line in log)
    client.close()


def test_commits_and_servers_of_files(run_build: Build, server: GitServer, app: Path) -> None:
    first = git(app, "rev-list", "--max-parents=0", "HEAD")
    assert "master\n" in run_build("", remote=f"{server.url}/app.git#{first}", nocache=1).text
    commit(app.parent / "plain", {"Dockerfile": "FROM buildbase\nRUN echo plain\n"})
    assert "plain\n" in run_build("", remote=f"{server.url}/dumb/plain.git", nocache=1).text


def test_a_repository_without_a_master(run_build: Build, server: GitServer, app: Path) -> None:
    commit(app.parent / "main", {"Dockerfile": "FROM buildbase\nRUN echo main\n"})
    git(app.parent / "main", "branch", "-m", "master", "main")
    assert "main\n" in run_build("", remote=f"{server.url}/main.git", nocache=1).text


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("/app.git#none", "error fetching: "),
        ("/none.git", "error fetching: "),
        ("/app.git#:none", "stat none: no such file or directory"),
        ("/app.git#:Dockerfile", "error setting git context, not a directory: Dockerfile"),
        ("/app.git#:../sub", 'error setting git context, "../sub" not within git root'),
        ("/app.git#:out", "stat out: no such file or directory"),
        ("/app.git#--upload-pack=/bin/sh", "invalid refspec: --upload-pack=/bin/sh"),
        ("/app.git#:part", "Cannot locate specified Dockerfile: Dockerfile"),
    ],
)
def test_what_cannot_be_a_context(run_build: Build, server: GitServer, engine: Engine, url: str, problem: str) -> None:
    assert problem in run_build("", remote=f"{server.url}{url}").message
    nothing_is_left(engine)


@pytest.mark.parametrize(
    "url", ["ext::sh -c true", "file:///etc", "--upload-pack=x", "/etc", "git@-oProxyCommand=touch:x", "ssh://-o/x.git"]
)
def test_urls_that_are_none(run_build: Build, url: str) -> None:
    assert run_build("", remote=url).message


@pytest.mark.parametrize("url", ["ext::touch% {mark}", "{root}/part", "file://{root}/part"])
def test_submodules_that_are_not_on_a_server(run_build: Build, server: GitServer, app: Path, tmp_path: Path, url: str) -> None:
    mark = tmp_path / "mark"
    tmp_path.chmod(0o777)
    hostile = tmp_path / "hostile"
    commit(hostile, {"Dockerfile": "FROM buildbase\n"})
    git(hostile, "submodule", "add", str(app.parent / "part"), "part")
    text = (hostile / ".gitmodules").read_text()
    where = url.format(mark=mark, root=app.parent)
    (hostile / ".gitmodules").write_text(text.replace(str(app.parent / "part"), where))
    commit(hostile, {}, "hostile")
    hostile.rename(app.parent / f"hostile{abs(hash(url))}")
    built = run_build("", remote=f"{server.url}/hostile{abs(hash(url))}.git")
    assert "error initializing submodules" in built.message
    assert "not allowed" in built.message or "does not exist" in built.message
    assert not mark.exists()


def test_a_client_that_leaves_ends_git(server: GitServer, engine: Engine, run_build: Build) -> None:
    run_build("FROM buildbase\n")
    query = urlencode({"remote": f"{server.url}/hangs.git"})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(engine.socket)
        client.sendall(f"POST /v1.50/build?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert until(lambda: any("hangs" in path for path in server.asked))
        assert runs_git(server.host)
    assert until(lambda: not runs_git(server.host))
    nothing_is_left(engine)


def test_a_kill_ends_git(server: GitServer, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.start()
    server.asked.clear()
    query = urlencode({"remote": f"{server.url}/hangs.git"})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(engine.socket)
        client.sendall(f"POST /v1.50/build?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert until(lambda: any("hangs" in path for path in server.asked))
        engine.stop(signal.SIGKILL)
    assert until(lambda: not runs_git(server.host))
    engine.start()
    nothing_is_left(engine)


def until(true: Callable[[], bool]) -> bool:
    """Whether it comes true soon."""
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def runs_git(host: str) -> bool:
    """Whether a process speaks to a server, or is to."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if host.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


# ADD


def test_add(run_build: Build, server: GitServer, app: Path) -> None:
    head = git(app, "rev-parse", "HEAD")
    url = f"{server.url}/app.git"
    text = f"""FROM buildbase
ADD {url} /a
ADD --keep-git-dir=true {url}#other /b
ADD --checksum={head[:12]} --chown=joe {url}#master:sub /d/
RUN cat /a/where /a/part/inner /b/where /d/where; stat -c '%U %a' /a/run.sh /d/where; ls -d /a/.git /b/.git/HEAD /d/.git 2>/dev/null; true
"""
    built = run_build(text, nocache=1)
    assert built.error == ""
    assert "master\nof the submodule\nother\nbelow\nroot 755\njoe 644\n/b/.git/HEAD\n" in built.text


def test_add_is_cached_by_its_commit(run_build: Build, server: GitServer, app: Path) -> None:
    commit(app.parent / "cached", {"f": "1"})
    text = f"FROM buildbase\nADD {server.url}/cached.git /c\n"
    assert run_build(text).cached == 0
    server.asked.clear()
    assert run_build(text).cached == 1
    assert not [path for path in server.asked if "objects" in path]
    commit(app.parent / "cached", {"f": "1", "g": "2"})
    assert run_build(text).cached == 0


def test_what_cannot_be_added(run_build: Build, server: GitServer, engine: Engine) -> None:
    url = f"{server.url}/app.git"
    assert "repository does not contain ref none" in run_build(f"FROM buildbase\nADD {url}#none /a\n").error
    assert "expected checksum to match 0123, got " in run_build(f"FROM buildbase\nADD --checksum=0123 {url} /a\n").error
    assert "expected hex commit hash" in run_build(f"FROM buildbase\nADD --checksum=sha256:0123 {url} /a\n").error
    assert "source can't be a git ref for COPY" in run_build(f"FROM buildbase\nCOPY {url} /a\n").error
    assert "no such file" in run_build(f"FROM buildbase\nADD {url}#:none /a\n").error
    assert "invalid refspec" in run_build(f"FROM buildbase\nADD {url}#--upload-pack=x /a\n").error
    assert "COPY" not in run_build("FROM buildbase\nADD github.com/x /a\n", {"github.com": None, "github.com/x": "file"}).error
    nothing_is_left(engine)
