"""What a container sees of itself and of the host: docker's defaults."""

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import capabilities
from sampan.runtime import cgroups, plan

pytestmark = pytest.mark.root


def _status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_capabilities_are_dockers_fourteen(box: Any) -> None:
    status = _status(box.sh("cat /proc/self/status"))
    assert (status["CapBnd"], status["CapPrm"], status["CapEff"]) == ("00000000a80425fb",) * 3
    assert (status["CapInh"], status["CapAmb"]) == ("0" * 16,) * 2
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")


def test_a_user_loses_permitted_capabilities_but_keeps_the_bounding_set(box: Any) -> None:
    status = _status(box.sh("cat /proc/self/status", user="app"))
    assert (status["CapBnd"], status["CapPrm"], status["CapEff"]) == ("00000000a80425fb", "0" * 16, "0" * 16)
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Groups"].split() == ["10", "1000"]


def test_user_forms_and_home(box: Any) -> None:
    assert box.sh("id -u; id -g; echo $HOME", user="app") == "1000\n1000\n/home/app\n"
    assert box.sh("id -u; id -g; echo $HOME", user="4242") == "4242\n0\n/\n"
    assert box.sh("id -u; id -g; id -G", user="app:audio") == "1000\n29\n29\n"
    assert box.sh("id -G", groups_add=("audio", "77")) == "0 10 29 77\n"


def test_privileged_has_every_capability_of_the_host(box: Any) -> None:
    status = _status(box.sh("cat /proc/self/status; test -b /dev/vda || test -c /dev/kmsg", privileged=True))
    assert int(status["CapBnd"], 16) == capabilities.bounding_set()
    assert status["Seccomp"] == "0"


def test_no_new_privileges(box: Any) -> None:
    status = _status(box.sh("cat /proc/self/status", no_new_privileges=True))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_names_and_environment(box: Any) -> None:
    started = box.start("sh", "-c", "hostname; echo $HOSTNAME; pwd; umask; cat /proc/1/comm; true")
    code, out, _ = box.supervisor.finish(started)
    short = started.container[:12]
    assert (code, out) == (0, f"{short}\n{short}\n/\n0022\nsh\n")


def test_working_directory_is_made(box: Any) -> None:
    assert box.sh("pwd; stat -c '%a %u' .", cwd="/a/b", user="app") == "/a/b\n755 0\n"


def test_masked_and_read_only_paths(box: Any) -> None:
    out = box.sh("wc -c < /proc/keys; wc -c < /proc/timer_list; ls -A /sys/firmware | wc -l")
    assert out.split() == ["0", "0", "0"]
    code, _, err = box.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    assert code != 0
    assert "Read-only" in err
    assert box.run("sh", "-c", "echo x > /sys/kernel/x")[0] != 0
    _, _, err = box.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward", readonly_paths=(), masked_paths=())
    assert "Operation not permitted" in err


