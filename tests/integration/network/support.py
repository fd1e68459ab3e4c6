"""What tests of networks of users' own do with the real docker client."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sampan.linux.netlink import Netlink
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


@contextmanager
def parent_interface(engine: Engine) -> Iterator[str]:
    """The name of an interface of the host for macvlans."""
    number = engine.subnet.split(".")[2]
    parent, peer = f"svparent{number}", f"svpeer{number}"
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    with Netlink() as netlink:
        try:
            netlink.add_veth(parent, 0, peer, bytes.fromhex("024200000009"), here, 1500)
        finally:
            os.close(here)
        try:
            netlink.set_link(socket.if_nametoindex(peer), up=True)
            yield parent
        finally:
            netlink.delete_link(parent)


def remove_networks(engine: Engine) -> None:
    """Remove every network of users' own, and the containers before."""
    engine.remove_containers()
    for _ in range(2):  # configurations after those that are made of them
        for network in engine.request("GET", '/networks?filters={"type":["custom"]}')[1]:
            engine.request("DELETE", f"/networks/{network['Id']}")
