"""OCI configurations against golden files, and the rules of single options."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampan.errors import InvalidArgument
from sampan.runtime import ocispec, plan
from sampan.runtime.cgroups import Resources
from tests.unit.runtime.test_plan import CASES, HOST_V1, _spec

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "plan"
RUNC = ocispec.Runtime(("/usr/bin/runc", "--debug"), "/run/sampan/runtimes/c")


def _config(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = ocispec.launch(_spec(**options), RUNC, HOST_V1)["oci"]["config"]
    return found


@pytest.mark.parametrize("name", sorted(name for name, (spec, _) in CASES.items() if spec.userns is None))
def test_configurations_are_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    spec, host = CASES[name]
    made = ocispec.launch(spec, RUNC, host)
    assert made["oci"]["command"] == ["/usr/bin/runc", "--debug"]
    config = made["oci"]["config"]
    config["linux"].pop("seccomp", None)
    text = json.dumps(config, indent=1) + "\n"
    file = GOLDEN / f"oci_{name}.json"
    if request.config.getoption("--update-golden"):
        file.write_text(text)
    assert file.read_text() == text


def test_a_configuration_says_what_that_of_docker28_says() -> None:
    theirs = json.loads((GOLDEN.parent / "docker28" / "oci_config.json").read_text())
    ours = _config(
        hostname="box", domainname="dd", args=("/bin/sleep", "100"), shm_size=1 << 20, sysctls={"net.core.somaxconn": "1024"},
        capabilities=plan.resolve_capabilities(["NET_ADMIN"], []),
        resources=Resources(memory=64 << 20, memory_swap=128 << 20, nano_cpus=1_500_000_000, pids_limit=50),
        rlimits=(plan.Rlimit(name="nofile", soft=1024, hard=2048),),
        mounts=(plan.Mount(type="tmpfs", destination="/t", options="size=1m"),),
        rootfs=plan.Rootfs(lowers=("/data/a",), upper="/data/c/diff", work="/data/c/work", readonly=True),
    )  # fmt: skip
    for name in ("args", "cwd", "rlimits", "oomScoreAdj"):
        assert ours["process"][name] == theirs["process"][name]
    for kind, names in theirs["process"]["capabilities"].items():
        assert set(ours["process"]["capabilities"][kind]) == set(names)
    assert (ours["hostname"], ours["root"]["readonly"]) == (theirs["hostname"], theirs["root"]["readonly"])
    for name in ("sysctl", "maskedPaths", "readonlyPaths"):
        assert ours["linux"][name] == theirs["linux"][name]
    for name in ("memory", "pids"):
        assert {**theirs["linux"]["resources"][name], **ours["linux"]["resources"][name]} == theirs["linux"]["resources"][name]
    cpu = {name: value for name, value in theirs["linux"]["resources"]["cpu"].items() if value}
    assert ours["linux"]["resources"]["cpu"] == cpu
    kinds = {entry["type"] for entry in theirs["linux"]["namespaces"]}
    assert {entry["type"] for entry in ours["linux"]["namespaces"]} == kinds

    def mounts(config: dict[str, Any]) -> dict[str, tuple[str, str, set[str]]]:
        found = config["mounts"]
        return {
            entry["destination"]: (entry["type"], entry["source"], set(entry["options"]) - {"rprivate"})
            for entry in found
            if entry["type"] != "bind"
        }

    assert mounts(ours) == mounts(theirs)


def test_a_seccomp_profile_is_resolved() -> None:
    profile = _config(capabilities=("CAP_CHOWN",))["linux"]["seccomp"]
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert not any({"includes", "excludes", "name"} & set(rule) for rule in profile["syscalls"])
    allowed = {
        name for rule in profile["syscalls"] if not rule.get("args") and rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]
    }
    assert "ptrace" in allowed
    assert not allowed & {"mount", "reboot"}
    assert "seccomp" not in _config(seccomp="unconfined")["linux"]
    assert "seccomp" not in _config(privileged=True)["linux"]
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        _config(seccomp={"defaultAction": "NONSENSE"})


def test_block_devices_and_limits() -> None:
    limits = Resources(blkio_weight=300, device_weights=(("8:0", 200),), throttles=(("8:0", "read_bps", 1024),), memory_swappiness=0)
    assert ocispec.resources(limits) == {
        "memory": {"swappiness": 0},
        "blockIO": {
            "weight": 300,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}],
        },
    }


def test_real_time_limits_and_those_of_the_cgroups_above() -> None:
    limits = Resources(cpu_rt_period=1_000_000, cpu_rt_runtime=5_000)
    assert ocispec.resources(limits) == {"cpu": {"realtimePeriod": 1_000_000, "realtimeRuntime": 5_000}}
    made = ocispec.launch(_spec(resources=limits, parents_real_time=(0, 10_000)), RUNC, HOST_V1)
    assert made["oci"]["parents"] == [["/sys/fs/cgroup/cpu,cpuacct/sampan/cpu.rt_runtime_us", "10000", True]]
    assert ocispec.launch(_spec(), RUNC, HOST_V1)["oci"]["parents"] == []


def test_a_profile_of_apparmor_where_there_are_profiles() -> None:
    spec = _spec(apparmor="mine")
    assert "apparmorProfile" not in ocispec.launch(spec, RUNC, HOST_V1)["oci"]["config"]["process"]
    enforcing = msgspec.structs.replace(HOST_V1, apparmor=True)
    assert ocispec.launch(spec, RUNC, enforcing)["oci"]["config"]["process"]["apparmorProfile"] == "mine"
    made = ocispec.execute(plan.ExecSpec(id="e", args=("ps",), cgroup="sampan/c", apparmor="mine"), "c", RUNC, enforcing)
    assert made["oci"]["config"]["apparmorProfile"] == "mine"


def test_cgroups_that_may_be_written_and_attributes_of_mounts() -> None:
    mount = plan.Mount(source="/s", destination="/d", attributes=("nosuid", "noexec"))
    mounts = {entry["destination"]: entry["options"] for entry in _config(writable_cgroups=True, mounts=(mount,))["mounts"]}
    assert "rw" in mounts["/sys/fs/cgroup"]
    assert mounts["/d"] == ["rbind", "rprivate", "nosuid", "noexec"]


def test_hooks_of_devices_are_the_runtimes_to_run() -> None:
    hook = plan.Hook("/bin/hook", ("hook", "-x"), ("A=b",), 5)
    found = json.loads(json.dumps(_config(hooks=(hook,))["hooks"]))
    assert found == {"createContainer": [{"path": "/bin/hook", "args": ["hook", "-x"], "env": ["A=b"], "timeout": 5}]}
    assert "hooks" not in _config()


def test_an_exec() -> None:
    spec = plan.ExecSpec(
        id="e" * 64, args=("ps",), cgroup="sampan/c", tty=True, console_size=(24, 80), rlimits=(plan.Rlimit(name="core", soft=0, hard=-1),)
    )
    made = ocispec.execute(spec, "c" * 64, RUNC, HOST_V1)
    process = made["oci"]["config"]
    assert (process["terminal"], process["consoleSize"], process["cwd"]) == (True, {"height": 24, "width": 80}, "/")
    assert process["rlimits"] == [{"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]
    assert made["oci"]["container"] == "c" * 64
