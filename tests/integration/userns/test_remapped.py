"""`userns-remap`: what containers are, and that everything else is as without it."""

import io
import os
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.integration.userns.conftest import BASE
from tests.support.engine import Engine

pytestmark = pytest.mark.root
Docker = Callable[..., CompletedProcess[str]]


def test_users_are_others_on_the_host(engine: Engine, ok: Callable[..., str]) -> None:
    assert "name=userns" in engine.request("GET", "/info")[1]["SecurityOptions"]
    container = ok("run", "-d", "-u", "1000:5", "busybox", "sleep", "1000")
    pid = engine.request("GET", f"/containers/{container}/json")[1]["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{BASE + 5000}" in status
    assert f"Gid:\t{BASE + 12}" in status
    shown = ok(
        "exec", "-u", "0", container, "sh", "-c", "cat /proc/self/uid_map; id -u; touch /x; stat -c %u:%g /x /etc/hosts /etc"
    ).split()
    assert shown == ["0", str(BASE), "1000", "1000", str(BASE + 5000), "64536", "0", "0:0", "0:0", "0:0"]


@pytest.mark.parametrize("runtime", ["real-runc", "crun"])
def test_another_runtime_is_for_containers_of_the_hosts(docker: Docker, ok: Callable[..., str], runtime: str) -> None:
    done = docker("create", "--runtime", runtime, "busybox")
    assert (done.returncode, f"user namespaces (userns-remap; --userns=host is without) with the runtime {runtime}" in done.stderr) == (
        1,
        True,
    )
    assert ok("run", "--rm", "--runtime", runtime, "--userns", "host", "busybox", "cat", "/proc/self/uid_map").split() == [
        "0",
        "0",
        "4294967295",
    ]


def test_networks_are_its_own(ok: Callable[..., str]) -> None:
    ok("run", "-d", "--name", "server", "busybox", "sh", "-c", "echo hi > /index.html; exec httpd -f -p 80 -h /")
    address = ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server")
    script = f"until wget -qO- http://{address}/index.html; do :; done; ip addr add 10.9.9.9/32 dev eth0; cat /etc/resolv.conf > /dev/null"
    assert ok("run", "--rm", "--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.conf.all.forwarding=1", "busybox", "sh", "-ec", script) == "hi"
    assert ok("run", "--rm", "--network", "container:server", "busybox", "wget", "-qO-", "http://127.0.0.1/index.html") == "hi"
    assert ok("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net") == "lo"


def test_names_and_ports(ok: Callable[..., str]) -> None:
    ok("network", "create", "named")
    serve = "echo hi > /index.html; exec httpd -f -p 80 -h /"
    ok("run", "-d", "--name", "server", "--network", "named", "-p", "127.0.0.1::80", "busybox", "sh", "-c", serve)
    fetch = "until wget -qO- http://server/index.html; do :; done"
    assert ok("run", "--rm", "--network", "named", "busybox", "sh", "-c", fetch) == "hi"
    ok("network", "connect", "bridge", "server")
    assert ok("exec", "server", "ls", "/sys/class/net").split() == ["eth0", "eth1", "lo"]
    port = ok("port", "server", "80").rpartition(":")[2]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=10) as answer:
        assert answer.read() == b"hi\n"
    ok("rm", "-f", "server")
    ok("network", "rm", "named")


def test_volumes_and_binds(engine: Engine, ok: Callable[..., str]) -> None:
    folder = engine.root / "new/folder"
    script = "touch /v/a /f/a; chown 33:33 /v/a; mkdir /v/d; stat -c %u:%g /v /v/a /f"
    assert ok("run", "--rm", "-v", "data:/v", "-v", f"{folder}:/f", "busybox", "sh", "-ec", script).split() == ["0:0", "33:33", "0:0"]
    assert made_by(engine.data_root / "volumes/data/_data/a") == (33, 33)
    assert made_by(folder / "a") == made_by(folder) == made_by(folder.parent) == (BASE, BASE + 7)
    assert ok("run", "--rm", "--userns", "host", "-v", "data:/v", "busybox", "stat", "-c", "%u", "/v/a") == "33"
    assert ok("run", "--rm", "-u", "5", "-v", f"{engine.root}/accounts:/f:idmap", "busybox", "stat", "-c", "%u", "/f/passwd") == "5"
    ok("run", "--rm", "-u", "1001:6", "-v", f"{folder}:/f:U", "-v", "data:/v:U", "busybox", "touch", "/f/b", "/v/b")
    assert [((folder / name).stat().st_uid, (folder / name).stat().st_gid) for name in ("a", "b")] == [(BASE + 5001, BASE + 13)] * 2
    assert made_by(engine.data_root / "volumes/data/_data/a") == made_by(engine.data_root / "volumes/data/_data/b") == (1001, 6)
    ok("volume", "rm", "data")


