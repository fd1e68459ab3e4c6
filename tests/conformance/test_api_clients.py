"""The real docker client and docker-py on the API with the fake engine behind it: the edge alone, without containers."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from sampan.api.app import App
from sampan.api.server import unix_listener
from sampan.testing.fake_engine import fake_engine
from sampan.testing.serving import serving
from tests.support import dockercli


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "s")
    with serving(lambda: App(fake_engine().services).resolve, [(unix_listener(path), None)]):
        yield path


def cli(path: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """docker -H path arguments..."""
    command = [dockercli.find(), "-H", f"unix://{path}", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["version", "--format", "{{with .Server}}{{.Version}} {{.APIVersion}} {{.MinAPIVersion}} {{.Os}}{{end}}"],
            "28.5.2 1.51 1.24 linux",
        ),
        (["info", "--format", "{{.ServerVersion}} {{.Driver}} {{.Swarm.LocalNodeState}}"], "28.5.2 overlay2 inactive"),
        (["ps", "--format", "{{.Names}}"], ""),
        (["images", "--format", "{{.Repository}}:{{.Tag}}"], "busybox:latest"),
        (["network", "ls", "--format", "{{.Name}} {{.Driver}}"], "bridge bridge\nhost host\nnone null"),
        (["volume", "ls", "-q"], ""),
        (["plugin", "ls", "-q"], ""),
    ],
)
def test_docker_client_reads(path: str, arguments: list[str], expected: str) -> None:
    result = cli(path, *arguments)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, expected, "")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (
            ["node", "ls"],
            1,
            'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or '
            '"docker swarm join" to connect this node to swarm and try again.',
        ),
        (["inspect", "nope"], 1, "Error: No such object: nope"),
        (["network", "rm", "bridge"], 1, "Error response from daemon: bridge is a pre-defined network and cannot be removed"),
        (["volume", "rm", "nope"], 1, "Error response from daemon: get nope: no such volume"),
        (["rm", "nope"], 1, "Error response from daemon: No such container: nope"),
    ],
)
def test_docker_client_errors(path: str, arguments: list[str], code: int, error: str) -> None:
    result = cli(path, *arguments)
    assert (result.returncode, result.stderr.splitlines()[0]) == (code, error)


def test_docker_client_runs_and_execs(path: str) -> None:
    assert cli(path, "run", "-i", "--name", "a", "busybox", stdin="through the stream\n").stdout == "through the stream\n"
    assert cli(path, "start", "a").returncode == 0
    assert cli(path, "exec", "-i", "a", "cat", stdin="exec\n").stdout == "exec\n"
    assert cli(path, "logs", "a").stdout == "through the stream\n"
    conflict = cli(path, "run", "--name", "a", "busybox")
    assert (conflict.returncode, 'Conflict. The container name "/a" is already in use by container "' in conflict.stderr) == (125, True)
    assert cli(path, "rm", "-f", "a").stdout == "a\n"


def test_old_api_version(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", "1.24")
    assert cli(path, "version", "--format", "{{.Client.APIVersion}}").stdout.strip() == "1.24"
    assert cli(path, "run", "-d", "busybox").returncode == 0


def test_docker_py(path: str) -> None:
    client = docker.DockerClient(base_url=f"unix://{path}", version="auto", timeout=20)
    try:
        assert client.ping()
        assert client.version()["ApiVersion"] == "1.51"
        container = client.containers.create("busybox", name="py", stdin_open=True)
        container.start()
        assert [row.name for row in client.containers.list()] == ["py"]
        _, stream = container.exec_run(["cat"], stdin=True, socket=True)
        raw = stream._sock
        raw.sendall(b"hello")
        frame = b""
        while len(frame) < 13:
            frame += raw.recv(100)
        assert frame == b"\x01\0\0\0\0\0\0\x05hello"
        stream._response.close()  # docker-py keeps it alive beside the stream, and closes neither
        stream.close()
        raw.close()
        container.kill()
        assert container.wait() == {"StatusCode": 0}
        with pytest.raises(docker.errors.NotFound, match="No such container: nope"):
            client.containers.get("nope")
        container.remove()
        assert client.containers.list(all=True) == []
    finally:
        client.close()
