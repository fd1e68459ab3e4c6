"""What layers come to, as dockerd 20.10.24 and 28.5.2 (overlay2) have it; each snapshot driver agrees with the table.

    python -m tests.contracts.layer_semantics unix:///path/to/docker.sock     # holds the table against a dockerd, by the docker client

Names are listed as `docker export` gives them: `name mode`, a symlink with its target.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from typing import NamedTuple

from sampan.archive import writer
from tests.support.tars import tar


class Case(NamedTuple):
    """Layers, bottom first, and the names they come to; or the error that ends loading."""

    name: str
    layers: tuple[bytes, ...]
    listed: tuple[str, ...] = ()
    error: str = ""


CASES = (
    Case(
        "missing parents are root's, 0755",
        (tar(("f", "deep/er/file"), mode=0o600),),
        ("deep 755 0", "deep/er 755 0", "deep/er/file 600 0"),
    ),
    Case(
        "a directory hides a lower symlink of its name",
        (tar(("d", "d"), ("f", "d/low", "1"), ("l", "s", "d")), tar(("d", "s"), ("f", "s/f", "1"))),
        ("d 755 0", "d/low 644 1", "s 755 0", "s/f 644 1"),
    ),
    Case(
        "a parent that is a lower layer's symlink is not followed",
        (tar(("d", "d"), ("l", "s", "d")), tar(("f", "s/f", "1"))),
        ("d 755 0", "s 755 0", "s/f 644 1"),
    ),
    Case(
        "a symlinked parent of the same tar is followed inside the root",
        (tar(("d", "d"), ("l", "s", "/d"), ("f", "s/f", "1")),),
        ("d 755 0", "d/f 644 1", "s -> /d"),
    ),
    Case(
        "a hard link to another layer's file is an error",
        (tar(("f", "a", "1")), tar(("h", "b", "a"))),
        error="no such file or directory",
    ),
    Case(
        "a whiteout and then a directory of its name is not opaque",
        (tar(("d", "d"), ("f", "d/old", "1")), tar(("f", ".wh.d"), ("d", "d"), ("f", "d/new", "1"))),
        ("d 755 0", "d/new 644 1", "d/old 644 1"),
    ),
    Case(
        "an opaque directory shows nothing from below",
        (tar(("d", "d"), ("f", "d/old", "1")), tar(("d", "d"), ("f", "d/.wh..wh..opq"), ("f", "d/new", "1"))),
        ("d 755 0", "d/new 644 1"),
    ),
    Case(
        "what a hard link's entry says is the file's, too",
        (tar(("f", "a", "1"), mode=0o4755)[: -len(writer.END)] + tar(("h", "b", "a"), mode=0o600),),
        ("a 600 1", "b 600 1"),
    ),
    Case(
        "an opaque root is not heeded by overlayfs",
        (tar(("f", "old", "1")), tar(("f", ".wh..wh..opq"), ("f", "new", "1"))),
        ("new 644 1", "old 644 1"),
    ),
    Case(
        "a file between two directories ends the stack",
        (tar(("d", "d"), ("f", "d/old", "1")), tar(("f", "d", "1")), tar(("d", "d"), ("f", "d/new", "1"))),
        ("d 755 0", "d/new 644 1"),
    ),
)  # fmt: skip

LENIENT = (
    Case(
        "a symlink above the root ends in the root",
        (tar(("d", "d"), ("l", "up", "../../../d"), ("f", "up/g", "1")),),
        ("d 755 0", "d/g 644 1", "up -> ../../../d"),
    ),
    Case("the last entry of a name wins", (tar(("f", "x", "1"), ("f", "x", "22"), ("d", "y"), ("f", "y", "")),), ("x 644 2", "y 644 0")),
    Case(
        "a whiteout does not hide its own layer's entry",
        (tar(("f", "a", "low")), tar(("f", "a", "1"), ("f", ".wh.a"))),
        ("a 644 1",),
    ),
    Case(
        "a missing parent inherits nothing from a set-GID directory",
        (tar(("d", "g"), mode=0o2775)[: -len(writer.END)] + tar(("f", "g/deep/f", "1")),),
        ("g 2775 0", "g/deep 755 0", "g/deep/f 644 1"),
    ),
    Case("a hard link to a later entry", (tar(("h", "b", "a"), ("f", "a", "1")),), ("a 644 1", "b 644 1")),
)  # fmt: skip
"""What dockerd 28 refuses or, the set-GID bit, leaves to its file system (20.10: all but the first), by the tools it uses.

We read it as the archive's writer meant it.
"""

OWN = {"dev", "dev/console", "dev/pts", "dev/shm", "etc", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"} | {
    "proc",
    "sys",
    ".dockerenv",
}
"""What every container has."""


def listing(name: str, mode: int, size: int, link: str, directory: bool) -> str:
    """One line of a case."""
    return f"{name} -> {link}" if link else f"{name} {mode & 0o7777:o} {0 if directory else size}"


def docker_archive(case: Case, reference: str) -> bytes:
    """A file for `docker load`."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["none"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in case.layers]},
    }
    names = [f"{number}/layer.tar" for number in range(len(case.layers))]
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": names}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        contents = [json.dumps(config).encode(), *case.layers, json.dumps(manifest).encode()]
        for name, content in zip(["config.json", *names, "manifest.json"], contents, strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def seen_by(host: str, case: Case) -> tuple[tuple[str, ...], str]:
    """(listing, error) of a case in a dockerd."""
    docker = ["docker", "-H", host]
    reference = "layer-semantics:case"
    loaded = subprocess.run([*docker, "load", "-q"], input=docker_archive(case, reference), capture_output=True, check=False, timeout=60)
    if loaded.returncode:
        return (), loaded.stderr.decode().strip()
    container = subprocess.run([*docker, "create", reference], capture_output=True, check=True, timeout=60).stdout.decode().strip()
    try:
        exported = subprocess.run([*docker, "export", container], capture_output=True, check=True, timeout=60).stdout
    finally:
        subprocess.run([*docker, "rm", container], capture_output=True, check=True, timeout=60)
        subprocess.run([*docker, "rmi", reference], capture_output=True, check=True, timeout=60)
    lines = []
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        sizes = {member.name: member.size for member in archive}
        for member in archive:
            name = member.name.rstrip("/")
            if name not in OWN:
                size = sizes[member.linkname] if member.islnk() else member.size
                lines.append(listing(name, member.mode, size, member.linkname if member.issym() else "", member.isdir()))
    return tuple(sorted(lines)), ""


def main() -> None:
    """Print what differs; the exit code says whether anything did."""
    wrong = 0
    for case in CASES:
        listed, error = seen_by(sys.argv[1], case)
        if listed != tuple(sorted(case.listed)) or (case.error not in error or bool(error) != bool(case.error)):
            wrong += 1
            print(f"{case.name}:\n  expected {case.listed} {case.error!r}\n  found    {listed} {error!r}")
    print(f"{len(CASES) - wrong} of {len(CASES)} agree")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
