"""`-v`, `--mount`, `--tmpfs`, `--volumes-from` and VOLUME as texts and bodies, and how they come together."""

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.engine import mounting
from sampan.engine.containermounts import bind_of, planned
from sampan.engine.mounting import BindMount, ImageMount, Mount, NewVolume, TmpfsMount, VolumeMount
from sampan.errors import InvalidArgument
from sampan.runtime import plan
from sampan.spec.docker_api import mount as wire
from sampan.spec.docker_api.container import Config, HostConfig
from sampan.spec.docker_api.mount import BindOptions, DriverConfig, ImageOptions, TmpfsOptions, VolumeOptions

BIND = 'invalid mount config for type "bind": '
VOLUME = 'invalid mount config for type "volume": '
PATH = "mount path must be absolute"
NEW = NewVolume()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/a:/b", BindMount("/a", "/b", make_source=True)),
        ("/a:/b:ro", BindMount("/a", "/b", "ro", readonly=True, make_source=True)),
        ("/a:/b:rw,rshared", BindMount("/a", "/b", "rw,rshared", propagation="rshared", make_source=True)),
        ("/a:/b:ro,z,cached", BindMount("/a", "/b", "ro,z,cached", readonly=True, make_source=True)),
        ("/a:/b:idmap", BindMount("/a", "/b", "idmap", make_source=True)),
        ("/a/../c/:/b//d/", BindMount("/c", "/b/d", make_source=True)),
        ("//a://b", BindMount("/a", "/b", make_source=True)),
        ("data:/b", VolumeMount("data", "/b", "z", new=NEW)),
        ("data:/b:ro", VolumeMount("data", "/b", "ro", readonly=True, new=NEW)),
        ("data:/b:nocopy", VolumeMount("data", "/b", "nocopy", copy=False, new=NEW)),
        ("data:/b:Z,U", VolumeMount("data", "/b", "Z,U", new=NEW)),
        ("/b", VolumeMount("", "/b", "z", anonymous=True, new=NEW)),
    ],
)
def test_volume_flags(text: str, found: Mount) -> None:
    assert mounting.parse_bind(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid volume specification: ''"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:", "invalid volume specification: '/a:'"),
        ("/foo:rw", "invalid volume specification: '/foo:rw'"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:b", f"invalid volume specification: '/a:b': {BIND}invalid mount path: 'b' {PATH}"),
        ("a1:b", f"invalid volume specification: 'a1:b': {VOLUME}invalid mount path: 'b' {PATH}"),
        ("/a:/..", f"invalid volume specification: '/a:/..': {BIND}invalid specification: destination can't be '/'"),
        ("/a:/b:rx", "invalid mode: rx"),
        ("/a:/b:ro,", "invalid mode: ro,"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:z,Z", "invalid mode: z,Z"),
        ("/a:/b:U,idmap", "invalid mode: U,idmap"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("/a:/b:nocopy", f"invalid volume specification: '/a:/b:nocopy': {BIND}field VolumeOptions must not be specified"),
        ("aa:/b:shared", f"invalid volume specification: 'aa:/b:shared': {VOLUME}field BindOptions must not be specified"),
        ("a:/b", "create a: volume name is too short, names should be at least two alphanumeric characters"),
        ("./a:/b", 'create ./a: "./a" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
         "allowed. If you intended to pass a host directory, use absolute path"),
    ],
)  # fmt: skip
def test_volume_flags_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        mounting.parse_bind(text)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("x", "", f"invalid mount path: 'x' {PATH}"),
        ("/", "", "invalid specification: destination can't be '/'"),
        ("/t", "size", 'invalid tmpfs option "size"'),
        ("/t", "size=1m,lowerdir=/x", 'invalid tmpfs option "lowerdir=/x"'),
    ],
)
def test_tmpfs_flags_that_are_refused(path: str, options: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        mounting.parse_tmpfs(path, options)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("mount", "found"),
    [
        (wire.Mount(type="bind", source="/", target="/b/"), BindMount("/", "/b")),
        (
            wire.Mount(
                type="bind", source="/", target="/b", read_only=True, bind_options=BindOptions(propagation="slave", non_recursive=True)
            ),
            BindMount("/", "/b", readonly=True, propagation="slave", recursive=False),
        ),
        (
            wire.Mount(type="bind", source="/", target="/b", read_only=True, bind_options=BindOptions(read_only_non_recursive=True)),
            BindMount("/", "/b", readonly=True, readonly_recursive=False),
        ),
        (
            wire.Mount(type="bind", source="/not/here", target="/b", bind_options=BindOptions(create_mountpoint=True)),
            BindMount("/not/here", "/b", make_source=True),
        ),
        (
            wire.Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o700, options=[["exec"]])),
            TmpfsMount("/t", "mode=700,size=4096,exec", from_mount=True),
        ),
        (wire.Mount(type="tmpfs", target="/t", read_only=True), TmpfsMount("/t", "ro", from_mount=True, readonly=True)),
        (wire.Mount(type="volume", target="/v"), VolumeMount("", "/v", "z", anonymous=True, new=NEW)),
        (
            wire.Mount(
                type="volume", source="data", target="/v", read_only=True,
                volume_options=VolumeOptions(
                    no_copy=True, subpath="a/../b", labels={"k": "v"}, driver_config=DriverConfig(name="local", options={"type": "tmpfs"})
                ),
            ),
            VolumeMount(
                "data", "/v", "z", readonly=True, copy=False, subpath="a/../b", new=NewVolume("local", {"type": "tmpfs"}, {"k": "v"})
            ),
        ),
        (
            wire.Mount(type="image", source="busybox", target="/i", image_options=ImageOptions(subpath="etc")),
            ImageMount("busybox", "/i", "etc"),
        ),
    ],
)  # fmt: skip
def test_mount_bodies(mount: wire.Mount, found: Mount) -> None:
    assert mounting.mounts_of(Config(), HostConfig(mounts=[mount])) == [found]


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (wire.Mount(type="bind", source="/not/here", target="/b"), f"{BIND}bind source path does not exist: /not/here"),
        (wire.Mount(type="bind", source="/nul\0", target="/b"), f"{BIND}bind source path does not exist: /nul\\x00"),
        (wire.Mount(type="bind", target="/b"), f"{BIND}field Source must not be empty"),
        (wire.Mount(type="bind", source="/"), f"{BIND}field Target must not be empty"),
        (wire.Mount(type="bind", source="/", target="/b", volume_options=VolumeOptions()),
         f"{BIND}field VolumeOptions must not be specified"),
        (wire.Mount(type="bind", source="/", target="/b", bind_options=BindOptions(propagation="odd")),
         f"{BIND}invalid propagation mode: odd"),
        (wire.Mount(type="bind", source="/", target="/b", bind_options=BindOptions(read_only_force_recursive=True)),
         "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        (wire.Mount(type="tmpfs", source="/", target="/t"), 'invalid mount config for type "tmpfs": field Source must not be specified'),
        (wire.Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(options=[["huge"]])),
         'invalid mount config for type "tmpfs": invalid option: huge'),
        (wire.Mount(type="volume", target="/t", volume_options=VolumeOptions(subpath="a")),
         f"{VOLUME}must not set Subpath when using anonymous volumes"),
        (wire.Mount(type="volume", source="vv", target="/t", volume_options=VolumeOptions(subpath="a/../../b")),
         f"{VOLUME}subpath must be a relative path within the volume"),
        (wire.Mount(type="volume", source="vv", target="/t", volume_options=VolumeOptions(subpath="/b")),
         f"{VOLUME}subpath must be a relative path within the volume"),
        (wire.Mount(type="image", target="/t"), 'invalid mount config for type "image": field Source must not be empty'),
        (wire.Mount(type="x", target="/t"), 'invalid mount config for type "x": mount type unknown'),
        (wire.Mount(type="cluster", source="x", target="/t"), 'invalid mount config for type "cluster": mount type unknown'),
    ],
)  # fmt: skip
def test_mount_bodies_that_are_refused(mount: wire.Mount, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        mounting.parse_mount(mount)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("text", "found"), [("c1", ("c1", False)), ("c1:ro", ("c1", True)), ("c1:rw,z", ("c1", False)), ("c1:", ("c1", False))]
)
def test_volumes_from(text: str, found: tuple[str, bool]) -> None:
    assert mounting.parse_volumes_from(text) == found


