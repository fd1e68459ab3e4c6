"""From what the engine knows about a container (LaunchSpec, ExecSpec) to what the supervisor's child does (a plan).

Pure: no file is touched. The shape of a plan is in runtime/ops.py. Host differences come in by HostFacts.
"""

import base64
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from sampan.errors import InvalidArgument
from sampan.linux import apparmor, capabilities, idmap, seccomp_bpf
from sampan.runtime import cgroups, defaults, ops
from sampan.runtime.cgroups import Layout, Resources


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan depends on of the host it runs on."""

    machine: str
    kernel: tuple[int, int]
    capabilities: int
    """The mask this process may give away (its bounding set)."""
    layout: Layout
    apparmor: bool = False
    """Whether profiles are enforced here."""


class UserMaps(msgspec.Struct, frozen=True):
    """What the users and groups of a container are on the host: (ID inside, ID outside, how many), root's first."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]

    def as_tuple(self) -> tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]:
        """As it is stored."""
        return self.uids, self.gids

    def built(self) -> dict[str, list[list[int]]]:
        """As in a plan."""
        return {"uids": [list(entry) for entry in self.uids], "gids": [list(entry) for entry in self.gids]}


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A bind or tmpfs mount. options: tmpfs's, as in `docker run --tmpfs`. subpath: what of the source is meant, "" for all of it."""

    destination: str
    type: Literal["bind", "tmpfs"] = "bind"
    source: str = ""
    readonly: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    readonly_recursive: bool = True
    options: str = ""
    subpath: str = ""
    descriptor: str = ""
    """The source is this descriptor of the launch message: a detached mount."""
    idmap: bool = False
    """What the owner of the source has on the disk is the container's user's inside, and what that makes is his."""
    layers: tuple[str, ...] = ()
    """The source is a read-only overlay of these, top first: paths, or names of descriptors of the launch message."""
    mapped: bool = False
    """With a user namespace: the source is the engine's, and IDs on its disk are the container's, not the host's."""
    attributes: tuple[str, ...] = ()
    """Further ones of the mount itself, such as nosuid."""
    over_link: bool = False
    """A symbolic link at the destination is covered itself: what it leads to stays as it is."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A host device, stat'ed by the child."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


class Hook(msgspec.Struct, frozen=True):
    """A program of the host that is run in the container's namespaces before it is entered (createContainer)."""

    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout: int
    """Seconds."""


class Rlimit(msgspec.Struct, frozen=True, kw_only=True):
    """-1 is unlimited; not required: left out when the host forbids it."""

    name: str
    soft: int
    hard: int
    required: bool = True


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    """Overlay layers, lowers top first: paths, or numbers n of descriptors named layer<n> in the launch message.

    With no lowers, `upper` itself is bound as the root.
    """

    lowers: tuple[str | int, ...]
    upper: str
    work: str
    readonly: bool = False


Share = Literal["private", "host", "fd"]


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """fd: descriptor named netns, ipcns or pidns in the launch message. cgroup None: docker's default for the host's layout.

    ipcns is a pidfd: its process's /dev/shm is shared, too.
    """

    net: Share = "fd"
    joins_net: bool = False
    """The network namespace is another container's: of its sysctls only those change that are asked for."""
    pid: Share = "private"
    ipc: Share = "private"
    uts: Literal["private", "host"] = "private"
    cgroup: Literal["private", "host"] | None = None


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What init and exec have in common. args: not empty. user: `name|uid[:group|gid]`. capabilities None: docker's default set."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    groups_add: tuple[str, ...] = ()
    tty: bool = False
    console_size: tuple[int, int] | None = None
    """(rows, columns)"""
    capabilities: tuple[str, ...] | None = None
    seccomp: dict[str, Any] | Literal["unconfined"] | None = None
    no_new_privileges: bool = False
    apparmor: str = ""
    """A loaded profile, or `unconfined`; "" leaves the process under what the engine is under. Nothing where there is no AppArmor."""
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None


