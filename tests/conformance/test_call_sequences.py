"""What clients that are not run here send, in their order, and what they read of the answers: Portainer, Traefik, VS Code, a kubelet."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from sampan.daemon.teardown import UnixConnection
from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
TAG = "org.example.sequence"


def get(engine: Engine, path: str, **query: Any) -> Any:
    """The decoded answer of a GET that must succeed; values that are no text go as JSON."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
    status, body = engine.request("GET", f"{path}?{urlencode(texts)}" if texts else path)
    assert status == 200, body
    return body


def post(engine: Engine, path: str, body: Any = None, *, code: int = 204) -> Any:
    """The decoded answer of a POST that must have that status."""
    status, answer = engine.request("POST", path, body)
    assert status == code, answer
    return answer


def create(engine: Engine, name: str, *command: str, **more: Any) -> str:
    """A container's ID."""
    answer: dict[str, str] = post(engine, f"/containers/create?name={name}", {"Image": "busybox", "Cmd": command, **more}, code=201)
    return answer["Id"]


@contextlib.contextmanager
def events(engine: Engine, path: str, filters: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a request that is not ended, as they come."""
    connection = UnixConnection(engine.socket, 30)
    connection.request("GET", f"{path}?{urlencode({'filters': json.dumps(filters)})}")
    response = connection.getresponse()
    assert response.status == 200
    try:
        yield (json.loads(line) for line in iter(response.readline, b""))
    finally:
        connection.close()


class Console:
    """An exec's terminal, as a web page has it: the connection that its start has become."""

    def __init__(self, engine: Engine, exec_id: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(30)
        self._socket.connect(engine.socket)
        body = b'{"Detach": false, "Tty": true}'
        head = f"POST /v1.41/exec/{exec_id}/start HTTP/1.1\r\nHost: unixsocket\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
        self._socket.sendall(f"{head}Upgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        self._seen = b""
        assert self.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 UPGRADED\r\n")

    def send(self, data: bytes) -> None:
        """What is typed."""
        self._socket.sendall(data)

    def until(self, end: bytes) -> bytes:
        """What comes, to the first end in it; b"" as the end: to the last byte."""
        while not end or end not in self._seen:
            more = self._socket.recv(65536)
            if not more:
                assert not end, self._seen
                break
            self._seen += more
        found, self._seen = (self._seen, b"") if not end else (self._seen[: self._seen.index(end)], self._seen.partition(end)[2])
        return found

    def close(self) -> None:
        """The page is closed."""
        self._socket.close()


@pytest.mark.parametrize("form", [lambda *values: list(values), lambda *values: dict.fromkeys(values, True)], ids=["list", "map"])
def test_portainer(engine: Engine, form: Callable[..., Any]) -> None:
    info = get(engine, "/info")
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert info["Plugins"]["Volume"] == ["local"]
    assert get(engine, "/version")["ApiVersion"] == "1.51"
    assert get(engine, "/plugins") == []
    since = int(time.time())
    first = create(engine, "ported", "sleep", "600", Labels={TAG: "portainer"}, Tty=True, OpenStdin=True)
    post(engine, f"/containers/{first}/start")

    listed = get(engine, "/containers/json", all="1", filters={"label": form(f"{TAG}=portainer")})
    assert [(one["Id"], one["State"], one["Labels"][TAG]) for one in listed] == [(first, "running", "portainer")]
    assert any("busybox:latest" in one["RepoTags"] for one in get(engine, "/images/json", all="0"))
    assert {one["Name"] for one in get(engine, "/networks", filters={"name": form("bridge")})} >= {"bridge"}
    assert get(engine, "/volumes", filters={"dangling": form("true")})["Volumes"] is not None
    usage = get(engine, "/system/df")
    assert {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"} <= usage.keys()

    sample = get(engine, f"/containers/{first}/stats", stream="0")
    assert sample["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert sample["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert sample["memory_stats"]["limit"] > 0
    assert get(engine, f"/containers/{first}/top")["Processes"]

    made = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": True, "Cmd": ["sh"]}
    exec_id = post(engine, f"/containers/{first}/exec", made, code=201)["Id"]
    console = Console(engine, exec_id)
    try:
        console.until(b"# ")
        post(engine, f"/exec/{exec_id}/resize?h=31&w=97", code=200)
        console.send(b"stty size\n")
        console.until(b"stty size\r\n")
        assert console.until(b"\r\n") == b"31 97"
        console.send(b"exit 3\n")
        console.until(b"")
    finally:
        console.close()
    assert get(engine, f"/exec/{exec_id}/json")["ExitCode"] == 3

    told = get(
        engine, "/events", since=str(since), until=str(int(time.time()) + 1), filters={"type": form("container"), "container": form(first)}
    )
    actions = [json.loads(line)["Action"] for line in told.splitlines()] if isinstance(told, bytes) else [told["Action"]]
    assert actions == ["create", "start", "top", "exec_create: sh ", "exec_start: sh ", "exec_die"]
    assert engine.request("DELETE", f"/containers/{first}?force=true&v=1")[0] == 204


def test_portainer_pulls_with_the_credentials_of_its_registries(engine: Engine) -> None:
    """X-Registry-Auth of an anonymous registry, as it sends it; an image that is nowhere is an error in the stream or a status, in JSON."""
    status, body = engine.request(
        "POST", "/images/create?fromImage=127.0.0.1%3A1%2Fnowhere&tag=1", headers={"X-Registry-Auth": "eyJyZWdpc3RyeUlkIjowfQ=="}
    )
    assert status == 500
    assert "127.0.0.1:1" in body["message"]


def test_traefik(engine: Engine) -> None:
    assert get(engine, "/v1.24/version")["ApiVersion"]
    with events(engine, "/v1.24/events", {"type": {"container": True}, "label": {f"{TAG}=traefik": True}}) as seen:
        check = {"Test": ["CMD", "true"], "Interval": 10**9}
        made = create(engine, "routed", "sleep", "600", Labels={TAG: "traefik", "traefik.enable": "true"}, Healthcheck=check)
        assert next(seen)["status"] == "create"
        post(engine, f"/containers/{made}/start")
        started = next(seen)
        assert (started["status"], started["id"], started["from"], started["Action"]) == ("start", made, "busybox", "start")
        assert started["Actor"]["Attributes"]["traefik.enable"] == "true"
        healthy = next(event for event in seen if event["status"].startswith("health_status"))
        assert healthy["status"] == "health_status: healthy"

        (listed,) = get(engine, "/v1.24/containers/json", filters={"label": [f"{TAG}=traefik"]})
        assert listed["HostConfig"]["NetworkMode"] in ("default", "bridge")
        address = listed["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        shown = get(engine, f"/v1.24/containers/{made}/json")
        assert shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == address != ""
        assert shown["State"]["Health"]["Status"] == "healthy"
        assert shown["Config"]["Labels"]["traefik.enable"] == "true"

        post(engine, f"/containers/{made}/stop?t=0")
        assert [event["status"] for event in (next(seen) for _ in range(4))] == ["kill", "kill", "die", "stop"]


def test_vs_code_dev_containers(engine: Engine, docker: Docker, docker_path: str, tmp_path: Path) -> None:
    assert re.fullmatch(r"1\.\d+\n", docker("version", "--format", "{{.Server.APIVersion}}").stdout)
    label = f"devcontainer.local_folder={tmp_path}"
    assert docker("ps", "-q", "-a", "--filter", f"label={label}").stdout == ""
    image = json.loads(docker("inspect", "--type", "image", "busybox").stdout)[0]
    assert image["Config"]["Env"]

    (tmp_path / "source.txt").write_text("here\n")
    watch = subprocess.Popen(
        [docker_path, "events", "--format", "{{json .}}", "--filter", "event=start"], stdout=subprocess.PIPE, env=engine.environment()
    )
    script = "echo Container started; trap 'exit 0' 15; while sleep 1 & wait $!; do :; done"
    run = subprocess.Popen(
        [
            docker_path, "run", "--sig-proxy=false", "-a", "STDOUT", "-a", "STDERR",
            "--mount", f"type=bind,source={tmp_path},target=/workspaces/it,consistency=cached",
            "--mount", "type=volume,src=vscode,dst=/vscode",
            "-l", label, "-l", "devcontainer.config_file=/it.json", "--entrypoint", "/bin/sh", "busybox", "-c", script, "-",
        ],
        stdout=subprocess.PIPE, env=engine.environment(),
    )  # fmt: skip
    assert watch.stdout is not None
    assert run.stdout is not None
    try:
        assert run.stdout.readline() == b"Container started\n"
        started = json.loads(watch.stdout.readline())
        (container,) = docker("ps", "-q", "-a", "--filter", f"label={label}").stdout.split()
        assert started["id"].startswith(container)
        shown = json.loads(docker("inspect", "--type", "container", container).stdout)[0]
        assert {mount["Type"] for mount in shown["Mounts"]} == {"bind", "volume"}
        assert shown["Config"]["Labels"]["devcontainer.config_file"] == "/it.json"

        shell = subprocess.Popen(
            [docker_path, "exec", "-i", "-u", "root", "-e", "REMOTE=1", container, "/bin/sh"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=engine.environment(),
        )  # fmt: skip
        assert shell.stdin is not None
        assert shell.stdout is not None
        for command, answer in (("echo $REMOTE", b"1\n"), ("cat /workspaces/it/source.txt", b"here\n"), ("id -u", b"0\n")):
            shell.stdin.write(command.encode() + b"\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == answer
        shell.communicate(timeout=30)
        assert shell.returncode == 0
        assert docker("stop", "-t", "10", container).returncode == 0
        assert run.wait(30) == 0
    finally:
        watch.terminate()
        run.kill()
        for process in (watch, run):
            process.communicate(timeout=30)
        docker("rm", "-f", *docker("ps", "-q", "-a", "--filter", f"label={label}").stdout.split())
        docker("volume", "rm", "-f", "vscode")


def test_a_kubelet(engine: Engine) -> None:
    """As dockershim: a pod's namespaces are those of a container that does nothing, and containers join them."""
    assert get(engine, "/info")["CgroupDriver"] in ("cgroupfs", "systemd")
    kind = {"io.kubernetes.docker.type": "podsandbox"}
    pause = create(engine, "k8s_POD_it", "sleep", "600", Labels=kind, HostConfig={"NetworkMode": "none", "IpcMode": "shareable"})
    post(engine, f"/containers/{pause}/start")
    namespaces = Path(f"/proc/{get(engine, f'/containers/{pause}/json')['State']['Pid']}/ns")
    joined = f"container:{pause}"
    host = {"NetworkMode": joined, "IpcMode": joined, "PidMode": joined, "LogConfig": {"Type": "json-file"}, "OomScoreAdj": 1000}
    app = create(
        engine, "k8s_app_it", "sh", "-c", "echo up; exec sleep 600", Labels={"io.kubernetes.docker.type": "container"}, HostConfig=host
    )
    post(engine, f"/containers/{app}/start")
    shown = get(engine, f"/containers/{app}/json")
    for name in ("net", "ipc", "pid"):
        assert os.readlink(namespaces / name) == os.readlink(f"/proc/{shown['State']['Pid']}/ns/{name}")

    filters = {"label": {"io.kubernetes.docker.type=container": True}, "status": {"running": True}}
    assert [one["Id"] for one in get(engine, "/containers/json", filters=filters, size="0")] == [app]
    assert get(engine, "/images/json", filters={"reference": {"busybox": True}})
    image = get(engine, f"/images/{quote(shown['Image'], safe='')}/json")
    assert image["Id"] == shown["Image"]

    deadline = time.monotonic() + 30
    while not (lines := Path(shown["LogPath"]).read_text().splitlines()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads(lines[0]).items() >= {"log": "up\n", "stream": "stdout"}.items()

    status, conflict = engine.request("POST", "/containers/create?name=k8s_app_it", {"Image": "busybox"})
    assert status == 409
    found = re.search(r"Conflict. (?:.)+ is already in use by container \"?([0-9a-z]+)\"?", conflict["message"])
    assert found is not None
    assert found[1] == app

    post(engine, f"/containers/{app}/stop?t=0")
    assert get(engine, f"/containers/{app}/json")["State"]["ExitCode"] in (137, 143)
    assert engine.request("DELETE", f"/containers/{app}?force=1&v=1")[0] == 204
    assert engine.request("DELETE", f"/containers/{pause}?force=1&v=1")[0] == 204
    status, gone = engine.request("GET", f"/containers/{app}/json")
    assert (status, gone["message"]) == (404, f"No such container: {app}")
