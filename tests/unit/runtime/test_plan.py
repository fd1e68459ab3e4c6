"""Launch plans against golden files, and the rules of single options."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampan.errors import InvalidArgument
from sampan.linux import capabilities
from sampan.runtime import plan
from sampan.runtime.cgroups import Layout, Resources

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "plan"
EVERY = (1 << len(capabilities.NUMBERS)) - 1
V1 = Layout(
    1,
    (("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"), ("cpuset", "/sys/fs/cgroup/cpuset"), ("memory", "/sys/fs/cgroup/memory"),
     ("devices", "/sys/fs/cgroup/devices"), ("pids", "/sys/fs/cgroup/pids"), ("systemd", "/sys/fs/cgroup/systemd")),
    "/sys/fs/cgroup/unified",
)  # fmt: skip
V2 = Layout(2, (), "/sys/fs/cgroup", ("cpuset", "cpu", "io", "memory", "pids", "misc"))
HOST_V1 = plan.HostFacts(machine="x86_64", kernel=(6, 1), capabilities=EVERY, layout=V1)
HOST_V2 = plan.HostFacts(machine="x86_64", kernel=(6, 1), capabilities=EVERY, layout=V2)
ROOT = plan.Rootfs(lowers=("/data/b", "/data/a"), upper="/data/c/diff", work="/data/c/work")


def _spec(**options: Any) -> plan.LaunchSpec:
    values: dict[str, Any] = {"id": "c" * 64, "args": ("sh",), "rootfs": ROOT, "cgroup": "sampan/" + "c" * 64, "hostname": "cccccccccccc"}
    return plan.LaunchSpec(**{**values, **options})


CASES = {
    "default_v1": (_spec(), HOST_V1),
    "default_v2": (_spec(), HOST_V2),
    "privileged": (_spec(privileged=True, namespaces=plan.Namespaces(net="host", pid="host", ipc="host", uts="host")), HOST_V2),
    "everything": (
        _spec(
            args=("/bin/app", "--flag"), env=("A=1", "PATH=/bin"), cwd="/srv", user="app:audio", groups_add=("video",), tty=True,
            console_size=(24, 80), init=True, no_new_privileges=True, capabilities=("CAP_CHOWN",), oom_score_adj=500,
            mounts=(
                plan.Mount(source="/host/hosts", destination="/etc/hosts"),
                plan.Mount(source="/srv", destination="/srv/deep", readonly=True, propagation="rslave"),
                plan.Mount(type="tmpfs", destination="/run", options="rw,size=1m,exec"),
                plan.Mount(source="/volumes/data/_data", destination="/data", subpath="a/b", idmap=True),
                plan.Mount(source="busybox", destination="/image", readonly=True, descriptor="mount4"),
            ),
            devices=(plan.Device(host_path="/dev/fuse", container_path="/dev/fuse"),), device_rules=("c 10:* rm",),
            resources=Resources(memory=1 << 30, nano_cpus=1_500_000_000, pids_limit=100, cpuset_cpus="0-1", cpu_shares=512),
            rlimits=(plan.Rlimit(name="nofile", soft=1024, hard=2048),), sysctls={"net.core.somaxconn": "1024"}, shm_size=1 << 20,
            masked_paths=(), readonly_paths=(),
        ),
        HOST_V2,
    ),
    "remapped": (
        _spec(
            userns=plan.UserMaps(((0, 100000, 1000), (1000, 500000, 64536)), ((0, 200000, 65536),)),
            mounts=(
                plan.Mount(type="tmpfs", destination="/run", options="uid=1001,gid=3,size=1m"),
                plan.Mount(source="/volumes/data/_data", destination="/data", mapped=True),
                plan.Mount(source="/srv", destination="/srv"),
            ),
        ),
        HOST_V2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_plans_are_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    spec, host = CASES[name]
    made = plan.launch_plan(spec, host)
    made["process"]["seccomp"] = f"{len(made['process']['seccomp'])} base64 digits"
    text = json.dumps(made, indent=1) + "\n"
    file = GOLDEN / f"{name}.json"
    if request.config.getoption("--update-golden"):
        file.write_text(text)
    assert file.read_text() == text


@pytest.mark.parametrize("options", ["uid=70000", "gid=x"])
def test_a_tmpfs_of_a_user_who_is_not_mapped(options: str) -> None:
    maps = plan.UserMaps(((0, 100000, 65536),), ((0, 200000, 65536),))
    with pytest.raises(InvalidArgument, match=f"invalid mount option {options}: no ID of the container's user namespace"):
        plan.launch_plan(_spec(userns=maps, mounts=(plan.Mount(type="tmpfs", destination="/t", options=options),)), HOST_V2)


def test_an_exec_plan() -> None:
    made = plan.exec_plan(plan.ExecSpec(id="e" * 64, args=("ps",), cgroup="sampan/c"), HOST_V2)
    assert made["cgroup"] == {"dirs": ["/sys/fs/cgroup/sampan/c"], "unified": "/sys/fs/cgroup/sampan/c"}
    assert (made["kind"], made["process"]["cwd"], made["process"]["init"]) == ("exec", "/", False)


def test_capabilities_add_and_drop() -> None:
    resolve = plan.resolve_capabilities
    assert capabilities.mask_of(list(resolve([], []))) == 0xA80425FB
    assert resolve(["sys_time"], ["ALL"]) == ("CAP_SYS_TIME",)
    assert "CAP_CHOWN" not in resolve(["ALL"], ["CHOWN"])
    assert len(resolve([], [], privileged=True)) == len(capabilities.NUMBERS)
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FOO"'):
        resolve(["foo"], [])


def test_what_the_host_lacks_is_left_out_with_a_warning() -> None:
    poor = plan.HostFacts(machine="x86_64", kernel=(6, 1), capabilities=EVERY & ~(1 << 24), layout=V2)
    made = plan.launch_plan(_spec(capabilities=("CAP_CHOWN", "CAP_SYS_RESOURCE")), poor)
    assert made["process"]["capabilities"] == 1
    assert plan.left_out(("CAP_CHOWN", "CAP_SYS_RESOURCE"), poor) == ["The host does not have CAP_SYS_RESOURCE: left out."]


def test_tmpfs_options() -> None:
    assert plan.tmpfs_options("") == ([], ["noexec", "nosuid", "nodev"])
    assert plan.tmpfs_options("rw,size=64k,mode=700,exec,ro") == (["size=64k", "mode=700"], ["nosuid", "nodev", "ro"])


@pytest.mark.parametrize(
    "rule", ["c 1 rwm", "z 1:1 rwm", "c 1:1 x", "c -5:1 r", "c 1_0:1 r", "c 1:1  r", "c 1:1 r ", "", "c 9999999999:1 r"]
)
def test_a_bad_device_rule_is_refused(rule: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plan.launch_plan(_spec(device_rules=(rule,)), HOST_V2)
    assert caught.value.message == f"invalid device cgroup rule format: '{rule}'"


def test_the_sysctls_of_anothers_network_namespace_are_left_as_they_are() -> None:
    own = plan.launch_plan(_spec(), HOST_V1)["sysctls"]
    assert "net.ipv4.ip_unprivileged_port_start" in [name for name, _, _ in own]
    shared = plan.Namespaces(joins_net=True)
    assert plan.launch_plan(_spec(namespaces=shared, sysctls={"net.core.somaxconn": "5"}), HOST_V1)["sysctls"] == [
        ["net.core.somaxconn", "5", True]
    ]


@pytest.mark.parametrize(
    ("privileged", "writable", "readonly"),
    [(False, None, True), (True, None, False), (False, True, False), (True, False, True)],
)
@pytest.mark.parametrize("host", [HOST_V1, HOST_V2], ids=["v1", "v2"])
def test_who_may_write_to_cgroups(host: plan.HostFacts, privileged: bool, writable: bool | None, readonly: bool) -> None:
    made = plan.launch_plan(_spec(privileged=privileged, writable_cgroups=writable), host)
    [mount] = [item for item in made["mounts"] if item.get("destination") == "/sys/fs/cgroup"]
    assert mount["readonly"] is readonly


@pytest.mark.parametrize(("has", "applied"), [(True, "mine"), (False, "")])
def test_a_profile_of_apparmor_is_applied_where_there_is_apparmor(has: bool, applied: str) -> None:
    host = msgspec.structs.replace(HOST_V2, apparmor=has)
    assert plan.launch_plan(_spec(apparmor="mine"), host)["process"].get("apparmor", "") == applied
    executed = plan.ExecSpec(id="e" * 64, args=("ps",), cgroup="sampan/c", apparmor="mine")
    assert plan.exec_plan(executed, host)["process"].get("apparmor", "") == applied