class LaunchSpec(Process, frozen=True, kw_only=True):
    """A container's init process and its surroundings."""

    id: str
    rootfs: Rootfs
    cgroup: str
    """Path below every hierarchy's root, such as `sampan/<id>`."""
    parents_real_time: tuple[int, int] = (0, 0)
    """Period and runtime of the real-time scheduler, in microseconds, of every cgroup above; 0 leaves it as it is."""
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    shm_size: int = defaults.SHM_SIZE
    shm: bool = True
    """False: no tmpfs on /dev/shm (`--ipc none`)."""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    devices: tuple[Device, ...] = ()
    device_rules: tuple[str, ...] = ()
    """As in `--device-cgroup-rule`: `c 1:3 mr`."""
    namespaces: Namespaces = Namespaces()
    resources: Resources = Resources()
    sysctls: dict[str, str] = {}
    init: bool = False
    privileged: bool = False
    userns: UserMaps | None = None
    """Of the user namespace that comes with the launch; None: the host's."""
    writable_cgroups: bool | None = None
    """None: as privileged has it."""
    hooks: tuple[Hook, ...] = ()
    bundle: str = ""
    """The directory with what hooks look for in an OCI config.json."""


class ExecSpec(Process, frozen=True, kw_only=True):
    """A further process in a running container."""

    id: str
    cgroup: str
    privileged: bool = False
    userns: UserMaps | None = None
    """As its container was started with."""


@lru_cache(maxsize=1)
def host_facts() -> HostFacts:
    """This host's facts, read once."""
    name = os.uname()
    major, minor = (int("".join(c for c in word if c.isdigit()) or 0) for word in name.release.split("-")[0].split(".")[:2])
    return HostFacts(
        machine=name.machine,
        kernel=(major, minor),
        capabilities=capabilities.bounding_set(),
        layout=cgroups.host_layout(),
        apparmor=apparmor.enabled(),
    )


def resolve_capabilities(add: list[str], drop: list[str], privileged: bool = False) -> tuple[str, ...]:
    """The set that CapAdd and CapDrop ask for, sorted by number. Raises InvalidArgument in docker's words.

    Source: moby oci/caps/utils.go TweakCapabilities: drop ALL empties, add ALL fills; then single names.
    """
    every = list(capabilities.NUMBERS)
    if privileged:
        return tuple(every)

    def normalize(names: list[str], option: str) -> set[str]:
        result = set()
        for name in names:
            word = name.upper()
            word = word if word == "ALL" or word.startswith("CAP_") else f"CAP_{word}"
            if word != "ALL" and word not in capabilities.NUMBERS:
                raise InvalidArgument(f'invalid {option}: unknown capability: "{word}"')
            result.add(word)
        return result

    adds, drops = normalize(add, "CapAdd"), normalize(drop, "CapDrop")
    if "ALL" in adds:
        chosen = set(every) - drops
    elif "ALL" in drops:
        chosen = adds
    else:
        chosen = (set(defaults.CAPABILITIES) - drops) | adds
    return tuple(name for name in every if name in chosen)


@lru_cache(maxsize=64)
def _default_filter(caps: tuple[str, ...], machine: str, kernel: tuple[int, int]) -> str:
    profile = seccomp_bpf.default_profile()
    return base64.b64encode(seccomp_bpf.compile_profile(profile, caps, machine, kernel)).decode()


def _seccomp(spec: Process, caps: tuple[str, ...], host: HostFacts) -> str:
    if spec.seccomp == "unconfined":
        return ""
    if spec.seccomp is None:
        return _default_filter(caps, host.machine, host.kernel)
    try:
        return base64.b64encode(seccomp_bpf.compile_profile(spec.seccomp, caps, host.machine, host.kernel)).decode()
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error


def left_out(caps: Sequence[str], host: HostFacts) -> list[str]:
    """Warnings of capabilities that the host lacks. Asking for all is asking for all there is."""
    missing = capabilities.mask_of(list(caps)) & ~host.capabilities
    if not missing or len(caps) == len(capabilities.NUMBERS):
        return []
    return [f"The host does not have {', '.join(capabilities.names_of(missing))}: left out."]


