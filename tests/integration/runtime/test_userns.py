"""Containers with a user namespace: what they are inside and outside of it."""

import errno
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.runtime import plan
from tests.integration.runtime.conftest import Supervisor

pytestmark = pytest.mark.root
BASE = 231072
MAPS = plan.UserMaps(uids=((0, BASE, 1000), (1000, BASE + 5000, 64536)), gids=((0, BASE + 7, 65536),))


def test_ids_inside_are_others_outside(box: Any) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /mine; chown 1000:5 /mine; stat -c %u:%g /mine /bin /bin/busybox"
    started = box.start("sh", "-ec", f"{script}; read end", userns=MAPS, stdin=True)
    status = Path(f"/proc/{started.pid}/status")
    assert f"Uid:\t{BASE}\t{BASE}\t{BASE}" in status.read_text()
    assert f"Gid:\t{BASE + 7}\t{BASE + 7}" in status.read_text()
    os.write(started.ends["stdin"], b"\n")
    _, out, err = box.supervisor.finish(started)
    words = out.split()
    assert (words[:3], words[3:6], words[6:9]) == (
        ["0", str(BASE), "1000"], ["1000", str(BASE + 5000), "64536"], ["0", str(BASE + 7), "65536"],
    )  # fmt: skip
    assert (words[9:], err) == (["0", "1000:5", "0:0", "0:0"], "")
    made = next(Path(box.work).glob("*/upper/mine")).stat()
    assert (made.st_uid, made.st_gid) == (1000, 5), "on the disk are the container's own IDs"


def test_every_namespace_but_that_of_processes_is_its_own(box: Any) -> None:
    started = box.start("sleep", "1000", userns=MAPS, namespaces=plan.Namespaces(net="fd", cgroup="private"))
    other = box.start("sleep", "1000", userns=MAPS)
    for name in ("user", "net", "mnt", "ipc", "uts", "cgroup", "pid"):
        found = {os.stat(f"/proc/{pid}/ns/{name}").st_ino for pid in (started.pid, other.pid, "self")}
        assert len(found) == (2 if name == "cgroup" else 3), name


