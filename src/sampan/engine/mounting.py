"""A container's mounts: `-v` and `--mount` texts checked, as the plan and as inspect want them. Host directories are made at start."""

import os
import posixpath
import re
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.runtime import plan
from sampan.spec.docker_api.container import HostConfig
from sampan.spec.docker_api.mount import Mount, MountPoint

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_TMPFS_WORDS = frozenset((
    "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "mand", "noatime", "nodev", "nodiratime", "noexec",
    "nomand", "norelatime", "nostrictatime", "nosuid", "private", "rbind", "relatime", "remount", "ro", "rprivate", "rshared", "rslave",
    "runbindable", "rw", "shared", "slave", "strictatime", "suid", "sync", "unbindable",
))  # fmt: skip
_TMPFS_KEYS = frozenset(("gid", "huge", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"))
_PROC_PLACES = frozenset((
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev", "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
))  # fmt: skip
_IGNORED = ("z", "Z", "nocopy", "consistent", "cached", "delegated")


class BindMount(msgspec.Struct, frozen=True):
    """One host directory or file in a container."""

    source: str
    destination: str
    mode: str = ""
    """The text of its options, as inspect shows it."""
    readonly: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    readonly_recursive: bool = True
    make_source: bool = False
    """`-v` makes a missing host directory, `--mount` does not."""


class TmpfsMount(msgspec.Struct, frozen=True):
    """A tmpfs of `--tmpfs` or `--mount type=tmpfs`."""

    destination: str
    options: str = ""
    from_mount: bool = False


def parse_bind(text: str) -> BindMount:
    """`source:destination[:options]`. Raises InvalidArgument in docker's words, NotImplementedYet for a volume name."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not parts[0] or not parts[1]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, destination, mode = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    if not destination.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"bind\": "
            f"invalid mount path: '{destination}' mount path must be absolute"
        )
    destination = posixpath.normpath(destination)
    if destination == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'"
        )
    if not source.startswith("/"):
        if not _VOLUME.fullmatch(source):
            raise InvalidArgument(
                f'create {source}: "{source}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
                "allowed. If you intended to pass a host directory, use absolute path"
            )
        raise NotImplementedYet(f"volume {source!r}: named volumes are not implemented by Sampan yet; use an absolute host path")
    readonly, propagation = False, "rprivate"
    seen: set[str] = set()
    for word in filter(None, mode.split(",")):
        kind = "access" if word in ("ro", "rw") else "propagation" if word in _PROPAGATIONS else word
        if kind in seen or (kind == word and word not in _IGNORED):
            raise InvalidArgument(f"invalid mode: {mode}")
        seen.add(kind)
        readonly = readonly or word == "ro"
        propagation = word if word in _PROPAGATIONS else propagation
    return BindMount(posixpath.normpath(source), destination, mode, readonly, propagation, make_source=True)


def parse_tmpfs(path: str, options: str) -> TmpfsMount:
    """One of `--tmpfs`. Raises InvalidArgument (moby volume/mounts/linux_parser.go ValidateTmpfsMountDestination, pkg mount)."""
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    destination = posixpath.normpath(path)
    if destination == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    for word in filter(None, options.split(",")):
        key, equals, value = word.partition("=")
        if word not in _TMPFS_WORDS and not (equals and value and key in _TMPFS_KEYS):
            raise InvalidArgument(f'invalid tmpfs option "{word}"')
    return TmpfsMount(destination, options)


def _bind_of(mount: Mount) -> BindMount:
    options = mount.bind_options
    if not mount.source:
        raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
    if not mount.source.startswith("/"):
        raise InvalidArgument(f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' mount path must be absolute")
    make = options is not None and options.create_mountpoint
    if not make and not os.path.lexists(mount.source):
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    propagation = options.propagation if options is not None and options.propagation else "rprivate"
    if propagation not in _PROPAGATIONS:
        raise InvalidArgument(f'invalid mount config for type "bind": invalid propagation mode: {propagation}')
    return BindMount(
        posixpath.normpath(mount.source),
        posixpath.normpath(mount.target),
        "",
        mount.read_only,
        propagation,
        recursive=not (options is not None and options.non_recursive),
        readonly_recursive=not (options is not None and options.read_only_non_recursive),
        make_source=make,
    )


def _tmpfs_of(mount: Mount) -> TmpfsMount:
    if mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    words = ["ro"] if mount.read_only else []
    if mount.tmpfs_options is not None:
        if mount.tmpfs_options.size_bytes:
            words.append(f"size={mount.tmpfs_options.size_bytes}")
        if mount.tmpfs_options.mode:
            words.append(f"mode={mount.tmpfs_options.mode:o}")
        words.extend("=".join(option) for option in mount.tmpfs_options.options or ())
    return TmpfsMount(posixpath.normpath(mount.target), ",".join(words), from_mount=True)


def _check_proc(destination: str) -> None:
    """/proc stays the kernel's: masked and read-only paths are of no use in another tree (runc rootfs_linux.go checkProcMount)."""
    if destination == "/proc":
        raise InvalidArgument('"/proc" cannot be mounted because it is not of type proc')
    if destination.startswith("/proc/") and destination.removeprefix("/proc/") not in _PROC_PLACES:
        raise InvalidArgument(f'"{destination}" cannot be mounted because it is inside /proc')


def mounts_of(host: HostConfig) -> list[BindMount | TmpfsMount]:
    """Every mount a HostConfig asks for. Raises InvalidArgument (also when two have one destination), NotImplementedYet."""
    found: list[BindMount | TmpfsMount] = [parse_bind(text) for text in host.binds or ()]
    for mount in host.mounts or ():
        if not mount.target:
            raise InvalidArgument(f'invalid mount config for type "{mount.type}": field Target must not be empty')
        if not mount.target.startswith("/"):
            raise InvalidArgument(
                f"invalid mount config for type \"{mount.type}\": invalid mount path: '{mount.target}' mount path must be absolute"
            )
        if posixpath.normpath(mount.target) == "/":
            raise InvalidArgument(f"invalid mount config for type \"{mount.type}\": invalid specification: destination can't be '/'")
        if mount.type == "bind":
            found.append(_bind_of(mount))
        elif mount.type == "tmpfs":
            found.append(_tmpfs_of(mount))
        elif mount.type in ("volume", "image", "cluster"):
            raise NotImplementedYet(f"{mount.type} mounts: not implemented by Sampan yet")
        else:
            raise InvalidArgument(f'invalid mount config for type "{mount.type}": mount type unknown')
    found.extend(parse_tmpfs(path, options) for path, options in (host.tmpfs or {}).items())
    seen: set[str] = set()
    for item in found:
        _check_proc(item.destination)
        if item.destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {item.destination}")
        seen.add(item.destination)
    return found


def mounts_of_stored(host: HostConfig) -> list[BindMount | TmpfsMount]:
    """The mounts of a container that exists: what was valid at create is shown even if its source has gone since."""
    with suppress(InvalidArgument, NotImplementedYet):
        return mounts_of(host)
    return []


def make_sources(mounts: Iterable[BindMount | TmpfsMount]) -> None:
    """Make missing host directories of `-v`. Raises OSError."""
    for mount in mounts:
        if isinstance(mount, BindMount) and mount.make_source and not os.path.lexists(mount.source):
            os.makedirs(mount.source, 0o755, exist_ok=True)


def plan_mounts(mounts: Iterable[BindMount | TmpfsMount]) -> list[plan.Mount]:
    """As the launch plan wants them."""
    result: list[plan.Mount] = []
    for mount in mounts:
        if isinstance(mount, TmpfsMount):
            result.append(plan.Mount(destination=mount.destination, type="tmpfs", options=mount.options))
        else:
            result.append(
                plan.Mount(
                    destination=mount.destination,
                    source=mount.source,
                    readonly=mount.readonly,
                    propagation=mount.propagation,
                    recursive=mount.recursive,
                    readonly_recursive=mount.readonly_recursive,
                )
            )
    return result


def mount_points(mounts: Iterable[BindMount | TmpfsMount]) -> list[MountPoint]:
    """As inspect and list show them; `--tmpfs` ones are not shown there, as in docker."""
    result: list[MountPoint] = []
    for mount in mounts:
        if isinstance(mount, BindMount):
            result.append(
                MountPoint(
                    type="bind",
                    source=mount.source,
                    destination=mount.destination,
                    mode=mount.mode,
                    rw=not mount.readonly,
                    propagation=mount.propagation,
                )
            )
        elif mount.from_mount:
            result.append(MountPoint(type="tmpfs", destination=mount.destination, rw=True))
    return result
