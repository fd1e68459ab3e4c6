"""A container's mounts: `-v`, `--mount`, `--tmpfs`, `--volumes-from` and an image's VOLUME, checked and brought together. Pure, but for
looking whether the source of a `--mount type=bind` is there. Messages are docker's (moby volume/mounts/linux_parser.go, daemon/volumes.go).
"""

import os
import posixpath
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

import msgspec

from sampan.errors import InvalidArgument
from sampan.spec.docker_api import mount as wire
from sampan.spec.docker_api.container import Config, HostConfig
from sampan.volume import options as volume_rules

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
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
_KINDS_OF_WORDS = {
    "access": ("ro", "rw"), "label": ("z", "Z"), "propagation": _PROPAGATIONS, "copy": ("nocopy",),
    "consistency": ("consistent", "cached", "delegated"), "owner": ("U", "idmap"),
}  # fmt: skip
_KIND_OF = {word: kind for kind, words in _KINDS_OF_WORDS.items() for word in words}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
MOUNTS_MAX = 1000
"""Of one container; docker has no bound."""


class BindMount(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="bind"):
    """One host directory or file in a container."""

    source: str
    destination: str
    mode: str = ""
    """The text of its options, as inspect shows it."""
    readonly: bool = False
    propagation: str = ""
    """"" only until with_propagation()."""
    recursive: bool = True
    readonly_recursive: bool = True
    make_source: bool = False
    """`-v` makes a missing host directory, `--mount` does not."""


class TmpfsMount(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tmpfs"):
    """A tmpfs of `--tmpfs` or `--mount type=tmpfs`."""

    destination: str
    options: str = ""
    from_mount: bool = False
    readonly: bool = False


class NewVolume(msgspec.Struct, frozen=True):
    """What a volume is to be if it does not exist yet."""

    driver: str = ""
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class VolumeMount(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="volume"):
    """A volume in a container. Before it is resolved: name "" for an anonymous one."""

    name: str
    destination: str
    mode: str = ""
    readonly: bool = False
    copy: bool = True
    """Whether an empty volume gets what the image has at the place."""
    subpath: str = ""
    anonymous: bool = False
    """`rm -v` and --rm remove it with the container."""
    only_directory: bool = False
    """A file of the image at the place is an error."""
    new: NewVolume | None = None
    """None once it is resolved."""


class ImageMount(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="image"):
    """An image's files in a container, read-only."""

    image: str
    """As the user wrote it."""
    destination: str
    subpath: str = ""
    image_id: str = ""
    """"" until it is resolved, as chain."""
    chain: tuple[str, ...] = ()
    """ChainIDs of its layers, the lowest first."""


Mount = BindMount | TmpfsMount | VolumeMount | ImageMount


def mode_words(mode: str) -> set[str]:
    """The words of a mount's options."""
    return set(mode.split(",")) if mode else set()


def is_valid_mode(mode: str) -> bool:
    """Whether a text is options of `-v`: known words, one of each kind at most."""
    kinds = [_KIND_OF.get(word) for word in mode.split(",")] if mode else []
    return None not in kinds and len(kinds) == len(set(kinds))


def _checked_destination(kind: str, target: str) -> str:
    """Raises InvalidArgument."""
    problem = ""
    if not target:
        problem = "field Target must not be empty"
    elif posixpath.normpath(target).lstrip("/") == "" and target.startswith("/"):
        problem = "invalid specification: destination can't be '/'"
    elif not target.startswith("/"):
        problem = f"invalid mount path: '{target}' mount path must be absolute"
    if problem:
        raise InvalidArgument(f'invalid mount config for type "{kind}": {problem}')
    return _clean(target)


def _clean(path: str) -> str:
    """Go's path.Clean of an absolute path."""
    return "/" + posixpath.normpath(path).lstrip("/")


def parse_bind(text: str, driver: str = "") -> BindMount | VolumeMount:
    """`[source:]destination[:options]`; driver: of volumes it makes. Raises InvalidArgument."""
    parts = text.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and is_valid_mode(parts[1])) or "\0" in text:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    mode = parts[2] if len(parts) == 3 else ""
    if not is_valid_mode(mode):
        raise InvalidArgument(f"invalid mode: {mode}")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    words = mode_words(mode)
    propagation = next(iter(words.intersection(_PROPAGATIONS)), "")
    try:
        if source.startswith("/"):
            destination = _checked_destination("bind", target)
            if "nocopy" in words:
                raise InvalidArgument('invalid mount config for type "bind": field VolumeOptions must not be specified')
            return BindMount(_clean(source), destination, mode, "ro" in words, propagation, make_source=True)
        destination = _checked_destination("volume", target)
        if propagation:
            raise InvalidArgument('invalid mount config for type "volume": field BindOptions must not be specified')
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid volume specification: '{text}': {error.message}") from None
    if source:
        volume_rules.check_name(source)
    return VolumeMount(
        source, destination, mode or "z", "ro" in words, copy="nocopy" not in words, anonymous=not source, new=NewVolume(driver)
    )