@pytest.mark.parametrize("text", ["c1:shared", "c1:nocopy", "c1:x", "c1:ro,rw"])
def test_volumes_from_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"invalid mode: {text[3:]}"):
        mounting.parse_volumes_from(text)


def test_what_is_inherited() -> None:
    mounts = [
        BindMount("/a", "/b", "ro", readonly=True, make_source=True),
        VolumeMount("data", "/v", "z"),
        VolumeMount("f" * 64, "/w", anonymous=True, only_directory=True),
        TmpfsMount("/t"),
        TmpfsMount("/m", from_mount=True),
        ImageMount("busybox", "/i", image_id="sha256:1", chain=("sha256:2",)),
    ]
    assert mounting.inherited(mounts, readonly=True) == [
        BindMount("/a", "/b", readonly=True, make_source=True),
        VolumeMount("data", "/v", readonly=True, copy=False),
        VolumeMount("f" * 64, "/w", readonly=True, copy=False, anonymous=True, only_directory=True),
        TmpfsMount("/m", from_mount=True),
        mounts[5],
    ]


def test_who_comes_first() -> None:
    """Own mounts win over those of other containers, of those the last one's; an image's VOLUME is for places without any."""
    host = HostConfig(binds=["own:/own"], tmpfs={"/tmp": ""})
    others: list[Mount] = [VolumeMount("first", "/both"), VolumeMount("second", "/both"), VolumeMount("other", "/own")]
    config = Config(volumes={"/both": {}, "/own": {}, "/tmp/": {}, "/free": {}, "odd": {}})
    found = mounting.mounts_of(config, host, others)
    assert [(mount.destination, getattr(mount, "name", None)) for mount in found] == [
        ("/both", "second"), ("/own", "own"), ("/tmp", None), ("/free", ""), ("/odd", ""),
    ]  # fmt: skip
    assert found[3] == VolumeMount("", "/free", anonymous=True, only_directory=True, new=NEW)