def _process(spec: Process, privileged: bool, host: HostFacts) -> dict[str, Any]:
    wanted = tuple(capabilities.NUMBERS) if privileged else spec.capabilities
    caps = defaults.CAPABILITIES if wanted is None else wanted
    mask = capabilities.mask_of(list(caps))
    return {
        "args": list(spec.args),
        "env": list(spec.env),
        "cwd": spec.cwd or "/",
        "user": spec.user,
        "groups": list(spec.groups_add),
        "tty": spec.tty,
        "console_size": list(spec.console_size) if spec.console_size else None,
        "capabilities": mask & host.capabilities,
        # A privileged exec in a container that is not keeps the container's filter, as docker has it.
        "seccomp": _seccomp(spec, spec.capabilities or defaults.CAPABILITIES, host),
        "no_new_privileges": spec.no_new_privileges,
        **({"apparmor": spec.apparmor} if spec.apparmor and host.apparmor else {}),
        "rlimits": [[limit.name, limit.soft, limit.hard, limit.required] for limit in spec.rlimits],
        "oom_score_adj": spec.oom_score_adj,
        "umask": 0o022,
    }


_DEVICE_RULE = re.compile(r"([acb]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})")


def _device_rules(spec: LaunchSpec) -> list[list[Any]]:
    if spec.privileged:
        return [["a", -1, -1, "rwm"]]
    rules: list[list[Any]] = [list(rule) for rule in defaults.DEVICE_RULES]
    for text in spec.device_rules:
        match = _DEVICE_RULE.fullmatch(text)
        if match is None:
            raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
        kind, major, minor, access = match.groups()
        rules.append([kind, *(-1 if word == "*" else int(word) for word in (major, minor)), access])
    return rules


