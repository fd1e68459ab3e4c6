"""Networks of users' own, through the real docker client and ours: addresses, names, isolation, live changes, and what outlives kills."""

import json
import signal
from collections.abc import Callable

import pytest

from sampan.network.bridge import owned
from tests.integration.network.support import SERVE, Docker, ok, parent_interface, serve
from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_networks")]


@pytest.fixture
def back(docker: Docker, subnets: Callable[[int], str]) -> str:
    ok(docker("network", "create", "--subnet", subnets(1), "back"))
    return "back"


def fetch(docker: Docker, container: str, host: str) -> str:
    """What an HTTP server says to a container; "" where none is reached."""
    return docker("exec", container, "timeout", "2", "wget", "-qO-", f"http://{host}/").stdout.strip()


def test_names_addresses_and_aliases(docker: Docker, front: str, subnets: Callable[[int], str]) -> None:
    address = subnets(0).replace(".0/24", ".77")
    serve(docker, "web", "--network", front, "--network-alias", "shared", "--ip", address)
    serve(docker, "db", "--network", front, "--network-alias", "shared", "--link", "web:linked")
    for host, said in (("web", "web"), ("db", "db"), ("linked", "web"), ("web.front", "web"), (address, "web")):
        assert fetch(docker, "db", host) == said, host
    assert fetch(docker, "web", "linked") == ""
    assert ok(docker("exec", "db", "nslookup", "shared")).count(subnets(0).removesuffix("0/24")) == 2
    shown = json.loads(ok(docker("inspect", "-f", "{{json .NetworkSettings.Networks.front}}", "web")))
    assert (shown["IPAddress"], shown["Aliases"], shown["DNSNames"][:2]) == (address, ["shared"], ["web", "shared"])
    resolv = ok(docker("exec", "web", "cat", "/etc/resolv.conf"))
    assert "nameserver 127.0.0.11\n" in resolv
    assert "options ndots:0\n" in resolv
    assert f"{address}\t" in ok(docker("exec", "web", "cat", "/etc/hosts"))
    reverse = ok(docker("exec", "db", "nslookup", address))
    assert "web.front" in reverse
    for refused in ("front", "bridge"):
        assert docker("network", "rm", refused).returncode == 1
    ok(docker("rm", "-f", "db"))
    assert (
        "can't resolve" in docker("exec", "web", "ping", "-c1", "db").stderr
        or "bad address" in docker("exec", "web", "ping", "-c1", "db").stderr
    )


def test_networks_do_not_reach_each_other_until_joined(docker: Docker, front: str, back: str) -> None:
    serve(docker, "web", "--network", front)
    serve(docker, "db", "--network", back)
    hosts = {name: ok(docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)) for name in ("web", "db")}
    assert fetch(docker, "web", "db") == ""
    assert fetch(docker, "web", hosts["db"]) == ""
    ok(docker("network", "connect", "--alias", "store", back, "web"))
    assert fetch(docker, "web", "db") == "db"
    assert fetch(docker, "db", "store") == "web"
    assert len(ok(docker("exec", "web", "ls", "/sys/class/net")).split()) == 3
    again = docker("network", "connect", back, "web")
    assert (again.returncode, again.stderr) == (1, "Error response from daemon: endpoint with name web already exists in network back\n")
    ok(docker("network", "disconnect", front, "web"))
    assert "default via" in ok(docker("exec", "web", "ip", "route"))
    assert fetch(docker, "db", "web") == "web"
    gone = docker("network", "disconnect", front, "web")
    assert "is not connected to network front" in gone.stderr
    ok(docker("restart", "-t", "0", "web"))
    assert fetch(docker, "db", "store") == "web"