@pytest.mark.parametrize(
    ("config", "host", "words"),
    [
        (Config(), HostConfig(binds=["/:/b"], tmpfs={"/b/": ""}), "Duplicate mount point: /b"),
        (Config(), HostConfig(binds=["/:/b", "vv:/b"]), "Duplicate mount point: /b"),
        (Config(), HostConfig(binds=["/:/proc"]), '"/proc" cannot be mounted because it is not of type proc'),
        (Config(volumes={"/proc/x": {}}), HostConfig(), '"/proc/x" cannot be mounted because it is inside /proc'),
        (Config(volumes={"/": {}}), HostConfig(), f"{VOLUME}invalid specification: destination can't be '/'"),
        (Config(volumes={f"/{n}": {} for n in range(1001)}), HostConfig(), "too many mounts: 1001, a container has at most 1000"),
    ],
)
def test_what_cannot_come_together(config: Config, host: HostConfig, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        mounting.mounts_of(config, host)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("source", "given", "found"),
    [
        ("/srv", "", "rprivate"),
        ("/srv", "shared", "shared"),
        ("/", "", "rslave"),
        ("/var", "", "rslave"),
        ("/var/lib/sampan", "rshared", "rshared"),
        ("/var/lib/sampan/x", "", "rslave"),
        ("/var/lib/sampan-old", "", "rprivate"),
        ("/var/lib/sam", "", "rprivate"),
        ("/var", "private", None),
        ("/var/lib/sampan/x", "slave", None),
    ],
)
def test_mounts_of_the_data_root_follow_the_host(source: str, given: str, found: str | None) -> None:
    mount = BindMount(source, "/b", propagation=given)
    if found is None:
        with pytest.raises(InvalidArgument, match="must use either propagation mode"):
            mounting.with_propagation([mount], "/var/lib/sampan")
    else:
        assert mounting.with_propagation([mount], "/var/lib/sampan") == [BindMount(source, "/b", propagation=found)]


