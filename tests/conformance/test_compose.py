"""docker-compose 1.29 (apt) with a small project: what people who moved from docker run first."""

import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.registryserver import RegistryThread

pytestmark = pytest.mark.root


class Compose:
    """docker-compose in a project's directory."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        program = shutil.which("docker-compose")
        assert program is not None, "docker-compose is not installed (./dev setup)"
        self._program = program
        self._directory = directory
        self._environment = {
            **engine.environment(),
            "COMPOSE_PROJECT_NAME": "composed",
            "COMPOSE_API_VERSION": "1.44",  # its `up` reads ContainerConfig of images, which 1.45 took away: with dockerd 28 too
        }

    def begin(self, *args: str) -> "subprocess.Popen[str]":
        """Start a command."""
        return subprocess.Popen(
            [self._program, *args],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *args: str) -> str:
        """Run a command to its end. Returns its output."""
        with self.begin(*args) as running:
            try:
                output, errors = running.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                running.kill()
                raise
        assert running.returncode == 0, (args, output, errors)
        return output


PROJECT = """
services:
  web:
    build: .
    environment: {GREETING: "%s"}
    networks:
      front:
      back: {aliases: [site]}
    ports: ["127.0.0.1::80"]
    volumes: ["pages:/www"]
    healthcheck: {test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"], interval: 100ms, retries: 100}
  client:
    image: busybox
    command: sh -c 'wget -q -O - http://site/ && exec sleep 1000'
    stop_signal: KILL
    depends_on: {web: {condition: service_healthy}}
    networks: [back]
networks:
  front: {}
  back: {internal: true}
volumes:
  pages: {}
"""
DOCKERFILE = """
FROM busybox
RUN mkdir /www && echo written by the build > /www/index.html
STOPSIGNAL KILL
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
"""


@pytest.fixture
def compose(engine: Engine, tmp_path: Path) -> Compose:
    """For a project in tmp_path."""
    (tmp_path / "docker-compose.yml").write_text(PROJECT % "hello")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return Compose(engine, tmp_path)


def names(engine: Engine, path: str, key: str = "") -> set[str]:
    """The names of the project's networks or volumes."""
    found = engine.request("GET", path)[1]
    return {item["Name"] for item in (found[key] if key else found) if item["Name"].startswith("composed_")}


def containers(engine: Engine, service: str) -> dict[str, Any]:
    """A service's running containers by ID, as list shows them."""
    found = engine.request("GET", "/containers/json")[1]
    return {item["Id"]: item for item in found if item["Labels"].get("com.docker.compose.service") == service}


def test_a_project(engine: Engine, compose: Compose, tmp_path: Path) -> None:
    compose("up", "-d")
    assert "written by the build" in compose("logs", "client")
    (web,), (client,) = containers(engine, "web").values(), containers(engine, "client").values()
    assert web["Status"].endswith(" (healthy)")
    assert names(engine, "/networks") == {"composed_front", "composed_back"}
    assert names(engine, "/volumes", "Volumes") == {"composed_pages"}
    compose("exec", "-T", "web", "sh", "-c", "echo written by exec > /www/index.html")
    (port,) = (item["PublicPort"] for item in web["Ports"])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        assert answer.read() == b"written by exec\n"

    (tmp_path / "docker-compose.yml").write_text(PROJECT % "good morning")
    compose("up", "-d", "--scale", "client=2")
    assert web["Id"] not in containers(engine, "web"), "its environment has changed"
    clients = containers(engine, "client")
    assert len(clients) == 2
    assert client["Id"] in clients, "nothing of it has changed"
    assert compose("exec", "-T", "--index=2", "client", "wget", "-q", "-O", "-", "http://web/") == "written by exec\n"
    (again,) = containers(engine, "web")
    assert "GREETING=good morning" in engine.request("GET", f"/containers/{again}/json")[1]["Config"]["Env"]

    compose("down", "-v", "--rmi=local")
    assert not containers(engine, "web") | containers(engine, "client")
    assert not names(engine, "/networks")
    assert not names(engine, "/volumes", "Volumes")


PULLED = """
services:
  app:
    image: %s/team/app:1
    command: sh -c 'trap "exit 0" TERM; while :; do echo going on; sleep 0.1; done'
    restart: unless-stopped
"""


def test_pull_restart_and_followed_logs(engine: Engine, compose: Compose, tmp_path: Path) -> None:
    registry = RegistryThread.on(tmp_path / "registry")
    try:
        name = f"{registry.host}/team/app:1"
        assert engine.cli("tag", "busybox", name).returncode == 0
        pushed = engine.cli("push", "-q", name)
        assert pushed.returncode == 0, pushed.stderr
        assert engine.cli("rmi", name).returncode == 0
        (tmp_path / "docker-compose.yml").write_text(PULLED % registry.host)
        compose("pull", "-q")
    finally:
        registry.close()
    compose("up", "-d")
    ((first, _),) = containers(engine, "app").items()
    started = engine.request("GET", f"/containers/{first}/json")[1]["State"]["StartedAt"]
    compose("restart", "app")
    ((again, _),) = containers(engine, "app").items()
    assert again == first
    assert engine.request("GET", f"/containers/{first}/json")[1]["State"]["StartedAt"] > started
    with compose.begin("logs", "-f", "--no-color") as following:
        assert following.stdout is not None
        assert any("going on" in line for line in following.stdout)
        compose("stop")
        assert any("exited with code 0" in line for line in following.stdout)
        following.communicate(timeout=60)
    compose("down")
    assert not names(engine, "/networks")
