"""What somebody takes out of the host's packet filter is put back. In a network namespace of the test's own."""

import secrets
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

SCENARIO = """
import asyncio, os, subprocess, time
from sampan.network.bridge import BridgeSettings
from sampan.network.ports import PortRequest
from tests.support.networks import BridgeNetwork

def ask(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout

def has_way():
    return "-A FORWARD -j SAMPAN-sp0" in ask("iptables", "-S") and "-A SAMPAN-sp0 -o sp0 -j ACCEPT" in ask("iptables", "-S")

def has_port():
    return "127.0.0.1 . 8080" in ask("nft", "list", "map", "ip", "sampan_sp0", "on_address") and "drop" in ask(
        "nft", "list", "chain", "ip", "sampan_sp0", "guard")

async def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)

async def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    driver = BridgeNetwork(BridgeSettings(bridge="sp0", bip="10.77.0.1/24"))
    await driver.start()
    await driver.attach("ab" * 32, "web", [PortRequest(80, "tcp", "127.0.0.1", 8080, 8080)])
    assert has_port() and not has_way(), "a host that lets through needs no rule"
    subprocess.run(["iptables", "-P", "FORWARD", "DROP"], check=True)
    await until(has_way, "after a firewall that came later")
    subprocess.run(["iptables", "-F"], check=True)
    await until(has_way, "after iptables -F")
    subprocess.run(["iptables", "-F", "SAMPAN-sp0"], check=True)
    await until(has_way, "after a flush of our chain")
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    await until(has_port, "after nft flush ruleset")
    subprocess.run(["nft", "flush", "chain", "ip", "sampan_sp0", "guard"], check=True)
    await until(has_port, "after a flush of the guard")
    subprocess.run(["iptables", "-P", "FORWARD", "DROP"], check=True)
    await until(has_way, "after the firewall's restart")
    await driver.stop(remove=True)
    await asyncio.sleep(1.0)  # what is not wanted would happen now
    assert "SAMPAN" not in ask("iptables", "-S") and "sampan" not in ask("nft", "list", "ruleset")

asyncio.run(main())
"""


MANY_PORTS = """
from sampan.linux.nftables import Monitor
from sampan.network.firewall import Firewall
from sampan.network.ports import Published

monitor = Monitor()
firewall = Firewall("sampan_sp0")
firewall.create()
assert {change.table for change in monitor.read()} == {"sampan_sp0"}
firewall.publish({Published(port, "tcp", "0.0.0.0", port): "10.77.0.2" for port in range(1000, 5000)})
assert monitor.read() == [], "changes of elements are no news, and nothing is lost"
"""

ONCE = """
import asyncio, subprocess
from sampan.network import firewall, rules
from sampan.network.firewall import Zone

made = []
create = firewall.Firewall.create
firewall.Firewall.create = lambda self, zones=(): (made.append(1), create(self, zones))[1]

async def main():
    kept = rules.Rules("sampan_sp0")
    await kept.start()
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    await kept.add(Zone(bridge="sp0"))
    assert len(made) == 2, "made anew for the network"
    await asyncio.sleep(1.0)  # what is not wanted would happen now
    assert len(made) == 2, made
    await kept.stop(remove=True)

asyncio.run(main())
"""


def run(scenario: str) -> None:
    """Run a program in a network namespace of its own."""
    name = f"sp{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    try:
        done = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", scenario], capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


def test_rules_that_vanish_are_put_back() -> None:
    run(SCENARIO)


def test_publishing_many_ports_is_not_taken_for_a_removal() -> None:
    run(MANY_PORTS)


def test_a_table_made_anew_for_a_change_is_not_made_once_more() -> None:
    run(ONCE)