STORED: list[tuple[Mount, plan.Mount]] = [
    (
        BindMount("/a", "/b", "ro,idmap", readonly=True, propagation="rslave"),
        plan.Mount(destination="/b", source="/a", readonly=True, propagation="rslave", idmap=True),
    ),
    (TmpfsMount("/t", "size=1m", from_mount=True), plan.Mount(destination="/t", type="tmpfs", options="size=1m")),
    (VolumeMount("data", "/v", "z", subpath="s"), plan.Mount(destination="/v", source="/volumes/data", subpath="s")),
    (
        ImageMount("busybox", "/i", "etc", "sha256:1", ("sha256:2",)),
        plan.Mount(destination="/i", source="busybox", readonly=True, subpath="etc", descriptor="mount7"),
    ),
]


@pytest.mark.parametrize(("mount", "wanted"), STORED)
def test_what_is_planned(mount: Mount, wanted: plan.Mount) -> None:
    assert planned(mount, lambda name: f"/volumes/{name}", "mount7") == wanted


def test_rows_keep_mounts() -> None:
    import msgspec

    mounts = [mount for mount, _ in STORED]
    assert mounting.stored(msgspec.json.encode(mounts), HostConfig()) == mounts


def test_rows_from_before_volumes() -> None:
    assert mounting.stored(None, HostConfig(binds=["/a:/b"])) == [BindMount("/a", "/b", propagation="rprivate", make_source=True)]
    assert mounting.stored(None, HostConfig(binds=["/a"] * 2)) == []


def test_what_inspect_shows() -> None:
    mounts = [mount for mount, _ in STORED]
    shown = mounting.mount_points([*mounts, TmpfsMount("/plain")], "/volumes")
    assert [(point.type, point.name, point.source, point.destination, point.mode, point.rw, point.propagation) for point in shown] == [
        ("bind", "", "/a", "/b", "ro,idmap", False, "rslave"),
        ("tmpfs", "", "", "/t", "", True, ""),
        ("volume", "data", "/volumes/data/_data", "/v", "z", True, ""),
        ("image", "busybox", "sha256:1", "/i", "", False, "rprivate"),
    ]
    assert [mounting.is_used_by(mounts, value, "/volumes") for value in ("data", "/a", "/v", "nope", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_workers_bind() -> None:
    assert bind_of(STORED[2][1]) == {
        "source": "/volumes/data", "subpath": "s", "destination": "/v", "recursive": True, "readonly": False, "readonly_recursive": True,
    }  # fmt: skip


@pytest.mark.root
def test_sources_that_are_made_while_a_container_moves_what_is_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a bind mount of `shared`, and may own what was made for another one there."""
    (tmp_path / "host/log").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    make = os.mkdir

    def interrupted(path: str, *args: Any, **more: Any) -> None:
        make(path, *args, **more)
        if os.path.basename(path) == "log":
            os.rename(tmp_path / "shared/app", tmp_path / "shared/moved")
            os.symlink("../host", tmp_path / "shared/app")

    monkeypatch.setattr(os, "mkdir", interrupted)
    mounting.make_sources([BindMount(f"{tmp_path}/shared/app/log/x", "/x", make_source=True)], (700_000, 700_001))
    assert (tmp_path / "host/log").stat().st_uid == os.geteuid()
    for name in ("moved", "moved/log", "moved/log/x"):
        found = (tmp_path / "shared" / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (700_000, 700_001, 0o755)


def test_sources_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as raised:
        mounting.make_sources([BindMount(f"{tmp_path}/file/x", "/x", make_source=True)])
    assert raised.value.filename == f"{tmp_path}/file"  # as Go's MkdirAll says it