def test_mount_table_is_dockers(box: Any) -> None:
    table = {}
    for line in box.sh("cat /proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        table[left.split()[4]] = (right.split()[0], set(left.split()[5].split(",")), right.split()[2])
    assert table["/"][0] == "overlay"
    assert table["/proc"][1] == {"rw", "nosuid", "nodev", "noexec", "relatime"}
    assert table["/dev"][1] == {"rw", "nosuid"}
    assert "size=65536k" in table["/dev"][2]
    assert "mode=755" in table["/dev"][2]
    assert table["/dev/pts"][1] == {"rw", "nosuid", "noexec", "relatime"}
    assert {"ro", "nosuid", "nodev", "noexec"} <= table["/sys"][1]
    assert {"nosuid", "nodev", "noexec"} <= table["/dev/shm"][1]
    assert "size=65536k" in table["/dev/shm"][2]
    assert {"nosuid", "nodev", "noexec"} <= table["/dev/mqueue"][1]
    assert "ro" in table["/sys/fs/cgroup"][1]


def test_nothing_of_the_host_stays_reachable(box: Any) -> None:
    assert box.sh("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    assert box.sh("ls -d /proc/[0-9]* | wc -l").strip() in ("2", "3")


def test_devices(box: Any) -> None:
    out = box.sh("ls -1 /dev; readlink /dev/fd; readlink /dev/ptmx; stat -c %a /dev/null; head -c 4 /dev/urandom | wc -c")
    names = out.split()
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm", "mqueue"} <= set(
        names
    )
    assert names[-4:] == ["/proc/self/fd", "pts/ptmx", "666", "4"]
    assert box.run("sh", "-c", "mknod /tmp/d c 10 229 && cat /tmp/d")[0] != 0
    assert box.sh("mknod /tmp/d c 1 5 && head -c 3 /tmp/d | wc -c").strip() == "3"


def test_a_device_can_be_given(box: Any) -> None:
    fuse = plan.Device(host_path="/dev/zero", container_path="/dev/nil", permissions="r")
    assert box.sh("head -c 5 /dev/nil | wc -c", devices=(fuse,)).strip() == "5"


def test_bind_mounts(box: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("content")
    mounts = (
        plan.Mount(source=str(source), destination="/a/b"),
        plan.Mount(source=str(source), destination="/ro", readonly=True),
        plan.Mount(source=f"{source}/f", destination="/etc/one"),
    )
    assert box.sh("cat /a/b/f /etc/one; touch /a/b/new; ! touch /ro/no 2>/dev/null", mounts=mounts) == "contentcontent"
    assert (source / "new").exists()


def test_mount_targets_cannot_leave_the_root(box: Any, tmp_path: Path, busybox: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    link = busybox / "escape"
    link.symlink_to(f"../../../../../../../..{victim}")
    try:
        code, _, _ = box.run("true", mounts=(plan.Mount(source="/etc", destination="/escape/sub"),))
    finally:
        link.unlink()
    assert code == 0
    assert list(victim.iterdir()) == []


def test_read_only_recursive(box: Any, tmp_path: Path) -> None:
    import subprocess

    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(below)], check=True, timeout=10)
    try:
        mount = plan.Mount(source=str(tmp_path), destination="/m", readonly=True)
        assert box.run("touch", "/m/below/x", mounts=(mount,))[0] != 0
    finally:
        subprocess.run(["umount", str(below)], check=True, timeout=10)


def test_tmpfs(box: Any) -> None:
    out = box.sh(
        "grep ' /scratch ' /proc/mounts; stat -c %a /tmp", mounts=(
            plan.Mount(type="tmpfs", destination="/scratch", options="size=64k,exec,mode=700"),
            plan.Mount(type="tmpfs", destination="/tmp"),
        )
    )  # fmt: skip
    assert "size=64k" in out
    assert "noexec" not in out
    assert out.splitlines()[-1] == "1777"


def test_read_only_root(box: Any) -> None:
    script = "! touch /x 2>/dev/null; touch /dev/shm/x /tmp/y"
    assert box.sh(script, readonly_rootfs=True, mounts=(plan.Mount(type="tmpfs", destination="/tmp"),)) == ""


def test_sysctls(box: Any) -> None:
    out = box.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax", sysctls={"kernel.msgmax": "4097"})
    assert out.split() == ["0", "4097"]


def test_limits_of_the_cgroup(box: Any) -> None:
    resources = plan.Resources(memory=64 << 20, pids_limit=7, nano_cpus=500_000_000, cpuset_cpus="0")
    started = box.start("sleep", "1000", resources=resources)
    layout = cgroups.host_layout()
    path = box.spec("x").cgroup.split("/")[0] + "/" + started.container
    if layout.version == 1:
        memory, pids = cgroups.v1_path(layout, "memory", path), cgroups.v1_path(layout, "pids", path)
        assert cgroups.read(f"{memory}/memory.limit_in_bytes").strip() == str(64 << 20)
        assert cgroups.read(f"{cgroups.v1_path(layout, 'cpu', path)}/cpu.cfs_quota_us").strip() == "50000"
    else:
        pids = f"{layout.unified}/{path}"
        assert cgroups.read(f"{pids}/memory.max").strip() == str(64 << 20)
    assert cgroups.read(f"{pids}/pids.max").strip() == "7"
    assert started.pid in cgroups.processes(layout, path)
    cgroups.freeze(layout, path, True)
    cgroups.freeze(layout, path, False)
    os.kill(started.pid, 9)
    box.supervisor.event("exit", started.key)
    assert cgroups.remove(layout, path) == []


def test_out_of_memory_is_counted(box: Any) -> None:
    started = box.start(
        "sh", "-c", "head -c 200m /dev/zero | tail -n 1 >/dev/null; sleep 0; tail /dev/zero", resources=plan.Resources(memory=16 << 20)
    )
    event = box.supervisor.event("exit", started.key)
    path = box.spec("x").cgroup.split("/")[0] + "/" + started.container
    assert event["code"] == 137
    assert cgroups.oom_kills(cgroups.host_layout(), path) >= 1


def test_resource_limits(box: Any) -> None:
    assert (
        box.sh("ulimit -n; ulimit -c", rlimits=(plan.Rlimit(name="nofile", soft=100, hard=200), plan.Rlimit(name="core", soft=0, hard=0)))
        == "100\n0\n"
    )
    missing = not capabilities.bounding_set() >> capabilities.NUMBERS["CAP_SYS_RESOURCE"] & 1
    if missing:
        too_high = plan.Rlimit(name="nofile", soft=2**30, hard=2**30)
        assert box.start("true", rlimits=(too_high,)).reply["error"]["step"] == "rlimit"


def test_host_namespaces(box: Any) -> None:
    namespaces = plan.Namespaces(net="host", pid="host", ipc="host", uts="host")
    out = box.sh("for n in net pid ipc uts; do readlink /proc/self/ns/$n; done; hostname", namespaces=namespaces)
    lines = out.splitlines()
    assert lines[:4] == [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "pid", "ipc", "uts")]
    assert lines[4] == os.uname().nodename


def test_seccomp_default_blocks_what_docker_blocks(box: Any) -> None:
    assert box.run("unshare", "-U", "true")[0] != 0
    assert box.run("mount", "-t", "tmpfs", "x", "/tmp")[0] != 0
    every = tuple(name for name in capabilities.NUMBERS if name != "CAP_SYS_RESOURCE")
    assert box.sh("unshare -m true; mount -t tmpfs x /tmp", capabilities=every) == ""


def test_a_profile_of_ones_own(box: Any) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    code, _, err = box.run("mkdir", "/tmp/x", seccomp=profile)
    assert code != 0
    assert "No space left" in err
