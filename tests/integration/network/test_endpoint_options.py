"""What is asked for of one container's place on a network: the interface's name and sysctls, link-local addresses, at a start and live."""

import json
from collections.abc import Callable

import pytest

from tests.integration.network.support import Docker, ok, serve
from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_networks")]

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
JOINING = "Error response from daemon: failed to set up container networking: "


def test_name_and_sysctls_of_an_interface(docker: Docker, front: str) -> None:
    sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.ifname.forwarding=0"
    network = f'name={front},driver-opt={IFNAME}=lan0,"driver-opt={SYSCTLS}={sysctls}"'
    directory = "/proc/sys/net/ipv4/conf/lan0"
    shown = docker("run", "--rm", "--network", network, "busybox", "cat", f"{directory}/log_martians", f"{directory}/forwarding")
    assert ok(shown).split() == ["1", "0"]


def test_a_name_that_was_asked_for_is_given_to_nobody_else(docker: Docker, front: str) -> None:
    ok(docker("network", "create", "back"))
    asked = f"name={front},driver-opt={IFNAME}=eth0"
    ok(docker("run", "-d", "--name", "box", "--network", "name=back", "--network", asked, "busybox", "sleep", "60"))
    address = ok(docker("inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "box"))
    assert f"inet {address}/" in ok(docker("exec", "box", "ip", "addr", "show", "eth0"))
    assert ok(docker("exec", "box", "ls", "/sys/class/net")).split() == ["eth0", "eth1", "lo"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (f"{SYSCTLS}=net.ipv4.conf.IFNAME.nope=1", "/proc/sys/net/ipv4/conf/eth0/nope is not a sysctl file"),
        (f"{SYSCTLS}=net.ipv4.conf.IFNAME.forwarding", "expected sysctl 'net.ipv4.conf.ifname.forwarding' to have format name=value"),
        (
            f"{SYSCTLS}=net.ipv4.conf.IFNAME.forwarding=z",
            "unable to write to '/proc/sys/net/ipv4/conf/eth0/forwarding': write /proc/sys/net/ipv4/conf/eth0/forwarding: invalid argument",
        ),
        (f"{IFNAME}=a/b", 'error renaming interface "VETH" to "a/b": invalid argument'),
        (f"{IFNAME}=a%db", 'error renaming interface "VETH" to "a%db": invalid argument'),
        (f"{IFNAME}=aaaaaaaaaaaaaaaaaaaa", 'error renaming interface "VETH" to "aaaaaaaaaaaaaaaaaaaa": numerical result out of range'),
        (f"{IFNAME}=lo", 'error renaming interface "VETH" to "lo": file exists'),
    ],
)
def test_options_that_cannot_be(docker: Docker, engine: Engine, front: str, option: str, words: str) -> None:
    done = docker("run", "--name", "box", "--network", f"name={front},driver-opt={option}", "busybox", "true")
    assert done.returncode == 125
    start = f"docker: {JOINING}failed to add interface "
    assert done.stderr.startswith(start), done.stderr
    veth, _, rest = done.stderr.removeprefix(start).partition(" to sandbox: ")
    assert rest.splitlines()[0] == words.replace("VETH", veth)
    assert engine.request("GET", f"/networks/{front}")[1]["Containers"] == {}


def test_options_that_are_refused_at_create(docker: Docker, front: str) -> None:
    for option, words in (
        (
            ("--network", f"name={front},driver-opt={SYSCTLS}=net.ipv4.conf.eth0.forwarding=1"),
            "unrecognised network interface sysctl 'net.ipv4.conf.eth0.forwarding=1'; represent 'net.X.Y.ethN.Z=V' as "
            "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
        ),
        (("--network", front, "--link-local-ip", "nowhere"), "invalid link-local IP address: nowhere"),
    ):
        done = docker("create", *option, "busybox", "true")
        expected = f"Error response from daemon: invalid config for network {front}: invalid endpoint settings:\n{words}\n"
        assert (done.returncode, done.stderr) == (1, expected)


def test_link_local_addresses(docker: Docker, front: str) -> None:
    shown = ok(docker("run", "--rm", "--network", front, "--link-local-ip", "169.254.7.7", "busybox", "ip", "addr", "show", "eth0"))
    assert "inet 169.254.7.7/16 " in shown
    elsewhere = docker("run", "--rm", "--network", front, "--link-local-ip", "10.1.1.1", "busybox", "true")
    assert elsewhere.stderr.startswith(f"docker: {JOINING}invalid link local IP address: 10.1.1.1\n")
    assert elsewhere.returncode == 125


def test_connect_to_a_network_with_everything(docker: Docker, front: str, subnets: Callable[[int], str]) -> None:
    serve(docker, "web", "--network", front)
    ok(docker("run", "-d", "--name", "box", "busybox", "sleep", "60"))
    address = subnets(0).replace(".0/24", ".50")
    options = ["--driver-opt", f"{IFNAME}=lan0", "--driver-opt", f"{SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1"]
    names = ["--alias", "store", "--link", "web:linked"]
    ok(docker("network", "connect", *options, *names, "--ip", address, "--link-local-ip", "169.254.9.9", front, "box"))
    shown = ok(docker("exec", "box", "ip", "addr", "show", "lan0"))
    assert f"inet {address}/24 " in shown
    assert "inet 169.254.9.9/16 " in shown
    assert ok(docker("exec", "box", "cat", "/proc/sys/net/ipv4/conf/lan0/log_martians")) == "1"
    assert ok(docker("exec", "box", "wget", "-qO-", "http://linked/")) == "web"
    assert address in ok(docker("exec", "web", "nslookup", "store"))
    settings = json.loads(ok(docker("inspect", "-f", "{{json .NetworkSettings.Networks.front}}", "box")))
    assert settings["IPAMConfig"] == {"IPv4Address": address, "LinkLocalIPs": ["169.254.9.9"]}
    assert (settings["Aliases"], settings["Links"]) == (["store"], ["web:linked"])
    assert settings["DriverOpts"] == {IFNAME: "lan0", SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1"}
    ok(docker("restart", "-t", "0", "box"))
    assert f"inet {address}/24 " in ok(docker("exec", "box", "ip", "addr", "show", "lan0"))


def test_connect_with_what_cannot_be_leaves_it_as_it_was(docker: Docker, front: str, subnets: Callable[[int], str]) -> None:
    ok(docker("run", "-d", "--name", "box", "busybox", "sleep", "60"))
    ok(docker("run", "-d", "--name", "other", "--network", front, "--ip", subnets(0).replace(".0/24", ".50"), "busybox", "sleep", "60"))
    for options in (
        ("--driver-opt", f"{IFNAME}=eth0"),
        ("--driver-opt", f"{SYSCTLS}=net.ipv4.conf.IFNAME.nope=1"),
        ("--link-local-ip", "10.1.1.1"),
        ("--ip", subnets(0).replace(".0/24", ".50")),
        ("--ip", "10.1.1.1"),
    ):
        done = docker("network", "connect", *options, front, "box")
        assert done.returncode == 1, options
    assert ok(docker("exec", "box", "ls", "/sys/class/net")).split() == ["eth0", "lo"]
    ok(docker("network", "connect", front, "box"))
    assert ok(docker("exec", "box", "ls", "/sys/class/net")).split() == ["eth0", "eth1", "lo"]


def test_connect_with_an_ipv6_address(docker: Docker, front: str, engine: Engine) -> None:
    number = int(engine.subnet.split(".")[2])
    made = docker("network", "create", "--ipv6", "--subnet", f"fd57:{number:x}::/64", "six")
    if "has no IPv6" in made.stderr:
        pytest.skip("this host has no IPv6")
    ok(made)
    ok(docker("run", "-d", "--name", "box", "--network", front, "busybox", "sleep", "60"))
    ok(docker("network", "connect", "--ip6", f"fd57:{number:x}::77", "--link-local-ip", "fe80::77", "six", "box"))
    shown = ok(docker("exec", "box", "ip", "addr", "show", "eth1"))
    assert f"inet6 fd57:{number:x}::77/64 " in shown
    assert "inet6 fe80::77/64 " in shown
