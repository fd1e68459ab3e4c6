"""The docker client and docker-py build, and what a kill of sampand leaves of a build."""

import io
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker as docker_py
import pytest

from tests.golden.build.record import caller, prepare
from tests.support.builds import build, context
from tests.support.engine import Engine

Docker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def _prepared(live_engine: Engine) -> None:
    prepare(caller(live_engine.socket))


@pytest.fixture
def directory(tmp_path: Path, _prepared: None) -> Path:
    """A context on the disk."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/f").write_text("file\n")
    (tmp_path / "ignored").write_text("x")
    (tmp_path / ".dockerignore").write_text("ignored\n")
    (tmp_path / "Dockerfile").write_text("FROM buildbase\nCOPY . /c\nRUN find /c -type f | sort; cat /c/sub/f; echo wrong >&2\n")
    return tmp_path


def test_docker_build(docker: Docker, directory: Path) -> None:
    built = docker("build", "-t", "cli:1", "-t", "cli:2", "--iidfile", str(directory / "ignored"), "--no-cache", str(directory))
    assert built.returncode == 0, built.stderr
    lines = built.stdout.splitlines()
    assert lines[0].startswith("Sending build context to Docker daemon")
    assert "/c/.dockerignore" in lines
    assert "/c/ignored" not in lines
    assert "file" in lines
    assert lines[-2:] == ["Successfully tagged cli:1", "Successfully tagged cli:2"]
    image = (directory / "ignored").read_text()
    assert docker("inspect", "-f", "{{.Id}}", "cli:2").stdout.strip() == image
    quiet = docker("build", "-q", str(directory))
    assert quiet.stdout.strip() == image


def test_a_dockerfile_elsewhere_and_on_stdin(docker: Docker, directory: Path) -> None:
    other = directory.parent / "Otherfile"
    other.write_text("FROM buildbase\nCOPY sub /c\nRUN echo other; cat /c/f\n")
    assert "other\nfile\n" in docker("build", "--no-cache", "-f", str(other), str(directory)).stdout
    assert "alone\n" in docker("build", "--no-cache", "-", stdin=b"FROM buildbase\nRUN echo alone\n").stdout
    tar = context({"Dockerfile": "FROM buildbase\nCOPY t /t\nRUN cat /t\n", "t": "in a tar\n"})
    assert "in a tar\n" in docker("build", "--no-cache", "-", stdin=tar).stdout


def test_exit_codes(docker: Docker, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM buildbase\nRUN exit 4\n")
    failed = docker("build", "--force-rm", str(directory))
    assert failed.returncode == 4
    assert failed.stderr.splitlines()[-1] == "The command '/bin/sh -c exit 4' returned a non-zero code: 4"
    (directory / "Dockerfile").write_text("FROM buildbase\nFOO\n")
    refused = docker("build", str(directory))
    assert refused.returncode == 1
    assert "Error response from daemon: dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)" in refused.stderr


def test_docker_py(engine: Engine, directory: Path) -> None:
    client = docker_py.DockerClient(base_url=engine.url)
    image, log = client.images.build(path=str(directory), tag="py:1", rm=True, nocache=True, buildargs={"UNUSED": "1"}, labels={"a": "b"})
    text = "".join(line.get("stream", "") for line in log)
    assert "file\n" in text
    assert "\x1b[91mwrong\n\x1b[0m" in text
    assert "[Warning] One or more build-args [UNUSED] were not consumed\n" in text
    assert image.labels["a"] == "b"
    assert image.tags == ["py:1"]
    with pytest.raises(docker_py.errors.BuildError, match="returned a non-zero code: 3"):
        client.images.build(fileobj=io.BytesIO(b"FROM buildbase\nRUN exit 3\n"), forcerm=True)
    client.close()


def test_a_kill_in_the_midst_of_a_step(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.start()
    call = caller(engine.socket)
    prepare(call)
    kept = build(call, {"Dockerfile": "FROM buildbase\nRUN echo > /kept\n"})
    with subprocess.Popen(
        ["curl", "-sN", "--unix-socket", engine.socket, "-H", "Content-Type: application/x-tar", "--data-binary", "@-", "http://d/build"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(context({"Dockerfile": "FROM buildbase\nRUN echo > /kept\nRUN echo now; exec sleep 600\n", "f": "x"}))
        client.stdin.close()
        while b'"now' not in client.stdout.readline():
            pass
        (running,) = engine.request("GET", "/containers/json")[1]
        pid = engine.request("GET", f"/containers/{running['Id']}/json")[1]["State"]["Pid"]
        engine.stop(signal.SIGKILL)
        assert os.path.exists(f"/proc/{pid}")
    engine.start()
    assert engine.request("GET", "/containers/json?all=1")[1] == []
    assert not os.path.exists(f"/proc/{pid}")
    deadline = time.monotonic() + 10
    while (left := sorted(os.listdir(engine.data_root / "build"))) != ["mounts", "void"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == ["mounts", "void"]
    again = build(call, {"Dockerfile": "FROM buildbase\nRUN echo > /kept\n"})
    assert (again.cached, again.image) == (1, kept.image)
