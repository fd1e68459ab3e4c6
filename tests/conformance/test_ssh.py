"""ssh:// hosts: sampan's client and docker's, through an ssh that is none, to a machine (this one) that has sampan or docker."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import CLI, Engine

pytestmark = pytest.mark.root

Run = Callable[..., subprocess.CompletedProcess[bytes]]
SSH = """#!/bin/sh
printf '%s\\n' "$*" >> {log}
while [ "$1" != -- ]; do shift; done
host=$2; shift 2
[ $host = down ] && {{ echo "ssh: connect to host down port 22: Connection refused" >&2; exit 255; }}
unset DOCKER_HOST
{host} PATH={far}:/usr/bin:/bin setsid -w sh -c "$*; true"
"""


class Machines:
    """The near one, whose PATH begins with the false ssh, and what the far one has in its PATH."""

    def __init__(self, root: Path, engine: Engine, docker: str) -> None:
        self.near, self.far, self.log = root / "near", root / "far", root / "log"
        self.near.mkdir()
        self.far.mkdir()
        self.engine, self.docker = engine, docker
        self.socket = f"unix://{engine.socket}"
        self._script(self.near / "ssh", SSH.format(log=self.log, far=self.far, host=f"DOCKER_HOST={self.socket}"))

    @staticmethod
    def _script(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def install(self, name: str) -> None:
        """Give the far machine a client."""
        command = shlex.join(CLI) if name == "sampan" else self.docker
        self._script(self.far / name, f'#!/bin/sh\nexec {command} "$@"\n')

    def run(self, client: str, *words: str, url: str = "ssh://me@far:2222", stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A client on the near machine."""
        environment = {**self.engine.environment(), "PATH": f"{self.near}:{os.environ['PATH']}", "DOCKER_HOST": url}
        command = CLI if client == "sampan" else [self.docker]
        return subprocess.run([*command, *words], input=stdin, capture_output=True, env=environment, timeout=60, check=False)

    def proxies(self) -> list[str]:
        """Command lines of what still proxies to the engine."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = Path("/proc", pid, "environ").read_bytes()
            except OSError:
                continue
            if "dial-stdio" in line and str(self.far).encode() in environment:
                found.append(line)
        return found


@pytest.fixture
def machines(tmp_path: Path, engine: Engine, docker_path: str) -> Machines:
    """Both machines; the far one has no client yet."""
    return Machines(tmp_path, engine, docker_path)


@pytest.mark.parametrize(("near", "far"), [("sampan", "sampan"), ("sampan", "docker"), ("docker", "docker")])
def test_a_container_by_ssh(machines: Machines, near: str, far: str) -> None:
    """Requests, and a hijacked stream that is half closed while much comes the other way."""
    machines.install(far)
    sent = os.urandom(3 << 20)
    done = machines.run(near, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 7", stdin=sent)
    assert (done.returncode, done.stdout == sent) == (7, True), done.stderr
    assert machines.run(near, "ps", "-q").stdout == b""
    wait_for_no_proxy(machines)


def wait_for_no_proxy(machines: Machines) -> None:
    no_later = time.monotonic() + 10
    while left := machines.proxies():
        assert time.monotonic() < no_later, left
        time.sleep(0.02)


def test_a_client_that_is_killed_leaves_nothing_there(machines: Machines) -> None:
    """Of a stream, too, on which nothing comes that could not be delivered."""
    machines.install("sampan")
    environment = {**machines.engine.environment(), "PATH": f"{machines.near}:{os.environ['PATH']}", "DOCKER_HOST": "ssh://far"}
    with subprocess.Popen([*CLI, "events"], stdout=subprocess.DEVNULL, env=environment) as client:
        no_later = time.monotonic() + 20
        while len(machines.proxies()) < 1:
            assert time.monotonic() < no_later
            time.sleep(0.02)
        client.kill()
    wait_for_no_proxy(machines)


def test_dockers_client_to_a_sampan(machines: Machines) -> None:
    """docker asks for docker there, which `sampan` under that name is as good as."""
    machines.install("sampan")
    (machines.far / "docker").symlink_to("sampan")
    sent = os.urandom(3 << 20)
    done = machines.run("docker", "run", "--rm", "-i", "busybox", "cat", stdin=sent)
    assert (done.returncode, done.stdout == sent) == (0, True), done.stderr


@pytest.mark.parametrize("client", ["sampan", "docker"])
def test_the_url_may_name_the_socket(machines: Machines, client: str) -> None:
    machines.install("sampan")
    machines.install("docker")
    url = f"ssh://far{machines.engine.socket}"
    assert machines.run(client, "version", "--format", "{{.Server.Os}}", url=url).stdout == b"linux\n"
    assert machines.run(client, "version", "--format", "{{.Server.Os}}", url="ssh://far/nonexistent.sock").returncode == 1


def test_a_context_may_lead_by_ssh(machines: Machines, tmp_path: Path) -> None:
    machines.install("sampan")
    config = ("--config", str(tmp_path / "config"))
    assert machines.run("sampan", *config, "context", "create", "far", "--docker", "host=ssh://far", url="").returncode == 0
    for client in ("sampan", "docker"):
        machines.install("docker")
        assert machines.run(client, *config, "--context", "far", "ps", "-q", url="").returncode == 0


def test_what_ssh_says_is_shown(machines: Machines) -> None:
    done = machines.run("sampan", "ps", url="ssh://down")
    text = done.stderr.decode()
    assert done.returncode == 1
    assert "has exited with exit status 255, make sure the URL is valid" in text
    assert text.endswith("stderr=ssh: connect to host down port 22: Connection refused\n\n")
    command = machines.log.read_text().splitlines()[0]
    assert command.startswith("-o ConnectTimeout=30 -T -- down sh -c ")


def test_no_ssh(machines: Machines) -> None:
    (machines.near / "ssh").unlink()
    environment = {**machines.engine.environment(), "PATH": str(machines.near), "DOCKER_HOST": "ssh://far"}
    done = subprocess.run([sys.executable, *CLI[1:], "ps"], capture_output=True, env=environment, timeout=60, check=False)
    assert done.stderr == b'error during connect: exec: "ssh": executable file not found in $PATH\n'
