"""What docker 28 does with networks and Sampan does the same: links, ports that move, drivers' options, configurations, messages."""

import json
import re
import subprocess
from collections.abc import Callable

import pytest

from tests.integration.network.support import Docker, ok, parent_interface, serve
from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_networks")]


def fetch(port: str) -> str:
    return subprocess.run(
        ["curl", "-sm2", f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=10, check=False
    ).stdout.strip()


def test_legacy_links(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "db", "-e", "FOO=bar", "--expose", "81", "-p", "127.0.0.1::80", "busybox", "sleep", "60"))
    address = ok(docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db"))
    hostname = ok(docker("inspect", "-f", "{{.Config.Hostname}}", "db"))
    seen = ok(
        docker("run", "--name", "app", "--link", "db:store", "busybox", "sh", "-c", "env; cat /etc/hosts; ping -c1 store")
    ).splitlines()
    assert f"{address}\tstore {hostname} db" in seen
    for line in (
        f"STORE_PORT=tcp://{address}:80", f"STORE_PORT_80_TCP_ADDR={address}", f"STORE_PORT_80_TCP_END=tcp://{address}:81",
        "STORE_PORT_81_TCP_PROTO=tcp", "STORE_NAME=/app/store", "STORE_ENV_FOO=bar",
    ):  # fmt: skip
        assert line in seen
    assert json.loads(ok(docker("inspect", "-f", "{{json .HostConfig.Links}}", "app"))) == ["/db:/app/store"]
    ok(docker("run", "-d", "--name", "user", "--link", "db", "busybox", "sleep", "60"))
    ok(docker("rename", "db", "base"))
    ok(docker("stop", "-t", "0", "base"))
    ok(docker("run", "-d", "--name", "squatter", "busybox", "sleep", "60"))
    ok(docker("start", "base"))
    moved = ok(docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "base"))
    assert moved != address
    assert f"{moved}\tdb {hostname} base" in ok(docker("exec", "user", "cat", "/etc/hosts"))
    ok(docker("stop", "-t", "0", "base"))
    assert "Cannot link to a non running container: /base AS /app/store" in docker("start", "app").stderr
    assert "could not get container for nope: No such container: nope" in docker("create", "--link", "nope", "busybox").stderr
    ok(docker("network", "create", "away"))
    ok(docker("run", "-d", "--name", "far", "--network", "away", "busybox", "sleep", "60"))
    assert re.search("container [0-9a-f]{64} not attached to default bridge network", docker("run", "--link", "far", "busybox").stderr)


def test_a_link_is_removed_by_its_path(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "base", "busybox", "sleep", "60"))
    ok(docker("run", "-d", "--name", "app", "--link", "base:store", "--link", "base:other", "busybox", "sleep", "60"))
    default = docker("rm", "--link", "app")
    assert default.stderr.endswith("Conflict, cannot remove the default link name of the container\n")
    assert docker("rm", "--link", "app/nope").stderr == "Error response from daemon: No such container: app/nope\n"
    assert ok(docker("rm", "--link", "app/store")) == "app/store"
    assert ok(docker("inspect", "-f", "{{.HostConfig.Links}}", "app")) == "[/base:/app/other]"
    hosts = ok(docker("exec", "app", "cat", "/etc/hosts"))
    assert "other" in hosts
    assert "store" not in hosts
    assert ok(docker("ps", "-q", "--filter", "name=base")) != ""


