"""What tests of networks of users' own do with the real docker client."""

import subprocess
from collections.abc import Callable

from tests.support.engine import Engine

Docker = Callable[..., subprocess.CompletedProcess[str]]
SERVE = "echo $0 > /index.html; exec httpd -f"
"""An HTTP server that says a word."""


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """Its output; it must succeed."""
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def serve(docker: Docker, name: str, *options: str) -> None:
    """Start an HTTP server that says its name, and wait until it does."""
    ok(docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", SERVE, name))
    ok(docker("exec", name, "sh", "-c", "until wget -qO /dev/null http://127.0.0.1/; do usleep 20000; done"))


def remove_networks(engine: Engine) -> None:
    """Remove every network of users' own, and the containers before."""
    engine.remove_containers()
    for _ in range(2):  # configurations after those that are made of them
        for network in engine.request("GET", '/networks?filters={"type":["custom"]}')[1]:
            engine.request("DELETE", f"/networks/{network['Id']}")
