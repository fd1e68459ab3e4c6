"""`-v`, `--tmpfs` and `--mount` as texts and bodies."""

import pytest

from sampan.engine.mounting import BindMount, TmpfsMount, mounts_of, parse_bind, parse_tmpfs
from sampan.errors import EngineError, InvalidArgument, NotImplementedYet
from sampan.spec.docker_api.container import HostConfig
from sampan.spec.docker_api.mount import BindOptions, Mount, TmpfsOptions

BIND = 'invalid mount config for type "bind": '
PATH = "mount path must be absolute"


@pytest.mark.parametrize(
    ("text", "source", "destination", "readonly", "propagation"),
    [
        ("/a:/b", "/a", "/b", False, "rprivate"),
        ("/a:/b:ro", "/a", "/b", True, "rprivate"),
        ("/a:/b:rw,rshared", "/a", "/b", False, "rshared"),
        ("/a:/b:ro,z,nocopy,cached", "/a", "/b", True, "rprivate"),
        ("/a/../c/:/b//d/", "/c", "/b/d", False, "rprivate"),
    ],
)
def test_volume_flags(text: str, source: str, destination: str, readonly: bool, propagation: str) -> None:
    mode = text.split(":")[2] if text.count(":") == 2 else ""
    assert parse_bind(text) == BindMount(source, destination, mode, readonly, propagation, make_source=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a", "invalid volume specification: '/a'"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:b", f"invalid volume specification: '/a:b': {BIND}invalid mount path: 'b' {PATH}"),
        ("/a:/..", f"invalid volume specification: '/a:/..': {BIND}invalid specification: destination can't be '/'"),
        ("/a:/b:rx", "invalid mode: rx"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("./a:/b", 'create ./a: "./a" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
         "allowed. If you intended to pass a host directory, use absolute path"),
    ],
)  # fmt: skip
def test_volume_flags_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_bind(text)
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
        parse_tmpfs(path, options)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("mount", "found"),
    [
        (Mount(type="bind", source="/", target="/b/"), BindMount("/", "/b")),
        (
            Mount(type="bind", source="/", target="/b", read_only=True, bind_options=BindOptions(propagation="slave", non_recursive=True)),
            BindMount("/", "/b", readonly=True, propagation="slave", recursive=False),
        ),
        (
            Mount(type="bind", source="/not/here", target="/b", bind_options=BindOptions(create_mountpoint=True)),
            BindMount("/not/here", "/b", make_source=True),
        ),
        (
            Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o700)),
            TmpfsMount("/t", "size=4096,mode=700", from_mount=True),
        ),
    ],
)
def test_mount_bodies(mount: Mount, found: BindMount | TmpfsMount) -> None:
    assert mounts_of(HostConfig(mounts=[mount])) == [found]


@pytest.mark.parametrize(
    ("host", "kind", "words"),
    [
        (HostConfig(mounts=[Mount(type="bind", source="/not/here", target="/b")]), InvalidArgument,
         f"{BIND}bind source path does not exist: /not/here"),
        (HostConfig(mounts=[Mount(type="bind", target="/b")]), InvalidArgument, f"{BIND}field Source must not be empty"),
        (HostConfig(mounts=[Mount(type="bind", source="/")]), InvalidArgument, f"{BIND}field Target must not be empty"),
        (HostConfig(mounts=[Mount(type="tmpfs", source="/", target="/t")]), InvalidArgument,
         'invalid mount config for type "tmpfs": field Source must not be specified'),
        (HostConfig(mounts=[Mount(type="x", target="/t")]), InvalidArgument, 'invalid mount config for type "x": mount type unknown'),
        (HostConfig(mounts=[Mount(type="volume", target="/t")]), NotImplementedYet, "volume mounts: not implemented by Sampan yet"),
        (HostConfig(binds=["/:/b"], tmpfs={"/b/": ""}), InvalidArgument, "Duplicate mount point: /b"),
    ],
)  # fmt: skip
def test_what_is_refused(host: HostConfig, kind: type[EngineError], words: str) -> None:
    with pytest.raises(kind) as caught:
        mounts_of(host)
    assert caught.value.message == words
