"""What holds for the plan of any container: hostile strings included, whatever the host."""

import base64
import copy
import json
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.linux import capabilities
from sampan.runtime import defaults, ops, plan
from sampan.runtime.cgroups import Layout, Resources
from sampan.runtime.protocol import MAX_PAYLOAD

V1 = Layout(
    1, tuple((name, f"/sys/fs/cgroup/{name}") for name in ("cpu,cpuacct", "cpuset", "memory", "devices", "pids", "systemd")),
    "/sys/fs/cgroup/unified",
)  # fmt: skip
V2 = Layout(2, (), "/sys/fs/cgroup", ("cpuset", "cpu", "io", "memory", "pids"))
NAMES = list(capabilities.NUMBERS)

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
_words = st.one_of(_texts, st.sampled_from(["", "..", "../../etc", "/proc/self/fd/1", "a\nb", "*", "$(reboot)"]))
_paths = st.lists(st.sampled_from(["a", "b", "dev", "shm", "etc", "sys", "x y", "é"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
_ids = st.text("0123456789abcdef", min_size=64, max_size=64)
_mounts = st.lists(
    st.builds(
        plan.Mount, destination=_paths, type=st.sampled_from(["bind", "tmpfs"]), source=_paths, readonly=st.booleans(),
        propagation=st.sampled_from(["", "rprivate", "private", "rslave", "slave", "rshared", "shared"]), recursive=st.booleans(),
        readonly_recursive=st.booleans(), options=_words,
    ),
    max_size=12,
)  # fmt: skip
_process: dict[str, Any] = {
    "args": st.lists(_words, min_size=1, max_size=5).map(tuple),
    "env": st.lists(_words, max_size=5).map(tuple),
    "cwd": _words,
    "user": _words,
    "groups_add": st.lists(_words, max_size=3).map(tuple),
    "tty": st.booleans(),
    "console_size": st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    "capabilities": st.none() | st.lists(st.sampled_from(NAMES), unique=True).map(tuple),
    "seccomp": st.sampled_from([None, "unconfined", {"defaultAction": "SCMP_ACT_ERRNO"}, {"defaultAction": "?"}]),
    "no_new_privileges": st.booleans(),
    "rlimits": st.lists(st.builds(plan.Rlimit, name=st.just("nofile"), soft=st.integers(-1), hard=st.integers(-1)), max_size=2).map(tuple),
    "oom_score_adj": st.none() | st.integers(-1000, 1000),
}
_shares = st.sampled_from(["private", "host", "fd"])
_specs = _ids.flatmap(
    lambda number: st.builds(
        plan.LaunchSpec, **_process, id=st.just(number), cgroup=st.just(f"sampan/{number}"),
        rootfs=st.builds(
            plan.Rootfs, lowers=st.lists(st.integers(0, 200) | _paths, max_size=5).map(tuple), upper=_paths, work=_paths,
            readonly=st.booleans(),
        ),
        hostname=_words, domainname=_words, mounts=_mounts.map(tuple), shm_size=st.integers(0, 2**63 - 1), shm=st.booleans(),
        masked_paths=st.none() | st.lists(_paths, max_size=3).map(tuple),
        readonly_paths=st.none() | st.lists(_paths, max_size=3).map(tuple),
        devices=st.lists(st.builds(plan.Device, host_path=_paths, container_path=_paths), max_size=3).map(tuple),
        device_rules=st.lists(st.sampled_from(["c 1:3 mr", "b *:* rwm", "c 10:* r"]), max_size=3).map(tuple),
        namespaces=st.builds(plan.Namespaces, net=_shares, pid=_shares, ipc=_shares, uts=st.sampled_from(["private", "host"]),
                             cgroup=st.sampled_from([None, "private", "host"])),
        resources=st.builds(
            Resources, memory=st.integers(0, 2**63 - 1), memory_swap=st.integers(-1, 2**63 - 1), cpu_shares=st.integers(0, 2**31),
            nano_cpus=st.integers(0, 2**40), cpuset_cpus=_words, pids_limit=st.integers(-1, 2**31),
            blkio_weight=st.sampled_from([0, 10, 1000]),
        ),
        sysctls=st.dictionaries(_words, _words, max_size=3), init=st.booleans(), privileged=st.booleans(),
    )
)  # fmt: skip
_hosts = st.builds(
    plan.HostFacts, machine=st.sampled_from(["x86_64", "aarch64"]), kernel=st.sampled_from([(4, 19), (5, 10), (6, 1), (6, 18)]),
    capabilities=st.integers(0, (1 << len(NAMES)) - 1), layout=st.sampled_from([V1, V2]),
)  # fmt: skip


def launched(spec: plan.LaunchSpec, host: plan.HostFacts) -> dict[str, Any] | None:
    """The plan; None where the profile is refused, as it must be."""
    try:
        made = plan.launch_plan(spec, host)
    except InvalidArgument:
        assert isinstance(spec.seccomp, dict)
        assert spec.seccomp["defaultAction"] == "?"
        return None
    assert spec.seccomp != {"defaultAction": "?"}
    return made


@settings(max_examples=80)
@given(spec=_specs, host=_hosts)
def test_a_plan_is_pure_and_is_json(spec: plan.LaunchSpec, host: plan.HostFacts) -> None:
    before = copy.deepcopy(spec)
    made = launched(spec, host)
    if made is None:
        return
    assert spec == before
    text = json.dumps(made)
    assert json.loads(text) == made == plan.launch_plan(spec, host)
    assert len(text) < MAX_PAYLOAD // 64


@settings(max_examples=80)
@given(spec=_specs, host=_hosts)
def test_rights_are_those_asked_for_and_had(spec: plan.LaunchSpec, host: plan.HostFacts) -> None:
    made = launched(spec, host)
    if made is None:
        return
    asked = NAMES if spec.privileged else defaults.CAPABILITIES if spec.capabilities is None else spec.capabilities
    process = made["process"]
    assert process["capabilities"] == capabilities.mask_of(list(asked)) & host.capabilities
    assert process["no_new_privileges"] is spec.no_new_privileges
    free = spec.seccomp == "unconfined" or (spec.privileged and spec.seccomp is None)
    assert (process["seccomp"] == "") is free
    assert len(base64.b64decode(process["seccomp"])) % 8 == 0
    assert made["host_devices"] is spec.privileged
    assert (["a", -1, -1, "rwm"] in made["cgroup"]["rules"]) is spec.privileged


@settings(max_examples=80)
@given(spec=_specs, host=_hosts)
def test_masked_and_readonly_paths_are_kept_unless_privileged(spec: plan.LaunchSpec, host: plan.HostFacts) -> None:
    made = launched(spec, host)
    if made is None:
        return
    for key, wanted, default in (
        ("masked", spec.masked_paths, defaults.MASKED_PATHS),
        ("readonly", spec.readonly_paths, defaults.READONLY_PATHS),
    ):
        assert made[key] == ([] if spec.privileged else list(default if wanted is None else wanted))
    sysfs = [mount for mount in made["mounts"] if mount.get("destination") == "/sys"]
    sysfs += [bind for bind in made["binds"] if bind["source"] == bind["destination"] == "/sys" and "attributes" in bind]
    assert len([item for item in sysfs if item.get("type") != "tmpfs" or "copy_mode" not in item]) == 1
    if not spec.privileged:
        assert all(item["readonly"] if "readonly" in item else "ro" in item["attributes"] for item in sysfs if "copy_mode" not in item)


@settings(max_examples=80)
@given(spec=_specs, host=_hosts)
def test_every_mount_is_made_once_and_none_hides_a_later_one(spec: plan.LaunchSpec, host: plan.HostFacts) -> None:
    made = launched(spec, host)
    if made is None:
        return
    used = [mount["bind"] for mount in made["mounts"] if mount["op"] == ops.OP_BIND]
    assert used == list(range(len(made["binds"])))
    users = [made["binds"][mount["bind"]] if mount["op"] == ops.OP_BIND else mount for mount in made["mounts"][-len(spec.mounts) :]]
    if not spec.mounts:
        return
    assert sorted(user["destination"] for user in users) == sorted(mount.destination for mount in spec.mounts)
    depths = [user["destination"].count("/") for user in users]
    assert depths == sorted(depths)
    wanted = sorted((mount.source, mount.destination, mount.readonly) for mount in spec.mounts if mount.type == "bind")
    assert sorted((user["source"], user["destination"], user["readonly"]) for user in users if "source" in user) == wanted
    if host.kernel < (5, 12):
        assert not any(user["readonly_recursive"] for user in users if "source" in user)


@settings(max_examples=80)
@given(spec=_specs, host=_hosts)
def test_no_path_leaves_its_root(spec: plan.LaunchSpec, host: plan.HostFacts) -> None:
    made = launched(spec, host)
    if made is None:
        return
    group = made["cgroup"]
    files = [*group["dirs"], *group["cpuset"], *(item[0] for item in [*group["writes"], *group["delegate"]]), *group["devices"].values()]
    for path in filter(None, [*files, group["unified"]]):
        assert os.path.normpath(path) == path
        assert path.startswith("/sys/fs/cgroup/")
    own = [*group["dirs"], *(item[0] for item in group["writes"]), *group["devices"].values()]
    assert all(f"/{spec.cgroup}" in path for path in own)
    for item in [*made["mounts"], *made["binds"]]:
        destination = item.get("destination") or item.get("path")
        assert destination is None or (destination.startswith("/") and ".." not in destination.split("/"))


@settings(max_examples=80)
@given(st.builds(plan.ExecSpec, **_process, id=_ids, cgroup=_ids.map("sampan/{}".format), privileged=st.booleans()), _hosts)
def test_the_plan_of_an_exec(spec: plan.ExecSpec, host: plan.HostFacts) -> None:
    try:
        made = plan.exec_plan(spec, host)
    except InvalidArgument:
        assert spec.seccomp == {"defaultAction": "?"}
        return
    assert json.loads(json.dumps(made)) == made == plan.exec_plan(spec, host)
    asked = NAMES if spec.privileged else defaults.CAPABILITIES if spec.capabilities is None else spec.capabilities
    process = made["process"]
    assert process["capabilities"] == capabilities.mask_of(list(asked)) & host.capabilities
    assert (process["seccomp"] == "") is (spec.seccomp == "unconfined")
    assert (tuple(process["args"]), tuple(process["env"]), process["user"]) == (spec.args, spec.env, spec.user)
    assert not process["init"]
    assert all(path.startswith("/sys/fs/cgroup/") and path.endswith(spec.cgroup) for path in made["cgroup"]["dirs"])
