"""Options that few use, by the real client: what the container has of them, and what is refused in docker's words."""

import subprocess
from collections.abc import Callable

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]


def test_top_with_options_of_ps(docker: Docker) -> None:
    assert docker("run", "-d", "--network=none", "--name=two", "busybox", "sh", "-c", "sleep 987 & exec sleep 986").returncode == 0
    both = "until [ $(cat /proc/[0-9]*/comm | grep -c '^sleep$') = 2 ]; do usleep 20000; done"
    assert docker("exec", "two", "sh", "-c", both).returncode == 0
    for options in (("aux",), ("-eo", "pid,args"), ("-ef", "f"), ()):
        done = docker("top", "two", *options)
        assert done.returncode == 0, done.stderr
        assert [word in done.stdout for word in ("sleep 987", "sleep 986", "PID")] == [True] * 3, options
        assert len(done.stdout.splitlines()) == 3, done.stdout
    threads = docker("top", "two", "-eo", "pid,comm", "m").stdout.splitlines()
    assert len(threads) == 5, threads
    refused = docker("top", "two", "-o", "user=PID")
    assert (refused.returncode, refused.stderr) == (1, 'Error response from daemon: specifying "user=PID" is not allowed\n')


def test_annotations_are_kept_and_shown(engine: Engine, docker: Docker) -> None:
    assert docker("create", "--annotation=a.b=c", "--annotation=d", "--name=noted", "busybox").returncode == 0
    assert engine.request("GET", "/containers/noted/json")[1]["HostConfig"]["Annotations"] == {"a.b": "c", "d": ""}
    body = {"Image": "busybox", "HostConfig": {"Annotations": {"": "x"}}}
    words = "invalid Annotations: the empty string is not permitted as an annotation key"
    assert engine.request("POST", "/containers/create", body) == (400, {"message": words})
    assert "Annotations" not in engine.request("POST", "/v1.42/containers/create", body)[1].get("message", "")


def test_a_mac_address_is_the_interfaces(engine: Engine, docker: Docker) -> None:
    done = docker("run", "--mac-address=02:42:ac:11:00:77", "--name=mac", "busybox", "cat", "/sys/class/net/eth0/address")
    assert done.stdout == "02:42:ac:11:00:77\n", done.stderr
    body = {"Image": "busybox", "MacAddress": "nonsense"}
    assert engine.request("POST", "/v1.43/containers/create", body) == (400, {"message": "invalid MAC address nonsense"})


@pytest.mark.parametrize(("isolation", "code"), [("default", 0), ("hyperv", 125), ("process", 125)])
def test_isolation_is_of_windows(docker: Docker, isolation: str, code: int) -> None:
    done = docker("run", "--rm", "--network=none", f"--isolation={isolation}", "busybox", "true")
    assert done.returncode == code
    assert (f"invalid isolation ({isolation}): linux only supports 'default'" in done.stderr) == bool(code)


def test_further_groups_by_number_and_by_the_containers_names(docker: Docker) -> None:
    done = docker("run", "--rm", "--network=none", "--user=1000", "--group-add=4242", "--group-add=users", "busybox", "id", "-G")
    assert "4242" in done.stdout.split(), done.stderr
    assert "100" in done.stdout.split()
    unknown = docker("run", "--rm", "--network=none", "--group-add=nobodys", "busybox", "true")
    assert unknown.returncode in (125, 126)
    assert "unable to find group nobodys: no matching entries in group file" in unknown.stderr


def test_checkpoints_need_experimental_mode(engine: Engine, docker: Docker) -> None:
    words = "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it."
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/x")):
        assert engine.request(method, f"/containers/any/checkpoints{path}") == (501, {"message": words})
    assert docker("create", "--name=still", "busybox").returncode == 0
    refused = engine.request("POST", "/containers/still/start?checkpoint=x")
    assert refused == (400, {"message": "checkpoint is only supported in experimental mode"})
    assert "only supported on a Docker daemon with experimental features enabled" in docker("checkpoint", "ls", "still").stderr


@pytest.mark.parametrize("runtime", ["runc", "real-runc", "crun"])
def test_execs_have_the_containers_limits(docker: Docker, runtime: str) -> None:
    options = ("--network=none", f"--runtime={runtime}", "--ulimit=nofile=123:456", "--ulimit=core=0")
    assert docker("run", "-d", *options, "--name=limited", "busybox", "sleep", "987").returncode == 0
    done = docker("exec", "limited", "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c")
    assert done.stdout.split() == ["123", "456", "0"], done.stderr


def test_a_privileged_container_has_the_hosts_devices_as_they_are(docker: Docker) -> None:
    options = ("--rm", "--network=none", "--privileged", "--device=/dev/nosuch", "--device=/dev/null:/dev/other:r")
    done = docker("run", *options, "busybox", "sh", "-c", "echo > /dev/other; test ! -e /dev/nosuch")
    assert (done.returncode, done.stderr) == (0, "")
    elsewhere = docker("run", "--rm", "--network=none", "--privileged", "--device=/dev/nosuch:/dev/x", "busybox", "true")
    assert 'error gathering device information while adding custom device "/dev/nosuch": no such file or directory' in elsewhere.stderr


@pytest.mark.parametrize("runtime", ["runc", "real-runc", "crun"])
def test_a_working_directory_is_made_in_a_read_only_root(docker: Docker, runtime: str) -> None:
    options = ("--rm", "--network=none", f"--runtime={runtime}", "--read-only", "--user=1000", "-w", "/made/deep")
    done = docker("run", *options, "busybox", "sh", "-c", "pwd; stat -c '%a %u:%g' .; mkdir x 2>/dev/null || echo none")
    assert (done.stdout, done.stderr) == ("/made/deep\n755 0:0\nnone\n", "")
    refused = docker("run", *options[:-1], "/etc/passwd/x", "busybox", "true")
    assert refused.returncode != 0
