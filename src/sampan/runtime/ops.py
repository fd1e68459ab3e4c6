"""The launch plan's vocabulary, shared by runtime.plan (which makes it) and supervisor/child.py (which runs it). Data only.

A plan is a JSON object, executed from top to bottom by the forked child:

    kind         "init" or "exec"
    namespaces   {"pid": "private"|"host"|"fd", "net": ..., "ipc": ..., "uts": "private"|"host", "cgroup": "private"|"host"}
                 "fd": a descriptor named "pidns", "netns" or "ipcns" travels with the message
    userns       (absent: the host's) {"uids": [[ID inside, ID outside, how many]], "gids": ...}: the maps of the descriptor named "userns",
                 of an exec those of its container's
    cgroup       {"dirs": [...], "unified": the one of them in the v2 hierarchy or "", "cpuset": [dirs that inherit, root first],
                 "delegate": [[subtree_control, "+cpu +..."]], "writes": [[file, value, required]],
                 "devices": null | {"v1": dir} | {"v2": dir}, "rules": [[type, major, minor, access]]}
    binds        [{"source", "destination", "readonly", "readonly_recursive", "propagation", "recursive", "optional", "subpath": below the
                 source, "descriptor": name of a detached mount that is the source, "idmap": its owner's files are the process's user's,
                 "mapped": IDs on its disk are those inside userns,
                 "layers": the source is an overlay of these, paths and names of descriptors}]
    rootfs       {"lowers", "upper", "work", "readonly", "propagation"}; a lower is a path, or n for the descriptor named "layer<n>"
    mounts       what is mounted in the root, in order (OP_* below)
    process      args, env, cwd, user, groups, tty, capabilities (mask), no_new_privileges, rlimits, oom_score_adj,
                 seccomp (base64 BPF), init
    oci          instead of most of the above, for another runtime (supervisor/oci.py): {"command", "root", "container", "config",
                 "hybrid": where a v1 host has the v2 hierarchy, and the container's cgroup in it, or [],
                 "parents": writes to the cgroups above the container's (not of an exec)}
"""

from typing import Any, Final

Plan = dict[str, Any]

OP_MOUNT: Final = "mount"
"""{"op", "type", "source", "destination", "options": [...], "attributes": ["ro", "nosuid", ...]}: a new file system."""
OP_BIND: Final = "bind"
"""{"op", "bind": index into binds}"""
OP_DEVICE: Final = "device"
"""{"op", "path", "type": "c", "major", "minor", "mode", "optional"}"""
OP_SYMLINK: Final = "symlink"
"""{"op", "path", "target"}"""
OP_CGROUP_V1: Final = "cgroup_v1"
"""{"op", "destination", "controllers": [[name, host directory]], "links": [[name, target]], "readonly"}"""
OP_CGROUP_V2: Final = "cgroup_v2"
"""{"op", "destination", "private": bool, "source", "readonly"}"""

STEP_CGROUP: Final = "cgroup"
STEP_CGROUP_WRITE: Final = "cgroup write"
STEP_NAMESPACE: Final = "namespace"
STEP_USERNS: Final = "user namespace"
STEP_ROOTFS: Final = "rootfs"
STEP_MOUNT: Final = "mount"
STEP_MOUNT_REFUSED: Final = "mount refused"
STEP_SUBPATH: Final = "subpath"
STEP_IDMAP: Final = "idmap"
STEP_DEVICE: Final = "device"
STEP_SYSCTL: Final = "sysctl"
STEP_RLIMIT: Final = "rlimit"
STEP_OOM: Final = "oom_score_adj"
STEP_HOOK: Final = "hook"
STEP_HOSTNAME: Final = "hostname"
STEP_TTY: Final = "tty"
STEP_USER: Final = "user"
STEP_IDENTITY: Final = "identity"
STEP_CWD: Final = "cwd"
STEP_CWD_MAKE: Final = "cwd make"
STEP_CAPABILITIES: Final = "capabilities"
STEP_SECCOMP: Final = "seccomp"
STEP_APPARMOR: Final = "apparmor"
STEP_KEYRING: Final = "keyring"
STEP_EXEC: Final = "exec"
STEP_JOIN: Final = "join"
STEP_RUNTIME: Final = "runtime"
"""Steps of an error {"step", "errno", "path", "message"}."""