def test_nothing_is_made_in_the_hosts_directories_that_the_containers_root_could_not_make(engine: Engine, docker: Docker) -> None:
    """A working directory is an image's to say: one below a bind mount would be the container's own, in the host's /etc, say."""
    folder = engine.root / "hosts"
    folder.mkdir(exist_ok=True)
    common = ("run", "--rm", "--network=none", "-v", f"{folder}:/f", "-w", "/f/made")
    for options in ((), ("--read-only",)):
        refused = docker(*common, *options, "busybox", "true")
        assert (refused.returncode != 0, os.listdir(folder)) == (True, []), (options, refused)
    for options in (("-v", "/f/deep/er"), ("--tmpfs", "/f/deep/er")):  # a volume, too, may be an image's
        refused = docker("run", "--rm", "--network=none", "-v", f"{folder}:/f", *options, "busybox", "true")
        assert (refused.returncode != 0, os.listdir(folder)) == (True, []), (options, refused)
        assert "permission denied" in refused.stderr
    os.chown(folder, BASE, BASE + 7)
    mine = docker("run", "--rm", "--network=none", "-v", f"{folder}:/f", "-v", "/f/deep/er", "busybox", "stat", "-c", "%u:%g", "/f/deep")
    assert (mine.stdout, mine.stderr) == ("0:0\n", "")


def test_set_user_id_files_are_out_of_reach_of_the_hosts_users(engine: Engine, ok: Callable[..., str]) -> None:
    ok("run", "--rm", "-v", "data:/v", "busybox", "sh", "-ec", "cp /bin/busybox /v/id; chmod 6755 /v/id")
    program = "data/volumes/data/_data/id"
    assert made_by(engine.root / program) == (0, 0)

    def as_nobody(*command: str) -> CompletedProcess[str]:
        return subprocess.run(
            command, cwd=engine.root, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False
        )

    assert as_nobody("ls").returncode == 0
    assert "ermission denied" in as_nobody("env", program).stderr
    ok("volume", "rm", "data")


def test_images_and_memory(ok: Callable[..., str], docker: Docker) -> None:
    mounts = ["--mount", "type=image,src=busybox,dst=/i", "--mount", "type=image,src=busybox,dst=/part,image-subpath=etc"]
    script = "stat -c %u:%g /i /i/bin /part/passwd /t /dev/shm; ! touch /i/x 2>/dev/null; touch /t/x; cmp /i/etc/passwd /part/passwd"
    shown = ok("run", "--rm", "--init", *mounts, "--tmpfs", "/t:uid=0,mode=755", "busybox", "sh", "-ec", script)
    assert shown.split() == ["0:0"] * 5
    assert docker("run", "--rm", "--tmpfs", "/t:uid=70000", "busybox", "true").stderr.startswith(
        "docker: Error response from daemon: invalid"
    )


def test_devices(ok: Callable[..., str], docker: Docker) -> None:
    options = ["--device", "/dev/zero:/dev/mine", "--device", "/dev/zero:/elsewhere/mine"]
    script = (
        "stat -c '%F %u:%g' /dev/mine /elsewhere/mine; head -c 1 /elsewhere/mine | wc -c; rm /dev/mine; ! rm /elsewhere/mine 2>/dev/null"
    )
    shown = ok("run", "--name", "box", *options, "busybox", "sh", "-ec", script).splitlines()
    assert shown == ["character special file 65534:65534"] * 2 + ["1"]
    assert docker("cp", "box:/elsewhere/mine", "-").stdout[156] == "0", "on the disk is a file"
    assert "Operation not permitted" in docker("run", "--rm", "busybox", "mknod", "/x", "c", "1", "5").stderr


