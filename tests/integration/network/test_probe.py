"""Whether the kernel makes macvlans is tried out, and no trial is left. In a network namespace of the test's own."""

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.root

SCENARIO = """
import os, signal, sys
from sampan.linux.netlink import Netlink
from sampan.network.bridge import BridgeSettings
from sampan.network.rules import Rules
from sampan.network.sublinks import Sublinks

add_sub = Netlink.add_sub

def add_and_die(*words, **named):
    add_sub(*words, **named)
    os.kill(os.getpid(), signal.SIGKILL)

network = Sublinks(BridgeSettings(bridge="b0", mode="passthru"), Rules("sampan_b0"), "macvlan")
network._try()
network._try()  # a passthru is the only one of its parent: the first is gone
Netlink.add_sub = add_and_die
network._try()
"""


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"sp{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


def test_nothing_is_left_of_a_trial_even_when_it_is_killed(netns: str) -> None:
    subprocess.run(["ip", "-n", netns, "link", "add", "b0", "type", "bridge"], check=True, timeout=30)
    before = subprocess.run(["ip", "-n", netns, "link"], check=True, capture_output=True, timeout=30).stdout
    words = ["ip", "netns", "exec", netns, sys.executable, "-c", SCENARIO]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    after = subprocess.run(["ip", "-n", netns, "link"], check=True, capture_output=True, timeout=30).stdout
    assert after.decode() == before.decode()