def test_rights_are_those_of_its_own_namespaces(box: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    out = box.sh(
        "ip link set lo down; hostname other; echo 1 > /proc/sys/net/ipv4/ip_forward; mkdir /m; mount -t tmpfs t /m; umount /m; "
        "! cat /secret 2>/dev/null; ! mknod /x c 1 3 2>/dev/null; ! chroot /proc/1/cwd/nothing true 2>/dev/null; stat -c %u:%g /secret; "
        "! ip link set lo netns 1 2>/dev/null; grep CapEff /proc/self/status",
        userns=MAPS,
        capabilities=plan.resolve_capabilities(["ALL"], []),
        seccomp="unconfined",
        readonly_paths=(),
        mounts=(plan.Mount(source=str(secret), destination="/secret"),),
    )
    assert out.split()[0] == "65534:65534"


def test_what_the_engine_makes_belongs_to_its_root(box: Any, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    out = box.sh(
        "stat -c '%n %u:%g %t' / /dev /dev/null /dev/pts /dev/pts/ptmx /dev/shm /dev/mqueue /dev/stdout /t /v /proc/1; "
        "echo ok > /dev/stderr; echo > /dev/null; touch /v/new; stat -c '%u:%g' /v/new; pwd",
        userns=MAPS,
        cwd="/made",
        mounts=(
            plan.Mount(destination="/t", type="tmpfs", options="uid=5,gid=6"),
            plan.Mount(source=str(tmp_path / "volume"), destination="/v", mapped=True),
        ),
    )
    lines = out.splitlines()
    for path in ("/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/v", "/proc/1"):
        assert f"{path} 0:0 0" in lines
    assert "/dev/null 0:0 1" in lines
    assert "/dev/pts/ptmx 0:0 5" in lines
    assert "/t 5:6 0" in lines
    assert lines[-2:] == ["0:0", "/made"]
    assert (tmp_path / "volume/new").stat().st_uid == 0


def test_a_user_who_is_not_there(box: Any) -> None:
    for user, problem in (("70000", "cannot setuid to unmapped uid 70000 in user namespace"), ("7:70000", "setgroups: invalid argument")):
        error = box.start("true", userns=MAPS, user=user).reply["error"]
        assert (error["step"], error["message"]) == ("identity", f"unable to setup user: {problem}")


@pytest.mark.parametrize("user", ["", "app"])
def test_exec_enters_it(box: Any, user: str) -> None:
    started = box.start("sleep", "1000", userns=MAPS)
    done = box.exec(
        started, "sh", "-c", "cat /proc/self/uid_map; id -u; id -g; echo > /dev/stdout; grep Cap /proc/self/status", user=user, userns=MAPS
    )
    code, out, err = box.supervisor.finish(done)
    assert (code, err) == (0, "")
    words = out.split()
    assert words[:3] == ["0", str(BASE), "1000"]
    assert words[6:8] == (["0", "0"] if not user else ["1000", "1000"])
    assert words[-4:-2] == ["CapBnd:", "00000000a80425fb"]
    for name in ("user", "net", "mnt"):
        assert os.stat(f"/proc/{started.pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino


def test_terminals_belong_to_the_user(box: Any) -> None:
    started = box.start("sh", "-c", "stat -c %u:%g $(tty) > /out; echo > /dev/tty; echo > /dev/console; sleep 1000", tty=True, userns=MAPS)
    found = Path(f"/proc/{started.pid}/root/out")
    deadline = time.monotonic() + 10
    while not (found.exists() and found.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found.read_text() == "0:5\n"
    second = box.exec(started, "sh", "-c", "stat -c %u:%g $(tty) > /tmp/out2", tty=True, user="app", userns=MAPS)
    assert box.supervisor.event("exit", second.key)["code"] == 0
    assert Path(f"/proc/{started.pid}/root/tmp/out2").read_text() == "1000:5\n"


def test_init_stays_out_of_reach(box: Any) -> None:
    started = box.start("sh", "-c", "cat /proc/1/environ 2>&1; ls /proc/1/fd 2>&1; readlink /proc/1/exe; exit 7", userns=MAPS, init=True)
    code, out, _ = box.supervisor.finish(started)
    assert code == 7
    assert "Permission denied" in out


def test_a_device_keeps_the_owner_that_it_has_on_the_host(box: Any) -> None:
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    device = plan.Device(host_path="/dev/full", container_path="/dev/mine")
    assert box.sh("stat -c %u:%g /dev/mine", userns=MAPS, devices=(device,)) == "65534:65534\n"


@pytest.mark.parametrize("maps", [None, MAPS], ids=["none", "its-own"])
def test_exec_stays_out_of_what_the_container_makes(box: Any, maps: plan.UserMaps | None) -> None:
    every = plan.resolve_capabilities(["ALL"], [])
    script = "touch /tmp/there; sleep 1000"
    started = box.start("unshare", "-Ur", "sh", "-c", script, userns=maps, seccomp="unconfined", capabilities=every)
    deadline = time.monotonic() + 10
    while not Path(f"/proc/{started.pid}/root/tmp/there").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done = box.exec(started, "sh", "-c", "id -u; cat /proc/self/uid_map", user="app", userns=maps)
    assert "error" not in done.reply, done.reply
    code, out, err = box.supervisor.finish(done)
    assert (code, err) == (0, "")
    assert out.split()[:3] == ["1000", "0", str(BASE) if maps else "0"]


def test_another_version_waits_for_a_user_namespace_that_is_being_made(supervisor: Supervisor) -> None:
    """Nobody would reap its helper then."""
    os.kill(supervisor.hello["pid"], signal.SIGSTOP)  # it finds both at once
    try:
        supervisor.channel.send({"op": "userns", "maps": MAPS.built(), "net": True, "seq": "made"})
        supervisor.channel.send({"op": "renew", "command": ["/nothing/there"], "seq": "renewed"})
    finally:
        os.kill(supervisor.hello["pid"], signal.SIGCONT)
    reply, _ = supervisor.receive()
    assert (reply["re"], reply["error"]["errno"]) == ("renewed", errno.EBUSY)
    reply, fds = supervisor.receive()
    assert reply["re"] == "made"
    for fd in fds:
        os.close(fd)
    reply, _ = supervisor.request({"op": "renew", "command": ["/nothing/there"]})
    assert reply["error"]["errno"] == errno.ENOENT