def test_a_connect_that_fails_leaves_the_container_as_it_was(docker: Docker, engine: Engine, subnets: Callable[[int], str]) -> None:
    """Here for want of an address for the name service; the default route had gone to the new network by then, first by its name."""
    broken = "ip addr del 127.0.0.1/8 dev lo; touch /done; exec sleep 600"
    ok(docker("run", "-d", "--name", "c1", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", broken))
    ok(docker("exec", "c1", "sh", "-c", "until test -e /done; do usleep 20000; done"))
    looks = ("exec", "c1", "sh", "-c", "ip route; ls /sys/class/net")
    before = ok(docker(*looks))
    assert before.startswith("default via")
    with parent_interface(engine) as parent:
        for driver in (("bridge",), ("macvlan", "-o", f"parent={parent}")):
            ok(docker("network", "create", "--subnet", subnets(1), "-d", *driver, "aaa"))
            failed = docker("network", "connect", "aaa", "c1")
            assert "failed to set up container networking: the name service: " in failed.stderr
            assert ok(docker(*looks)) == before
            assert list(json.loads(ok(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "c1")))) == ["bridge"]
            ok(docker("network", "rm", "aaa"))


def test_a_connect_whose_files_cannot_be_written_leaves_nothing(docker: Docker, engine: Engine, subnets: Callable[[int], str]) -> None:
    ok(docker("network", "create", "--subnet", subnets(1), "aaa"))
    container = ok(docker("run", "-d", "--name", "c1", "-p", "127.0.0.1::80", "busybox", "sleep", "600"))
    looks = ("exec", "c1", "sh", "-c", "ip route; ls /sys/class/net")
    before, port = ok(docker(*looks)), ok(docker("port", "c1"))
    hosts = engine.data_root / "containers" / container / "hosts"
    hosts.rename(hosts.with_name("away"))
    hosts.mkdir()
    assert "is a directory" in docker("network", "connect", "aaa", "c1").stderr.lower()
    assert (ok(docker(*looks)), ok(docker("port", "c1"))) == (before, port)
    assert list(json.loads(ok(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "c1")))) == ["bridge"]
    ok(docker("network", "rm", "aaa"))
    assert engine.findings() == []


def test_a_published_port_is_reached_from_another_network(docker: Docker, engine: Engine, front: str, back: str) -> None:
    serve(docker, "db", "--network", back, "-p", "80")
    serve(docker, "local", "--network", back, "-p", "127.0.0.1::80")
    serve(docker, "web", "--network", front)
    host = engine.subnet.partition("/")[0]
    port, hidden = (ok(docker("port", name, "80")).splitlines()[0].rpartition(":")[2] for name in ("db", "local"))
    assert fetch(docker, "web", f"{host}:{port}") == "db"
    assert fetch(docker, "db", f"{host}:{port}") == "db"
    assert fetch(docker, "web", f"{host}:{hidden}") == ""
    assert "published ports of db can be reached from other hosts" in docker("info").stderr


def test_an_internal_network_goes_nowhere(docker: Docker, subnets: Callable[[int], str]) -> None:
    ok(docker("network", "create", "--internal", "--subnet", subnets(0), "inside"))
    serve(docker, "web", "--network", "inside", "-p", "80", "--cap-add", "NET_ADMIN")
    serve(docker, "db", "--network", "inside")
    assert fetch(docker, "db", "web") == "web"
    assert "default" not in ok(docker("exec", "web", "ip", "route"))
    assert ok(docker("port", "web")) == ""
    gateway = subnets(0).replace(".0/24", ".1")
    ok(docker("exec", "web", "ip", "route", "add", "default", "via", gateway))
    assert docker("exec", "web", "ping", "-c1", "-W1", "1.1.1.1").returncode == 1


def test_a_container_in_the_network_of_another(docker: Docker, front: str) -> None:
    serve(docker, "web", "--network", front)
    shared = docker(
        "run", "--rm", "--network", "container:web", "busybox", "sh", "-c", "wget -qO- http://127.0.0.1/; hostname; cat /etc/hosts"
    )
    lines = ok(shared).splitlines()
    assert lines[0] == "web"
    assert lines[2:] == ok(docker("exec", "web", "cat", "/etc/hosts")).splitlines()
    both = docker("run", "--rm", "--network", "container:web", "-p", "80:80", "busybox", "true")
    assert "conflicting options: port publishing and the container type network mode" in both.stderr
    ok(docker("stop", "-t", "0", "web"))
    late = docker("run", "--rm", "--network", "container:web", "busybox", "true")
    assert "cannot join network of a non running container" in late.stderr


