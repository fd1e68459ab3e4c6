"""What a container's user writes into /etc/hosts and /etc/resolv.conf stays when its networks change; its neighbours learn its address."""

import socket
import struct
from collections.abc import Callable

import pytest

from tests.integration.network.support import Docker, ok

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_networks")]


def test_edits_stay(docker: Docker, front: str, subnets: Callable[[int], str]) -> None:
    ok(docker("network", "create", "--subnet", subnets(1), "back"))
    ok(docker("run", "-d", "--name", "web", "--network", front, "busybox", "sleep", "600"))
    ok(docker("exec", "web", "sh", "-c", "echo 192.0.2.9 mine >>/etc/hosts; echo options timeout:9 >>/etc/resolv.conf"))
    resolv = ok(docker("exec", "web", "cat", "/etc/resolv.conf"))
    own = subnets(1).replace(".0/24", ".2")
    ok(docker("network", "connect", "back", "web"))
    hosts = ok(docker("exec", "web", "cat", "/etc/hosts"))
    assert (hosts.count("192.0.2.9 mine"), hosts.count(f"{own}\t")) == (1, 1)
    ok(docker("network", "disconnect", front, "web"))
    hosts = ok(docker("exec", "web", "cat", "/etc/hosts"))
    assert (hosts.count("192.0.2.9 mine"), hosts.count(f"{own}\t"), subnets(0).removesuffix("0/24") in hosts) == (1, 1, False)
    assert ok(docker("exec", "web", "cat", "/etc/resolv.conf")) == resolv
    ok(docker("exec", "web", "sh", "-c", "head -c 2000000 /dev/zero | tr '\\0' x >>/etc/hosts"))
    ok(docker("network", "disconnect", "back", "web"))
    assert int(ok(docker("exec", "web", "stat", "-c", "%s", "/etc/hosts"))) > 2000000
    ok(docker("restart", "-t", "0", "web"))
    assert "mine" not in ok(docker("exec", "web", "cat", "/etc/hosts"))  # as docker: a start writes it anew


def test_an_address_is_announced(docker: Docker, front: str, subnets: Callable[[int], str]) -> None:
    bridge = f"br-{ok(docker('network', 'inspect', '-f', '{{.Id}}', front))[:12]}"
    address = subnets(0).replace(".0/24", ".77")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as listening:
        listening.bind((bridge, 0x0806))
        listening.settimeout(10)
        asked = ("--network", front, "--ip", address, "--mac-address", "02:00:00:00:00:77")
        ok(docker("run", "-d", "--name", "new", *asked, "busybox", "sleep", "600"))
        while True:
            frame = listening.recv(100)
            sender, source, target = frame[22:28], frame[28:32], frame[38:42]
            if source == target == socket.inet_aton(address):
                assert (struct.unpack("!H", frame[12:14])[0], sender.hex(":")) == (0x0806, "02:00:00:00:00:77")
                return