def test_ports_go_with_the_gateway(docker: Docker, subnets: Callable[[int], str]) -> None:
    ok(docker("network", "create", "--subnet", subnets(0), "one"))
    ok(docker("network", "create", "--subnet", subnets(1), "--internal", "inner"))
    serve(docker, "web", "--network", "one", "-p", "127.0.0.1::80")
    port = ok(docker("port", "web", "80")).rpartition(":")[2]
    assert fetch(port) == "web"
    ok(docker("network", "connect", "--gw-priority", "5", "bridge", "web"))
    assert "dev eth1" in next(line for line in ok(docker("exec", "web", "ip", "route")).splitlines() if "default" in line)
    assert (ok(docker("port", "web", "80")), fetch(port)) == (f"127.0.0.1:{port}", "web")
    ok(docker("network", "disconnect", "bridge", "web"))
    assert (ok(docker("port", "web", "80")), fetch(port)) == (f"127.0.0.1:{port}", "web")
    ok(docker("network", "disconnect", "one", "web"))
    ok(docker("network", "connect", "inner", "web"))
    assert (ok(docker("port", "web")), fetch(port)) == ("", "")
    ok(docker("network", "connect", "one", "web"))
    assert fetch(ok(docker("port", "web", "80")).rpartition(":")[2]) == "web"
    ok(docker("network", "disconnect", "one", "web"))
    ok(docker("network", "disconnect", "inner", "web"))
    ok(docker("restart", "-t", "0", "web"))
    assert ok(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web")) == "{}"


def test_stopped_containers(docker: Docker, subnets: Callable[[int], str]) -> None:
    ok(docker("network", "create", "--subnet", subnets(0), "one"))
    ok(docker("network", "create", "--subnet", subnets(1), "two"))
    identifier = ok(docker("create", "--name", "c1", "--network", "one", "--ip", subnets(0).replace("0/24", "9"), "busybox", "sleep", "60"))
    ok(docker("network", "connect", "--alias", "also", "two", "c1"))
    words = f"Error response from daemon: container {identifier} is not connected to "
    assert docker("network", "disconnect", "bridge", "c1").stderr == f"{words}the network bridge\n"
    assert docker("network", "disconnect", "nope", "c1").stderr == f"{words}the network nope\n"
    ok(docker("start", "c1"))
    assert docker("network", "disconnect", "bridge", "c1").stderr == f"{words}network bridge\n"
    assert "endpoint nope not found" in docker("network", "disconnect", "-f", "two", "nope").stderr
    assert ok(docker("network", "ls", "-q", "--filter", "dangling=true")) == ""
    ok(docker("restart", "-t", "0", "c1"))
    assert ok(docker("inspect", "-f", "{{.NetworkSettings.Networks.one.IPAddress}}", "c1")) == subnets(0).replace("0/24", "9")
    again = docker("run", "--rm", "--network", "one", "--ip", subnets(0).replace("0/24", "9"), "busybox", "true")
    assert "failed to set up container networking: Address already in use" in again.stderr
    ok(docker("stop", "-t", "0", "c1"))
    network_id = ok(docker("network", "inspect", "-f", "{{.Id}}", "two"))
    ok(docker("network", "rm", "two"))
    assert f"failed to set up container networking: network {network_id} not found" in docker("start", "c1").stderr
    ok(docker("network", "disconnect", "-f", "two", "c1"))
    ok(docker("start", "c1"))


def test_what_the_default_network_does_not_have(docker: Docker) -> None:
    ok(docker("create", "--name", "c1", "busybox", "true"))
    alone = "Error response from daemon: invalid endpoint settings:\n"
    ok(docker("network", "disconnect", "bridge", "c1"))
    alias = docker("network", "connect", "--alias", "q", "bridge", "c1")
    assert alias.stderr == f"{alone}network-scoped alias is supported only for containers in user defined networks\n"
    address = docker("network", "connect", "--ip", "172.17.0.77", "bridge", "c1")
    assert address.stderr == f"{alone}user specified IP address is supported on user defined networks only\n"


def test_configurations(docker: Docker, subnets: Callable[[int], str]) -> None:
    ok(
        docker(
            "network",
            "create",
            "--config-only",
            "--subnet",
            subnets(0),
            "--label",
            "k=v",
            "-o",
            "com.docker.network.driver.mtu=1400",
            "conf",
        )
    )
    ok(docker("network", "create", "--config-from", "conf", "made"))
    shown = json.loads(ok(docker("network", "inspect", "made")))[0]
    assert (shown["ConfigFrom"], shown["Labels"], shown["IPAM"]["Config"]) == ({"Network": "conf"}, {"k": "v"}, [{"Subnet": subnets(0)}])
    assert "mtu 1400" in ok(docker("run", "--rm", "--network", "made", "busybox", "ip", "link", "show", "eth0"))
    for arguments, words in {
        ("rm", "conf"): 'error while removing network: configuration network "conf" is in use',
        (
            "create",
            "--config-from",
            "conf",
            "--label",
            "x=y",
            "n2",
        ): "user specified configurations are not supported if the network",
        (
            "create",
            "--config-from",
            "conf",
            "--config-only",
            "n2",
        ): "a configuration network cannot depend on another",
        ("create", "--config-from", "made", "n2"): 'configuration network "made" does not exist',
    }.items():
        assert words in docker("network", *arguments).stderr
    assert "cannot create endpoint on configuration-only network" in docker("run", "--rm", "--network", "conf", "busybox").stderr


def test_options_of_the_bridge(docker: Docker, engine: Engine, subnets: Callable[[int], str]) -> None:
    key = "com.docker.network.bridge."
    ok(docker("network", "create", "--subnet", subnets(0), "-o", "com.docker.network.container_iface_prefix=net", "named"))
    assert "net0" in ok(docker("run", "--rm", "--network", "named", "busybox", "ls", "/sys/class/net"))
    ok(docker("network", "create", "--subnet", subnets(1), "--ip-range", subnets(1).replace("0/24", "128/25"), "part"))
    assert f"default via {subnets(1).replace('0/24', '128')} " in ok(docker("run", "--rm", "--network", "part", "busybox", "ip", "route"))
    ok(docker("network", "create", "--subnet", subnets(2), "-o", f"{key}gateway_mode_ipv4=routed", "routed"))
    ok(docker("run", "-d", "--name", "r1", "--network", "routed", "-p", "80", "busybox", "sleep", "60"))
    table = subprocess.run(["nft", "list", "table", "ip", f"sampan_{engine.bridge}"], capture_output=True, text=True, check=True).stdout
    assert f"{subnets(2).replace('0/24', '2')} . tcp . 80" in table
    assert subnets(2) not in re.search("set masqueraded {.*?\n\t}", table, re.DOTALL).group()  # type: ignore[union-attr]
    ok(docker("network", "create", "--internal", "--subnet", subnets(3), "-o", f"{key}gateway_mode_ipv4=isolated", "alone"))
    bridge = f"br-{ok(docker('network', 'inspect', '-f', '{{.Id}}', 'alone'))[:12]}"
    assert "inet " not in subprocess.run(["ip", "addr", "show", bridge], capture_output=True, text=True, check=True).stdout
    for option, words in {
        f"{key}gateway_mode_ipv4=isolated": "gateway mode 'isolated' can only be used for an internal network",
        f"{key}gateway_mode_ipv6=foo": f"failed to parse {key}gateway_mode_ipv6 value: foo (unknown gateway mode foo)",
        f"{key}gateway_mode_ipv4=": f"failed to parse {key}gateway_mode_ipv4 value:  (unknown gateway mode )",
        f"{key}host_binding_ipv4=127.0.0.1/8": f"failed to parse {key}host_binding_ipv4 value: 127.0.0.1/8 (nil ip)",
        f"{key}host_binding_ipv4=": f"failed to parse {key}host_binding_ipv4 value:  (nil ip)",
        f"{key}trusted_host_interfaces=lo": f"{key}trusted_host_interfaces: not implemented by Sampan yet",
        "com.docker.network.host_ipv4=nope": "failed to parse com.docker.network.host_ipv4 value: nope (nil ip)",
        "com.docker.network.host_ipv4=10.1.1.1": "com.docker.network.host_ipv4: not implemented by Sampan yet",
        "com.docker.network.enable_ipv4=x": 'driver-opt "com.docker.network.enable_ipv4" is not a valid bool',
        "com.docker.network.enable_ipv6=x": 'driver-opt "com.docker.network.enable_ipv6" is not a valid bool',
        "com.docker.network.enable_ipv4=0": "IPv4 or IPv6 must be enabled",
        "com.docker.network.driver.mtu=-5": "invalid MTU number: -5",
    }.items():
        assert words in docker("network", "create", "-o", option, "wrong").stderr


def test_macvlan(docker: Docker, engine: Engine, subnets: Callable[[int], str]) -> None:
    with parent_interface(engine) as parent:
        for mode, answers in (("bridge", True), ("private", False)):
            options = ("-o", f"parent={parent}", "-o", f"macvlan_mode={mode}", "--subnet", subnets(0))
            ok(docker("network", "create", "-d", "macvlan", *options, "lan"))
            for name in ("m1", "m2"):
                ok(docker("run", "-d", "--name", name, "--network", "lan", "busybox", "sleep", "60"))
            assert (docker("exec", "m1", "ping", "-c1", "-W1", "m2").returncode == 0) == answers
            engine.remove_containers()
            ok(docker("network", "rm", "lan"))
        wrong = docker("network", "create", "-d", "macvlan", "-o", f"parent={parent}", "-o", "macvlan_mode=foo", "lan")
        assert "requested macvlan mode 'foo' is not valid, 'bridge' mode is the macvlan driver default" in wrong.stderr
        wrong = docker("network", "create", "-d", "macvlan", "-o", "parent=nosuch0", "lan")
        assert "invalid subinterface vlan name nosuch0, example formatting is eth0.10" in wrong.stderr