def test_what_is_wrong_is_said_in_dockers_words(docker: Docker, front: str, subnets: Callable[[int], str]) -> None:
    wrong = {
        ("create", "front"): "network with name front already exists",
        ("create", "--subnet", subnets(0), "other"): "invalid pool request: Pool overlaps with other one on this address space",
        ("create", "--subnet", "10.1.1.1/24", "other"): "invalid network config:\ninvalid subnet 10.1.1.1/24: it should be 10.1.1.0/24",
        ("create", "--driver", "nope", "other"): 'plugin "nope" not found',
        ("create", "--driver", "host", "other"): 'only one instance of "host" network is allowed',
        ("create", "host"): "operation is not permitted on predefined host network",
        ("create", "-o", "com.docker.network.driver.mtu=x", "other"): (
            'failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing "x": invalid syntax)'
        ),
        ("rm", "host"): "host is a pre-defined network and cannot be removed\nexit status 1",
        ("rm", "nope"): "network nope not found\nexit status 1",
        ("connect", "front", "nope"): "No such container: nope",
        ("connect", "nope", "nope"): "network nope not found",
    }
    for arguments, words in wrong.items():
        done = docker("network", *arguments)
        assert (done.returncode, done.stderr) == (1, f"Error response from daemon: {words}\n"), arguments
    outside = docker("run", "--rm", "--network", front, "--ip", "10.9.9.9", "busybox", "true")
    assert outside.returncode == 125
    assert "no configured subnet or ip-range contain the IP address 10.9.9.9" in outside.stderr
    nowhere = docker("run", "--rm", "--network", "nope", "busybox", "true")
    assert "failed to set up container networking: network nope not found" in nowhere.stderr
    assert ok(docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")) == "front"


def test_our_client_does_the_same(engine: Engine, subnets: Callable[[int], str]) -> None:
    made = engine.cli("network", "create", "--subnet", subnets(0), "--label", "a=b", "mine")
    assert len(ok(made)) == 64
    ok(engine.cli("run", "-d", "--name", "one", "--network", "mine", "busybox", "sleep", "60"))
    shown = json.loads(ok(engine.cli("network", "inspect", "mine")))[0]
    assert (shown["Labels"], [item["Name"] for item in shown["Containers"].values()]) == ({"a": "b"}, ["one"])
    busy = engine.cli("network", "rm", "mine")
    assert busy.stderr.startswith(
        'Error response from daemon: error while removing network: network mine has active endpoints (name:"one" id:"'
    )
    ok(engine.cli("network", "disconnect", "mine", "one"))
    assert ok(engine.cli("network", "prune", "-f", "--filter", "label=a")) == "Deleted Networks:\nmine"


def test_names_are_answered_after_any_two_of_ours_were_killed(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    number = engine.subnet.split(".")[2]
    ok(engine.cli("network", "create", "--subnet", f"10.218.{number}.0/24", "front"))
    ok(engine.cli("run", "-d", "--name", "web", "--network", "front", "busybox", "sh", "-c", SERVE, "web"))
    asking = "while true; do nslookup web >/dev/null 2>&1; echo $? >>/codes; usleep 100000; done"
    ok(engine.cli("run", "-d", "--name", "asker", "--network", "front", "busybox", "sh", "-c", asking))
    ok(engine.cli("exec", "asker", "nslookup", "web"))
    engine.stop(signal.SIGKILL)
    engine.start()
    ok(engine.cli("exec", "asker", "nslookup", "web"))
    codes = ok(engine.cli("exec", "asker", "cat", "/codes")).split()
    assert set(codes) == {"0"}, "a query waits while sampand is away"
    assert ok(engine.cli("exec", "asker", "wget", "-qO-", "http://web/")) == "web"
    ok(engine.cli("network", "create", "--subnet", f"10.219.{number}.0/24", "back"))
    ok(engine.cli("network", "connect", "back", "web"))
    with pytest.raises(AssertionError, match="active endpoints"):
        ok(engine.cli("network", "rm", "front"))
    ok(engine.cli("rm", "-f", "web", "asker"))
    assert len(owned(str(engine.exec_root))) == 3
    ok(engine.cli("network", "rm", "front", "back"))
    assert owned(str(engine.exec_root)) == [engine.bridge]