def test_cp_diff_commit_export(ok: Callable[..., str], docker: Docker, tmp_path: Path) -> None:
    ok("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    ok("exec", "box", "sh", "-c", "touch /a; chown 7:8 /a")
    (tmp_path / "in").write_text("x")
    ok("cp", str(tmp_path / "in"), "box:/in")
    assert ok("exec", "box", "stat", "-c", "%u:%g", "/in", "/a") == "0:0\n7:8"
    assert _owner_in(docker("cp", "box:/a", "-").stdout) == (7, 8)
    assert set(ok("diff", "box").splitlines()) == {"A /a", "A /in"}
    ok("export", "-o", str(tmp_path / "tar"), "box")
    with tarfile.open(tmp_path / "tar") as archive:
        assert (archive.getmember("a").uid, archive.getmember("bin").uid) == (7, 0)
    ok("kill", "box")
    assert _owner_in(docker("cp", "box:/a", "-").stdout) == (7, 8)
    ok("commit", "box", "made:1")
    assert ok("run", "--rm", "made:1", "stat", "-c", "%u:%g", "/a") == "7:8"
    assert ok("run", "--rm", "--userns", "host", "made:1", "stat", "-c", "%u:%g", "/a") == "7:8"
    ok("rm", "-f", "box")
    ok("rmi", "made:1")


def test_what_comes_to_the_hosts_files_belongs_to_the_containers_users(
    engine: Engine, ok: Callable[..., str], docker: Docker, tmp_path: Path
) -> None:
    folder, bound = engine.root / "theirs", engine.root / "bound"
    folder.mkdir()
    os.chown(folder, BASE, BASE + 7)
    bound.mkdir()
    (folder / "secret").write_text("mine")
    (folder / "secret").chmod(0o600)
    ok("create", "--name", "still", "-v", f"{folder}:/x", "busybox", "true")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("program")
        member.mode = 0o4755
        tar.addfile(member)
    ok("cp", "-", "still:/x", stdin=archive.getvalue())
    assert made_by(folder / "program") == (BASE, BASE + 7)
    assert _owner_in(docker("cp", "still:/x/program", "-").stdout) == (0, 0)
    (tmp_path / "in").write_text("changed")
    done = docker("cp", str(tmp_path / "in"), "still:/x/secret")
    assert done.returncode == 1, done
    assert (folder / "secret").read_text() == "mine"
    ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={bound}", "bound")
    assert ok("run", "--rm", "-v", "bound:/etc", "busybox", "stat", "-c", "%u:%g", "/etc", "/etc/passwd").split() == ["0:0"] * 2
    assert made_by(bound) == made_by(bound / "passwd") == (BASE, BASE + 7)
    ok("rm", "still")
    ok("volume", "rm", "bound")


def test_health_checks_are_in_it(engine: Engine, ok: Callable[..., str]) -> None:
    check = "id -u; awk '{print $2; exit}' /proc/self/uid_map; touch /tmp/f && stat -c %u:%g /tmp/f"
    health = ["--health-cmd", check, "--health-interval", "50ms"]
    for user, shown in (("0", ["0", str(BASE), "0:0"]), ("1000:5", ["1000", str(BASE), "1000:5"])):
        container = ok("run", "-d", "--user", user, *health, "busybox", "sleep", "1000")
        deadline = time.monotonic() + 30
        while (found := engine.request("GET", f"/containers/{container}/json")[1]["State"]["Health"])["Status"] == "starting":
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        assert (found["Status"], found["Log"][0]["Output"].split()) == ("healthy", shown)


def made_by(path: Path) -> tuple[int, int]:
    """Whose it is on the disk."""
    return path.stat().st_uid, path.stat().st_gid


def _owner_in(archive: str) -> tuple[int, int]:
    """Of the first entry."""
    member = tarfile.TarInfo.frombuf(archive.encode()[:512], "utf-8", "strict")
    return member.uid, member.gid


def test_what_excludes_it(ok: Callable[..., str], docker: Docker) -> None:
    for options, message in (
        (["--privileged"], "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace"),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
    ):
        assert message in docker("create", *options, "busybox").stderr
        script = "cat /proc/self/uid_map"
        assert ok("run", "--rm", "--userns", "host", *options, "busybox", "sh", "-c", script).split() == ["0", "0", "4294967295"]
    ok("run", "-d", "--name", "plain", "--userns", "host", "busybox", "sleep", "1000")
    done = docker("run", "--rm", "--network", "container:plain", "busybox", "true")
    assert "it is in the host's user namespace" in done.stderr


def test_namespaces_of_others(ok: Callable[..., str], docker: Docker) -> None:
    ok("run", "-d", "--name", "other", "--ipc", "shareable", "--hostname", "there", "busybox", "sleep", "1000")
    ok("exec", "other", "touch", "/dev/shm/mine")
    show = ("sh", "-c", "for name in user net ipc pid; do readlink /proc/self/ns/$name; done")
    user, net, ipc, pid = ok("exec", "other", *show).split()

    def shown(mode: str, *more: str) -> list[str]:
        return ok("run", "--rm", mode, "container:other", *more, "busybox", *show).split()

    assert shown("--network")[:2] == [user, net]
    assert [shown("--ipc")[place] for place in (0, 2)] == [user, ipc]
    assert [shown("--pid")[place] for place in (0, 3)] == [user, pid]
    assert ok("run", "--rm", "--ipc", "container:other", "busybox", "stat", "-c", "%u:%g", "/dev/shm/mine") == "0:0"
    assert ok("run", "--rm", "--pid", "container:other", "busybox", "cat", "/proc/1/root/etc/hostname") == "there"
    assert shown("--network", "--userns", "host")[1] == net
    assert shown("--network", "--userns", "host")[0] != user


def test_a_user_who_is_not_mapped(engine: Engine, ok: Callable[..., str], docker: Docker) -> None:
    done = docker("run", "--name", "nobody", "-u", "70000", "busybox", "true")
    words = "unable to setup user: cannot setuid to unmapped uid 70000 in user namespace"
    assert f"error during container init: {words}" in done.stderr
    assert ok("inspect", "-f", "{{.State.ExitCode}}", "nobody") == "128"
    container = ok("run", "-d", "busybox", "sleep", "1000")
    done = docker("exec", "-u", "70000", container, "true")
    assert done.stdout.strip() == f"OCI runtime exec failed: exec failed: unable to start container process: {words}"


def test_builds(engine: Engine, ok: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS a\nRUN id -u > /who && cat /proc/self/uid_map >> /who && touch /f && chown 9:9 /f\nCOPY Dockerfile /\n"
        "FROM a\nVOLUME /v\n"
        "RUN --mount=type=bind,from=a,target=/a --mount=type=bind,target=/context --mount=type=cache,target=/c "
        "--mount=type=tmpfs,target=/t --mount=type=bind,from=a,target=/w,rw "
        "touch /c/x /t/x /v/x /w/x && stat -c %u:%g /a/f /w/f /context/Dockerfile /c /v > /seen\n"
        "RUN --mount=type=secret,id=s stat -c %u:%g /run/secrets/s >> /seen && cat /run/secrets/s >> /seen\n"
        "USER 9\nRUN touch /tmp/g\n"
    )
    (tmp_path / "s").write_text("mine")
    done = engine.cli("build", "-q", "-t", "built:1", "--secret", f"id=s,src={tmp_path}/s", str(tmp_path))
    assert done.returncode == 0, done
    script = "head -n 2 /who; cat /seen; echo; stat -c %u:%g /f /tmp/g /Dockerfile"
    shown = ok("run", "--rm", "-u", "0", "built:1", "sh", "-c", script).split()
    assert shown[:4] == ["0", "0", str(BASE), "1000"]
    assert shown[4:11] == ["9:9", "9:9", "0:0", "0:0", "0:0", "0:0", "mine"]
    assert shown[11:] == ["9:9", "9:0", "0:0"]
    ok("rmi", "built:1")
