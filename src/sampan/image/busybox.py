"""A base image without a registry: the distribution's busybox-static package laid out as Docker Hub's busybox is.

The same package always gives the same bytes, hence the same image ID: every time stamp is that of the packaged binary.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from sampan.archive import writer
from sampan.archive.reader import DIRECTORY, HARDLINK, REGULAR, SYMLINK
from sampan.clock import rfc3339nano
from sampan.errors import SystemFailure
from sampan.platforms import machine
from sampan.spec.oci_image import ContainerConfig, History, ImageConfig, RootFS

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGE = "busybox-static"
_BINARIES = ("/usr/bin/busybox", "/bin/busybox")
_TIMEOUT_S = 20
_PT_INTERP = 3

_PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = b"""root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
tape:x:32:
www-data:x:33:
operator:x:37:
utmp:x:43:
plugdev:x:46:
staff:x:50:
lock:x:54:
netdev:x:82:
users:x:100:
nogroup:x:65534:
"""
_SHADOW = b"".join(line.split(b":")[0] + b":*:::::::\n" for line in _PASSWD.splitlines())
_DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "etc/network": 0o755, "home": 0o755, "root": 0o700, "tmp": 0o1777, "usr": 0o755,
    "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755, "var/spool": 0o755, "var/spool/mail": 0o755, "var/www": 0o755,
}  # fmt: skip
_FILES = {"etc/group": (0o644, _GROUP), "etc/passwd": (0o644, _PASSWD), "etc/shadow": (0o640, _SHADOW)}


class Package(NamedTuple):
    """The installed package, and the binary it brought."""

    version: str
    source: str
    source_version: str
    binary: Path
    time: int
    """When the binary was built, seconds since the epoch; the same wherever the package is installed."""
    applets: tuple[str, ...]


def _output(*command: str) -> str:
    """What a command prints. Raises SystemFailure."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True, env={"LC_ALL": "C", "PATH": os.defpath}
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SystemFailure(f"cannot run {command[0]}: {error}") from error
    return done.stdout


def _is_static(binary: bytes) -> bool:
    """Whether an ELF file needs no dynamic loader (elf(5))."""
    if binary[:4] != b"\x7fELF":
        return False
    order: Literal["little", "big"] = "little" if binary[5] == 1 else "big"
    wide = binary[4] == 2
    offset = int.from_bytes(binary[32:40] if wide else binary[28:32], order)
    size, count = (54, 56) if wide else (42, 44)
    entry_size = int.from_bytes(binary[size : size + 2], order)
    entries = int.from_bytes(binary[count : count + 2], order)
    kinds = (binary[offset + index * entry_size :][:4] for index in range(entries))
    return all(int.from_bytes(kind, order) != _PT_INTERP for kind in kinds)


def find_package() -> Package:
    """The installed busybox-static. Blocks for some milliseconds. Raises SystemFailure that says how to install it."""
    try:
        line = _output("dpkg-query", "-W", "-f", "${db:Status-Status}\\t${Version}\\t${source:Package}\\t${source:Version}", _PACKAGE)
    except SystemFailure:
        line = ""
    status, _, rest = line.partition("\t")
    if status != "installed":
        raise SystemFailure(f"the package {_PACKAGE} is not installed: apt-get install {_PACKAGE}")
    version, source, source_version = rest.split("\t")
    binary = next((path for path in map(Path, _BINARIES) if path.is_file()), None)
    if binary is None or not _is_static(binary.read_bytes()):
        raise SystemFailure(f"no statically linked busybox in {' or '.join(_BINARIES)}: apt-get install --reinstall {_PACKAGE}")
    applets = tuple(sorted(set(_output(str(binary), "--list").split()) - {"busybox"}))
    return Package(version, source, source_version, binary, int(binary.stat().st_mtime), applets)


def rootfs_tar(package: Package) -> Iterator[bytes]:
    """The layer, in pieces: sorted, owned by root, one time stamp."""
    time = package.time

    def entry(name: str, kind: bytes, mode: int, *, content: bytes = b"", link: str = "") -> bytes:
        head = writer.header(name.encode(), kind, mode=mode, size=len(content), mtime=time, link=link.encode())
        return head + content + writer.padding(len(content))

    for name, mode in sorted(_DIRECTORIES.items()):
        yield entry(f"{name}/", DIRECTORY, mode)
    yield entry("bin/busybox", REGULAR, 0o755, content=package.binary.read_bytes())
    for applet in package.applets:
        yield entry(f"bin/{applet}", HARDLINK, 0o755, link="bin/busybox")
    for name, (mode, content) in sorted(_FILES.items()):
        yield entry(name, REGULAR, mode, content=content)
    # scripts begin with #!/usr/bin/env
    yield entry("usr/bin/env", SYMLINK, 0o777, link="../../bin/env")
    yield writer.END


def image_config(package: Package, diff_id: str) -> ImageConfig:
    """The config document for that layer."""
    created = rfc3339nano(package.time * 1_000_000_000)
    architecture, variant = machine()
    labels = {
        "org.opencontainers.image.title": "busybox",
        "org.opencontainers.image.version": package.version,
        "org.opencontainers.image.licenses": "GPL-2.0-only",
        "org.opencontainers.image.source": f"deb:{package.source}={package.source_version}",
        "sampan.package": f"{_PACKAGE}={package.version}",
    }
    return ImageConfig(
        architecture=architecture,
        variant=variant,
        os="linux",
        created=created,
        config=ContainerConfig(env=[PATH], cmd=["sh"], labels=labels),
        rootfs=RootFS(diff_ids=[diff_id]),
        history=[History(created=created, created_by=f"sampan image bootstrap busybox # {_PACKAGE} {package.version}")],
    )
