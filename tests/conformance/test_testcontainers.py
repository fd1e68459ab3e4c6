"""testcontainers-python against the engine, with a reaper made here: its own image is at Docker Hub only."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support import reaper
from tests.support.engine import Engine
from tests.support.pythonimage import python_image

pytestmark = pytest.mark.root

Session = Callable[[str], "subprocess.Popen[str]"]

SERVER = """
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

network = Network().create()
web = (
    DockerContainer("busybox")
    .with_command(["sh", "-c", "echo ready && exec httpd -f -p 80 -h /etc"])
    .with_exposed_ports(80)
    .with_env("COLOUR", "blue")
    .with_network(network)
    .with_network_aliases("web")
    .with_kwargs(stop_signal="KILL")
    .waiting_for(LogMessageWaitStrategy("ready"))
)
web.start()
"""
COMPLETE = (
    SERVER
    + """
import json, urllib.request
url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/passwd"
client = DockerContainer("busybox").with_command("wget -q -O - http://web/passwd").with_network(network).start()
client.get_wrapped_container().wait(timeout=30)
print(json.dumps({
    "http": urllib.request.urlopen(url, timeout=20).status,
    "alias": client.get_logs()[0].decode(),
    "env": web.exec(["sh", "-c", "echo $COLOUR"]).output.decode(),
    "code": web.exec(["false"]).exit_code,
}))
client.stop()
web.stop()
network.remove()
"""
)
KILLED = (
    SERVER
    + """
import os
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID
web.get_docker_client().client.volumes.create("left", labels={LABEL_SESSION_ID: SESSION_ID})
os.kill(os.getpid(), 9)
"""
)


@pytest.fixture
def session(engine: Engine, tmp_path: Path) -> Session:
    """A function that runs a script with testcontainers."""
    pytest.importorskip("testcontainers")
    command = json.dumps([os.path.realpath(sys.executable), "-u", "/program.py"])
    query = urlencode({"fromSrc": "-", "repo": "reaper", "changes": f"CMD {command}"})
    assert engine.request("POST", f"/images/create?{query}", python_image(Path(reaper.__file__)))[0] == 200
    environment = {
        **engine.environment(),
        "HOME": str(tmp_path),
        "RYUK_CONTAINER_IMAGE": "reaper",
        "TC_POOLING_INTERVAL": "0.05",
    }

    def run(script: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return run


def left(engine: Engine) -> list[str]:
    """What there is of the session."""
    containers = [item["Names"][0] for item in engine.request("GET", "/containers/json?all=1")[1]]
    networks = [item["Name"] for item in engine.request("GET", "/networks")[1] if item["Name"] not in ("bridge", "host", "none")]
    return containers + networks + [item["Name"] for item in engine.request("GET", "/volumes")[1]["Volumes"]]


def wait_for_nothing(engine: Engine) -> None:
    deadline = time.monotonic() + 30
    while found := left(engine):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_session(engine: Engine, session: Session) -> None:
    with session(COMPLETE) as running:
        output, errors = running.communicate(timeout=90)
    assert running.returncode == 0, errors
    passwd = engine.cli("run", "--rm", "busybox", "cat", "/etc/passwd").stdout
    assert json.loads(output) == {"http": 200, "alias": passwd, "env": "blue\n", "code": 1}
    wait_for_nothing(engine)


def test_what_a_killed_session_leaves_is_reaped(engine: Engine, session: Session) -> None:
    with session(KILLED) as running:
        _, errors = running.communicate(timeout=90)
    assert running.returncode == -9, errors
    wait_for_nothing(engine)
