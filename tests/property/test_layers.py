"""Layers read by both drivers: the same tree as GNU tar's extraction, the same as each other's, the same when folded."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sampan.archive import layerfile, writer
from sampan.archive.reader import BLOCKDEV, CHAR, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK, InvalidArchive
from sampan.linux.overlay import mount_overlay
from tests.support import layers
from tests.support.layers import look

pytestmark = pytest.mark.root

SLOW = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Emptied for each example by `fresh`."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as path:
        yield Path(path)


def fresh(scratch: Path) -> Path:
    """An empty directory."""
    path = scratch / "example"
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()
    return path


# trees on disk, archived and extracted by GNU tar

contents = st.one_of(st.binary(max_size=2000), st.integers(0, 20).map(lambda n: b"x" * (n * 512)))
file_names = st.binary(min_size=1, max_size=120).filter(
    lambda name: not set(name) & {0, 47} and name not in (b".", b"..") and not name.startswith(b".wh.")  # a whiteout is a file to GNU tar
)
times = st.integers(-(2**31) * 10**9 + 1, 2**32 * 10**9)
plain_modes = st.integers(0, 0o7777)
xattrs = st.dictionaries(st.sampled_from(["user.a", "user.long.name", "trusted.t"]), st.binary(max_size=300), max_size=2)
ACL = (
    b"\2\0\0\0"
    + b"\1\0\7\0\xff\xff\xff\xff"
    + b"\2\0\6\0\xe8\3\0\0"
    + b"\4\0\5\0\xff\xff\xff\xff"
    + b"\x10\0\7\0\xff\xff\xff\xff"
    + (b"\x20\0\5\0\xff\xff\xff\xff")
)
CAPABILITY = b"\1\0\0\2\0\4" + bytes(14)
things = st.sampled_from(["file", "directory", "symlink", "link", "fifo", "device", "sparse"])
trees = st.lists(
    st.tuples(
        things,
        file_names,
        contents,
        plain_modes,
        st.integers(0, 2**21),
        times,
        xattrs,
        st.sampled_from(["", "acl", "default acl", "capability"]),
        st.integers(0, 50),
    ),
    max_size=8,
)


def build(root: Path, tree: list[tuple[str, bytes, bytes, int, int, int, dict[str, bytes], str, int]]) -> None:
    """Make a tree on disk."""
    top = os.fsencode(root)
    directories = [top]
    files: list[bytes] = []
    stamps: list[tuple[bytes, int]] = []
    heirs: list[bytes] = []
    for kind, name, content, mode, owner, mtime, attributes, special, pick in tree:
        path = directories[pick % len(directories)] + b"/" + name
        if os.path.lexists(path):
            continue
        if kind == "directory":
            os.mkdir(path)
            directories.append(path)
        elif kind == "symlink":
            os.symlink(content.replace(b"\0", b"/")[:400] or b"x", path)
        elif kind == "link":
            if files:
                os.link(files[pick % len(files)], path)
            continue
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, (stat.S_IFCHR, stat.S_IFBLK)[pick % 2] | 0o600, os.makedev(1 + owner % 4000, owner % 1000000))
        else:
            with open(path, "wb") as file:
                if kind == "sparse":
                    file.seek(pick * 4096)
                file.write(content)
                if kind == "sparse":
                    file.truncate(pick * 4096 + len(content) + pick * 7)
            files.append(path)
        os.chown(path, owner, owner // 2, follow_symlinks=False)
        if kind in ("file", "sparse", "directory"):
            for key, value in attributes.items():
                os.setxattr(path, key, value)
            if special == "acl":
                os.setxattr(path, "system.posix_acl_access", ACL)
            elif special == "capability" and kind == "file":
                os.setxattr(path, "security.capability", CAPABILITY)
            elif special == "default acl" and kind == "directory":
                heirs.append(path)
        if kind != "symlink":
            os.chmod(path, mode)
        stamps.append((path, mtime))
    for path in heirs:  # now that all is made: nothing of it has inherited anything
        os.setxattr(path, "system.posix_acl_default", ACL)
    for path, mtime in reversed(stamps):
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


FORMATS = [["--format=gnu"], ["--format=pax"], ["--format=gnu", "--sparse"], ["--format=pax", "--sparse"],
           ["--format=pax", "--sparse", "--sparse-version=0.1"], ["--format=pax", "--sparse", "--sparse-version=0.0"]]  # fmt: skip


@pytest.mark.parametrize("options", FORMATS, ids=[" ".join(options) for options in FORMATS])
@SLOW
@given(tree=trees)
@example(tree=[("directory", b"d", b"", 0o755, 0, 0, {}, "default acl", 0), ("file", b"f", b"x", 0o644, 0, 0, {}, "", 1)])
def test_the_same_tree_as_gnu_tars(
    scratch: Path, options: list[str], tree: list[tuple[str, bytes, bytes, int, int, int, dict[str, bytes], str, int]]
) -> None:
    base = fresh(scratch)
    for name in ("made", "tar", "overlay"):
        (base / name).mkdir()
    build(base / "made", tree)
    pax = "--format=pax" in options
    kept = ["--xattrs", "--xattrs-include=*"] if pax else []
    command = ["tar", "-C", str(base / "made"), *options, *kept, "-cf", str(base / "archive"), "."]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    command = ["tar", "-C", str(base / "tar"), *kept, "--same-owner", "-xpf", str(base / "archive")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    archive = (base / "archive").read_bytes()
    expected = look(base / "tar")
    layers.extract(archive, base / "overlay")
    assert look(base / "overlay") == expected
    layers.index(archive, base / "layer")
    with layers.mounted(base / "layer") as path:
        assert look(path) == expected


# archives entry by entry, as hostile as names can make them

NAMES = ["a", "b", "s", "a/b", "a/s", "s/a", "b/a/x", "s/s/x", "./a", "/b", "a/", "a/../b", ".wh.a", ".wh.b", "a/.wh.b", "s/.wh.a",
         ".wh..wh..opq", "a/.wh..wh..opq", "b/a/.wh..wh..opq", ".", "a/b/c", "deep/er/still", "..", "a/.wh.", ".wh..wh.x", "x" * 256,
         "etc/.wh.hosts", "etc/x"]  # fmt: skip
LINKS = ["a", "b", "/a", "../a", "..", ".", "s", "a/b", "nowhere", "/", "a/b/c", "../../b", "s/a", "x" * 256]
KINDS = {"f": REGULAR, "d": DIRECTORY, "l": SYMLINK, "h": HARDLINK, "c": CHAR, "b": BLOCKDEV, "p": FIFO}
ATTRIBUTES = [{}, {b"user.x": b"1"}, {b"trusted.overlay.opaque": b"y"}, {b"user.": b"1"}, {b"other.x": b"1"}, {b"trusted.t": b"2"},
              {b"security.capability": CAPABILITY}, {b"security.capability": b"bad"}, {b"system.posix_acl_access": ACL},
              {b"system.posix_acl_access": b"\2\0\0\0bad"}, {b"system.posix_acl_default": ACL}]  # fmt: skip
Made = tuple[str, str, str, int, int, dict[bytes, bytes], tuple[int, int], int, int]
entries = st.tuples(
    st.sampled_from("fffddlhhcbp"),
    st.sampled_from(NAMES),
    st.sampled_from(LINKS),
    st.integers(0, 2000),
    st.sampled_from([0o644, 0o4755, 0o2775, 0]),
    st.sampled_from(ATTRIBUTES),
    st.sampled_from([(1, 3), (0, 0), (4095, 1048575), (5000, 1)]),
    st.integers(0, 5),
    st.sampled_from([0, 1000, 2**32 - 1]),
)


def archive_of(made: list[Made]) -> bytes:
    """An archive of drawn entries."""
    pieces = []
    for number, (kind, name, link, size, mode, attributes, device, stamp, owner) in enumerate(made):
        content = bytes([97 + number % 26]) * (size if kind == "f" else 0)
        major, minor = device if kind in "cb" else (0, 0)
        target = link.encode() if kind in "lh" else b""
        header = writer.header(
            name.encode(), KINDS[kind], mode=mode, uid=owner, gid=owner // 2, size=len(content), mtime=stamp, link=target, major=major,
            minor=minor, xattrs=attributes,
        )  # fmt: skip
        pieces.append(header + content + writer.padding(len(content)))
    return b"".join(pieces) + writer.END


def outcome(work: "type[None] | object", *arguments: object) -> str:
    """ "" or that it was refused."""
    try:
        work(*arguments)  # type: ignore[operator]
    except InvalidArchive as error:
        return str(error).rpartition(":")[2] or "refused"
    return ""


HEIRS = {b"system.posix_acl_default": ACL}


def simple(kind: str, name: str, link: str = "", size: int = 700) -> Made:
    """An entry with nothing special."""
    return kind, name, link, size, 0o644, {}, (1, 3), 0, 0


def directory(name: str, mode: int, owner: int, attributes: dict[bytes, bytes]) -> Made:
    """What those made in it could inherit from."""
    return "d", name, "", 0, mode, attributes, (1, 3), 0, owner


@settings(deadline=None, max_examples=250)
@given(made=st.lists(entries, max_size=9))
@example(made=[(kind, "a", "a", 0, 0o644, {}, (1, 3), 0, 0) for kind in "fhd"])
@example(made=[simple(*one) for one in [("f", "a"), ("f", "a")]])
@example(made=[simple(*one) for one in [("f", "a"), ("h", "b", "a"), ("f", "a"), ("d", "b")]])
@example(made=[simple(*one) for one in [("f", "a/b"), ("f", "a/s"), ("f", "a"), ("h", "s", "a")]])
@example(made=[simple(*one) for one in [("d", "a"), ("l", "s", "a"), ("f", "s/a"), ("f", "s"), ("f", "a/b")]])
@example(made=[simple(*one) for one in [("l", "b/a/x", "a"), ("l", "s", "b/a/x"), ("d", "b/a/a"), ("f", "s/a"), ("f", "b")]])
@example(made=[directory("a", 0o755, 0, HEIRS), *(simple(kind, f"a/{kind}", "x") for kind in "fdcpl"), simple("f", "a/deep/er/x")])
@example(made=[directory("a", 0o755, 0, HEIRS), simple("f", "a/.wh.b"), simple("f", "a"), directory("a", 0o755, 0, {}), simple("f", "a/s")])
@example(made=[directory("a", 0o2775, 1000, {}), simple("f", "a/deep/er/x"), simple("d", "a/b"), simple("f", "a/.wh.b")])
def test_both_drivers_read_any_archive_alike(scratch: Path, made: list[Made]) -> None:
    base = fresh(scratch)
    (base / "overlay").mkdir()
    archive = archive_of(made)
    extracted = outcome(layers.extract, archive, base / "overlay", base / "recipe")
    indexed = outcome(layers.index, archive, base / "layer")
    assert bool(indexed) == bool(extracted), (indexed, extracted)
    if not indexed:
        with layers.mounted(base / "layer") as path:
            assert look(path, implied=False) == look(base / "overlay", implied=False)
        assert layers.assembled(base / "recipe", base / "overlay") == archive
        assert layers.stored(base / "layer") == archive


@settings(deadline=None, max_examples=80)
@given(stack=st.lists(st.lists(entries, max_size=6), min_size=2, max_size=4))
def test_folded_layers_are_what_overlayfs_shows(scratch: Path, stack: list[list[Made]]) -> None:
    base = fresh(scratch)
    (base / "init/etc").mkdir(parents=True)
    (base / "init/etc/hosts").touch()
    files: list[Path] = []
    for number, made in enumerate(stack):
        if not outcome(layers.index, archive_of(made), base / f"layer{number}"):
            files.insert(0, base / f"layer{number}")
    if not files:
        return
    with ExitStack() as held:
        fds = [layers.opened(held, file) for file in files]
        output = layers.opened(held, base / "index", os.O_RDWR | os.O_CREAT)
        layerfile.fold(fds, output, None, os.urandom(16), frozenset((b"etc", b"etc/hosts")))
        lowers = [held.enter_context(layers.mounted(file)) for file in files]
        index = held.enter_context(layers.mounted(base / "index", files))
        seen = []
        for shown in ([*lowers, base / "init"], [index, base / "init"]):
            fd = mount_overlay([layers.opened(held, path, os.O_PATH | os.O_DIRECTORY) for path in shown], "", "")
            held.callback(os.close, fd)
            seen.append(visible(Path(f"/proc/self/fd/{fd}")))
        assert seen[0] == seen[1]


def visible(root: Path) -> dict[bytes, object]:
    """What a container sees. Overlayfs lists a whiteout where directories do not merge, but lets nobody open it: left out.

    The number of links of a merged directory or of a file with hidden names is not compared.
    """
    found: dict[bytes, object] = {}
    pending = [b""]
    top = os.fsencode(root) + b"/"
    while pending:
        directory = pending.pop()
        for name in os.listdir(top + directory):
            path = directory + b"/" + name if directory else name
            try:
                one = layers.seen(top + path)
            except FileNotFoundError:
                continue
            found[path] = one._replace(links=0)
            if stat.S_ISDIR(one.mode):
                pending.append(path)
    return found