def parse_tmpfs(path: str, options: str) -> TmpfsMount:
    """One of `--tmpfs`. Raises InvalidArgument (moby volume/mounts/linux_parser.go ValidateTmpfsMountDestination, pkg mount)."""
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    destination = _clean(path)
    if destination == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    for word in filter(None, options.split(",")):
        key, equals, value = word.partition("=")
        if word not in _TMPFS_WORDS and not (equals and value and key in _TMPFS_KEYS):
            raise InvalidArgument(f'invalid tmpfs option "{word}"')
    return TmpfsMount(destination, options)


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """`container[:ro|rw]` as (container, whether all are to be read-only). Raises InvalidArgument."""
    if not text:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    words = mode_words(mode)
    if not is_valid_mode(mode) or words.intersection((*_PROPAGATIONS, "nocopy", "U", "idmap")):
        raise InvalidArgument(f"invalid mode: {mode}")
    return container, "ro" in words


def _bind_of(mount: wire.Mount, destination: str) -> BindMount:
    options = mount.bind_options or wire.BindOptions()
    if not mount.source:
        raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
    if options.propagation not in ("", *_PROPAGATIONS):
        raise InvalidArgument(f'invalid mount config for type "bind": invalid propagation mode: {options.propagation}')
    if not mount.source.startswith("/"):
        raise InvalidArgument(f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' mount path must be absolute")
    if not options.create_mountpoint and ("\0" in mount.source or not os.path.lexists(mount.source)):
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    conflict = ""
    if not mount.read_only and options.read_only_non_recursive:
        conflict = "!ReadOnly && BindOptions.ReadOnlyNonRecursive"
    elif not mount.read_only and options.read_only_force_recursive:
        conflict = "!ReadOnly && BindOptions.ReadOnlyForceRecursive"
    elif options.read_only_non_recursive and options.read_only_force_recursive:
        conflict = "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"
    if conflict:
        raise InvalidArgument(f"mount options conflict: {conflict}")
    return BindMount(
        _clean(mount.source),
        destination,
        "",
        mount.read_only,
        options.propagation,
        recursive=not options.non_recursive,
        readonly_recursive=not options.read_only_non_recursive,
        make_source=options.create_mountpoint,
    )


def _tmpfs_of(mount: wire.Mount, destination: str) -> TmpfsMount:
    if mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    options = mount.tmpfs_options or wire.TmpfsOptions()
    words = ["ro"] if mount.read_only else []
    if options.mode:
        words.append(f"mode={options.mode:o}")
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    for option in options.options or ():
        if not 1 <= len(option) <= 2:
            raise InvalidArgument('invalid mount config for type "tmpfs": invalid option array length')
        if option[0] not in ("exec", "noexec"):
            raise InvalidArgument(f'invalid mount config for type "tmpfs": invalid option: {option[0]}')
        words.append("=".join(option))
    return TmpfsMount(destination, ",".join(words), from_mount=True, readonly=mount.read_only)


def _check_subpath(kind: str, subpath: str) -> None:
    """Go's filepath.IsLocal: a path that leads nowhere but below, as far as its words tell."""
    depth = 0
    for part in subpath.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0 or subpath.startswith("/") or "\0" in subpath:
            raise InvalidArgument(f'invalid mount config for type "{kind}": subpath must be a relative path within the volume')


def _volume_of(mount: wire.Mount, destination: str, driver: str) -> VolumeMount:
    options = mount.volume_options or wire.VolumeOptions()
    config = options.driver_config or wire.DriverConfig()
    if options.subpath:
        if not mount.source:
            raise InvalidArgument('invalid mount config for type "volume": must not set Subpath when using anonymous volumes')
        _check_subpath("volume", options.subpath)
    if mount.source:
        volume_rules.check_name(mount.source)
    return VolumeMount(
        mount.source,
        destination,
        "z",
        mount.read_only,
        copy=not options.no_copy,
        subpath=options.subpath,
        anonymous=not mount.source,
        new=NewVolume(config.name or driver, config.options, options.labels),
    )


def _image_of(mount: wire.Mount, destination: str) -> ImageMount:
    subpath = mount.image_options.subpath if mount.image_options is not None else ""
    if not mount.source:
        raise InvalidArgument('invalid mount config for type "image": field Source must not be empty')
    if subpath:
        _check_subpath("image", subpath)
    return ImageMount(mount.source, destination, subpath)


def parse_mount(mount: wire.Mount) -> Mount:
    """One of HostConfig.Mounts. Raises InvalidArgument."""
    for kind, field, given in (
        ("bind", "BindOptions", mount.bind_options),
        ("volume", "VolumeOptions", mount.volume_options),
        ("image", "ImageOptions", mount.image_options),
        ("tmpfs", "TmpfsOptions", mount.tmpfs_options),
        ("cluster", "ClusterOptions", mount.cluster_options),
    ):
        if given is not None and mount.type != kind:
            raise InvalidArgument(f'invalid mount config for type "{mount.type}": field {field} must not be specified')
    destination = _checked_destination(mount.type, mount.target)
    match mount.type:
        case "bind":
            return _bind_of(mount, destination)
        case "volume":
            return _volume_of(mount, destination, "")
        case "tmpfs":
            return _tmpfs_of(mount, destination)
        case "image":
            return _image_of(mount, destination)
    raise InvalidArgument(f'invalid mount config for type "{mount.type}": mount type unknown')


def check_destination(destination: str) -> None:
    """/proc stays the kernel's: masked and read-only paths are of no use in another tree (runc rootfs_linux.go checkProcMount)."""
    if "\0" in destination:
        raise InvalidArgument(f"invalid mount path: '{destination}'")
    if destination == "/proc":
        raise InvalidArgument('"/proc" cannot be mounted because it is not of type proc')
    if destination.startswith("/proc/") and destination.removeprefix("/proc/") not in _PROC_PLACES:
        raise InvalidArgument(f'"{destination}" cannot be mounted because it is inside /proc')


def inherited(mounts: Iterable[Mount], *, readonly: bool) -> list[Mount]:
    """What `--volumes-from` takes over of a container's mounts: all but --tmpfs; nothing is copied into volumes again."""
    result: list[Mount] = []
    for mount in mounts:
        if isinstance(mount, VolumeMount):
            mode = "idmap" if "idmap" in mode_words(mount.mode) else ""
            result.append(msgspec.structs.replace(mount, readonly=mount.readonly or readonly, copy=False, mode=mode))
        elif isinstance(mount, BindMount):
            mode = "idmap" if "idmap" in mode_words(mount.mode) else ""
            result.append(msgspec.structs.replace(mount, readonly=mount.readonly or readonly, mode=mode))
        elif isinstance(mount, ImageMount) or mount.from_mount:
            result.append(mount)
    return result


def own_mounts(host: HostConfig) -> list[Mount]:
    """Every mount a HostConfig asks for by itself. Raises InvalidArgument, also when two have one destination."""
    found: list[Mount] = [parse_bind(text, host.volume_driver) for text in host.binds or ()]
    found.extend(parse_mount(mount) for mount in host.mounts or ())
    found.extend(parse_tmpfs(path, options) for path, options in (host.tmpfs or {}).items())
    seen: set[str] = set()
    for item in found:
        if item.destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {item.destination}")
        seen.add(item.destination)
    return found


def mounts_of(config: Config, host: HostConfig, others: Sequence[Mount] = ()) -> list[Mount]:
    """All mounts of a container, by docker's precedence: its own, those of other containers, then the VOLUMEs of its image (and `-v PATH`).

    Raises InvalidArgument.
    """
    own = own_mounts(host)
    taken = {mount.destination for mount in own}
    latest = {mount.destination: mount for mount in others}  # of several containers the last one's
    found = [*(mount for place, mount in latest.items() if place not in taken), *own]
    taken |= latest.keys()
    for place in config.volumes or ():
        destination = _checked_destination("volume", f"/{place}" if place and not place.startswith("/") else place)
        if destination not in taken:
            taken.add(destination)
            found.append(VolumeMount("", destination, anonymous=True, only_directory=True, new=NewVolume(host.volume_driver)))
    for mount in found:
        check_destination(mount.destination)
    if len(found) > MOUNTS_MAX:
        raise InvalidArgument(f"too many mounts: {len(found)}, a container has at most {MOUNTS_MAX}")
    return found


def holds(source: str, root: str) -> bool:
    """Whether a host directory is the engine's data root, in it, or around it."""
    return f"{source.rstrip('/')}/".startswith(f"{root}/") or f"{root}/".startswith(f"{source.rstrip('/')}/")


def with_propagation(mounts: Iterable[Mount], root: str) -> list[Mount]:
    """Bind mounts that say nothing are private, but what has to do with the data root is a slave of the host: a container must not keep
    what the engine unmounts there (moby daemon/volumes_linux.go validateBindDaemonRoot). Raises InvalidArgument.
    """
    result: list[Mount] = []
    for mount in mounts:
        if isinstance(mount, BindMount):
            near = holds(mount.source, root)
            if near and mount.propagation not in ("", "rslave", "rshared"):
                raise InvalidArgument(
                    'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon '
                    f'root, daemon root: "{root}", bind mount source: "{mount.source}", propagation: "{mount.propagation}"'
                )
            result.append(msgspec.structs.replace(mount, propagation=mount.propagation or ("rslave" if near else "rprivate")))
        else:
            result.append(mount)
    return result


_decode = msgspec.json.Decoder(list[Mount]).decode


def stored(mounts: bytes | None, host: HostConfig) -> list[Mount]:
    """The mounts of a container that exists, as in its row; host: for rows from before there were volumes."""
    if mounts is not None:
        return _decode(mounts)
    with suppress(InvalidArgument):
        return with_propagation(own_mounts(host), "/nowhere")  # there were only private ones without a word
    return []


def make_sources(mounts: Iterable[Mount], owner: tuple[int, int] = (0, 0)) -> None:
    """Make missing host directories of `-v`, the container's root's: (uid, gid) on the host. Raises OSError."""
    for mount in mounts:
        if isinstance(mount, BindMount) and mount.make_source:
            _make_directories(mount.source, owner)


def _make_directories(path: str, owner: tuple[int, int]) -> None:
    """Each in the one just made, whatever its name leads to by then: what is above may belong to containers."""
    place = path
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if place == path:
        return
    try:
        with ExitStack() as held:
            here = os.open(place, _DIRECTORY)
            held.callback(os.close, here)
            for name in os.path.relpath(path, place).split("/"):
                place = os.path.join(place, name)
                here = _make_directory(here, name, owner)
                held.callback(os.close, here)
    except OSError as error:
        error.filename = place
        raise


def _make_directory(parent: int, name: str, owner: tuple[int, int]) -> int:
    """A descriptor of it."""
    made = True
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:  # somebody else's, then
        made = False
    fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if made and owner != (0, 0):
            os.fchown(fd, *owner)
    except OSError:
        os.close(fd)
        raise
    return fd


def mount_points(mounts: Iterable[Mount], volumes: str) -> list[wire.MountPoint]:
    """As inspect and list show them; `--tmpfs` ones are not shown there, as in docker. volumes: the directory they are all in."""
    result: list[wire.MountPoint] = []
    for mount in mounts:
        if isinstance(mount, BindMount):
            result.append(
                wire.MountPoint(
                    type="bind",
                    source=mount.source,
                    destination=mount.destination,
                    mode=mount.mode,
                    rw=not mount.readonly,
                    propagation=mount.propagation,
                )
            )
        elif isinstance(mount, VolumeMount):
            result.append(
                wire.MountPoint(
                    type="volume",
                    name=mount.name,
                    source=f"{volumes}/{mount.name}/_data",
                    destination=mount.destination,
                    driver=volume_rules.DRIVER,
                    mode=mount.mode,
                    rw=not mount.readonly,
                )
            )
        elif isinstance(mount, ImageMount):
            result.append(
                wire.MountPoint(
                    type="image", name=mount.image, source=mount.image_id, destination=mount.destination, propagation="rprivate"
                )
            )
        elif mount.from_mount:
            result.append(wire.MountPoint(type="tmpfs", destination=mount.destination, rw=not mount.readonly))
    return result


def is_used_by(mounts: Iterable[Mount], value: str, volumes: str) -> bool:
    """`docker ps --filter volume=`: by a volume's name, a source or a destination."""
    return any(value in (point.name, point.source, point.destination) for point in mount_points(mounts, volumes) if value)