def _cgroup(spec: LaunchSpec, host: HostFacts) -> dict[str, Any]:
    layout = host.layout
    parts = spec.cgroup.strip("/").split("/")
    plan: dict[str, Any] = {
        "dirs": cgroups.directories(layout, spec.cgroup),
        "unified": cgroups.unified_directory(layout, spec.cgroup),
        "cpuset": [],
        "delegate": [],
        "writes": [
            list(item)
            for item in (
                *cgroups.parents_real_time(layout, spec.cgroup, *spec.parents_real_time),
                *cgroups.resource_writes(layout, spec.cgroup, spec.resources),
            )
        ],
        "devices": None,
        "rules": _device_rules(spec),
    }
    if layout.version == 1:
        root = cgroups.v1_path(layout, "cpuset", "")
        if root is not None:
            plan["cpuset"] = [root + "/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        directory = cgroups.v1_path(layout, "devices", spec.cgroup)
        plan["devices"] = {"v1": directory} if directory else None
    else:
        enable = " ".join(f"+{name}" for name in layout.controllers if name in ("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"))
        levels = ["/".join([layout.unified, *parts[:depth]]) for depth in range(len(parts))]
        plan["delegate"] = [[f"{level}/cgroup.subtree_control", enable] for level in levels] if enable else []
        plan["devices"] = {"v2": f"{layout.unified}/{spec.cgroup}"}
    return plan


def _cgroup_mount(spec: LaunchSpec, host: HostFacts, private: bool) -> dict[str, Any]:
    layout = host.layout
    readonly = not (spec.privileged if spec.writable_cgroups is None else spec.writable_cgroups)
    if layout.version == 2:
        source = layout.unified if spec.privileged or not private else f"{layout.unified}/{spec.cgroup}"
        return {"op": ops.OP_CGROUP_V2, "destination": "/sys/fs/cgroup", "private": private, "source": source, "readonly": readonly}
    return {
        "op": ops.OP_CGROUP_V1,
        "destination": "/sys/fs/cgroup",
        "controllers": [[names, f"{point}/{spec.cgroup}"] for names, point in layout.v1],
        "links": [[name, names] for names, _ in layout.v1 if "," in names for name in names.split(",")],
        "readonly": readonly,
    }


def _file_system(kind: str, destination: str, options: list[str], attributes: list[str]) -> dict[str, Any]:
    return {"op": ops.OP_MOUNT, "type": kind, "destination": destination, "options": options, "attributes": attributes}


_TMPFS_ATTRIBUTES = {"ro", "nosuid", "nodev", "noexec", "noatime", "strictatime", "nodiratime"}
_TMPFS_CLEAR = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro"}


def tmpfs_options(text: str) -> tuple[list[str], list[str]]:
    """(file-system options, mount attributes) of a --tmpfs option string on docker's base noexec,nosuid,nodev."""
    attributes = ["noexec", "nosuid", "nodev"]
    options: list[str] = []
    for word in filter(None, text.split(",")):
        if word in _TMPFS_CLEAR:
            attributes = [name for name in attributes if name != _TMPFS_CLEAR[word]]
        elif word in _TMPFS_ATTRIBUTES:
            attributes = [*(name for name in attributes if name != word), word]
        elif word.partition("=")[0] in ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"):
            options.append(word)
    return options, attributes


def _outside(options: list[str], userns: UserMaps | None) -> list[str]:
    """Mount options with the host's IDs in place of the container's: who mounts is of the host. Raises InvalidArgument."""
    if userns is None:
        return options
    result = []
    for option in options:
        key, _, value = option.partition("=")
        table = {"uid": userns.uids, "gid": userns.gids}.get(key)
        try:
            result.append(f"{key}={idmap.outside(table, int(value))}" if table else option)
        except (ValueError, OSError):
            raise InvalidArgument(f"invalid mount option {option}: no ID of the container's user namespace") from None
    return result


def _mounts(spec: LaunchSpec, host: HostFacts, private_cgroup: bool, binds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    safe = ["nosuid", "nodev", "noexec"]
    sysfs = safe if spec.privileged else ["ro", *safe]
    taken = {mount.destination.rstrip("/") or "/" for mount in spec.mounts}
    result = [
        _file_system("proc", "/proc", [], safe),
        _file_system("tmpfs", "/dev", ["mode=755", "size=65536k"], ["nosuid", "strictatime"]),
        _file_system(
            "devpts", "/dev/pts", ["newinstance", "ptmxmode=0666", "mode=0620", *_outside(["gid=5"], spec.userns)], ["nosuid", "noexec"]
        ),
    ]
    if spec.namespaces.net == "host":
        # A sysfs of a network namespace that the mounter does not own cannot be made anew in every configuration: bind the host's.
        binds.append({"source": "/sys", "destination": "/sys", "readonly": not spec.privileged, "readonly_recursive": False,
                      "recursive": False, "propagation": "rprivate", "attributes": safe})  # fmt: skip
        result.append({"op": ops.OP_BIND, "bind": len(binds) - 1})
    else:
        result.append(_file_system("sysfs", "/sys", [], sysfs))
    result.append(_cgroup_mount(spec, host, private_cgroup))
    if spec.namespaces.ipc == "host":
        for path in ("/dev/mqueue", "/dev/shm"):
            binds.append({"source": path, "destination": path, "readonly": False, "recursive": True, "propagation": "rprivate",
                          "optional": True})  # fmt: skip
            result.append({"op": ops.OP_BIND, "bind": len(binds) - 1})
    else:
        result.append(_file_system("mqueue", "/dev/mqueue", [], safe))
        if spec.namespaces.ipc == "fd" and "/dev/shm" not in taken:
            binds.append({"source": "/dev/shm", "destination": "/dev/shm", "readonly": False, "recursive": False,
                          "propagation": "rprivate", "optional": True, "mounts_of": "ipcns"})  # fmt: skip
            result.append({"op": ops.OP_BIND, "bind": len(binds) - 1})
        elif "/dev/shm" not in taken and spec.shm:
            shm = _file_system("tmpfs", "/dev/shm", ["mode=1777", f"size={spec.shm_size}"], safe)
            result.append({**shm, "source": "shm"})
    for path, major, minor in defaults.DEVICES:
        result.append({"op": ops.OP_DEVICE, "path": path, "type": "c", "major": major, "minor": minor, "mode": 0o666})
    result.extend({"op": ops.OP_SYMLINK, "path": path, "target": target} for path, target in defaults.LINKS)
    # By the number of their parts, as docker sorts them: a mount never hides one made before it.
    for mount in sorted(spec.mounts, key=lambda item: item.destination.rstrip("/").count("/")):
        if mount.type == "tmpfs":
            options, attributes = tmpfs_options(mount.options)
            options = _outside(options, spec.userns)
            result.append({**_file_system("tmpfs", mount.destination, options, attributes), "copy_mode": True})
            continue
        binds.append(
            {
                "source": mount.source,
                "destination": mount.destination,
                "readonly": mount.readonly,
                "readonly_recursive": mount.readonly_recursive and host.kernel >= (5, 12),
                "recursive": mount.recursive,
                "propagation": mount.propagation or "rprivate",
                **({"subpath": mount.subpath} if mount.subpath else {}),
                **({"layers": list(mount.layers)} if mount.layers else {"descriptor": mount.descriptor} if mount.descriptor else {}),
                **({"idmap": True} if mount.idmap else {}),
                **({"mapped": True} if mount.mapped and spec.userns is not None else {}),
                **({"attributes": list(mount.attributes)} if mount.attributes else {}),
                **({"over_link": True} if mount.over_link else {}),
            }
        )
        result.append({"op": ops.OP_BIND, "bind": len(binds) - 1})
    return result


def launch_plan(spec: LaunchSpec, host: HostFacts | None = None) -> dict[str, Any]:
    """The plan that starts a container. Raises InvalidArgument."""
    host = host or host_facts()
    cgroup_ns = spec.namespaces.cgroup
    if cgroup_ns is None:
        cgroup_ns = "private" if host.layout.version == 2 and not spec.privileged else "host"
    binds: list[dict[str, Any]] = []
    mounts = _mounts(spec, host, cgroup_ns == "private", binds)
    namespaces = spec.namespaces
    sysctls = [[key, value, True] for key, value in spec.sysctls.items()]
    if namespaces.net != "host" and not namespaces.joins_net:
        sysctls[:0] = [[key, value, False] for key, value in defaults.NETWORK_SYSCTLS if key not in spec.sysctls]
    shared = [mount.propagation.removeprefix("r") for mount in spec.mounts if mount.type == "bind"]
    process = _process(spec, spec.privileged, host)
    if spec.privileged and spec.seccomp is None:
        process["seccomp"] = ""
    process["init"] = spec.init
    masked: tuple[str, ...] = defaults.MASKED_PATHS if spec.masked_paths is None else spec.masked_paths
    readonly = defaults.READONLY_PATHS if spec.readonly_paths is None else spec.readonly_paths
    if spec.privileged:
        masked, readonly = (), ()
    return {
        "kind": "init",
        "id": spec.id,
        "namespaces": {
            "net": namespaces.net,
            "pid": namespaces.pid,
            "ipc": namespaces.ipc,
            "uts": namespaces.uts,
            "cgroup": cgroup_ns,
        },
        **({} if spec.userns is None else {"userns": spec.userns.built()}),
        "cgroup": _cgroup(spec, host),
        "rootfs": {
            "lowers": list(spec.rootfs.lowers),
            "upper": spec.rootfs.upper,
            "work": spec.rootfs.work,
            "readonly": spec.rootfs.readonly,
            "propagation": "shared" if "shared" in shared else "slave" if "slave" in shared else "private",
        },
        "binds": binds,
        "mounts": mounts,
        "devices": [[device.host_path, device.container_path, device.permissions] for device in spec.devices],
        "host_devices": spec.privileged,
        "hostname": spec.hostname,
        "domainname": spec.domainname,
        "sysctls": sysctls,
        "masked": list(masked),
        "thermal": bool(masked),
        "readonly": list(readonly),
        **({"hooks": msgspec.to_builtins(spec.hooks), "bundle": spec.bundle} if spec.hooks else {}),
        "process": process,
    }


def exec_plan(spec: ExecSpec, host: HostFacts | None = None) -> dict[str, Any]:
    """The plan that runs a further process in a container. Raises InvalidArgument."""
    host = host or host_facts()
    return {
        "kind": "exec",
        "id": spec.id,
        **({} if spec.userns is None else {"userns": spec.userns.built()}),
        "cgroup": {
            "dirs": cgroups.directories(host.layout, spec.cgroup),
            "unified": cgroups.unified_directory(host.layout, spec.cgroup),
        },
        "process": {**_process(spec, spec.privileged, host), "init": False},
    }
