"""Base images out of a distribution's signed packages: what to ask mmdebstrap for, and the config of what it makes.

The mirrors are those of the host's own apt, where it has the distribution; else those that mmdebstrap knows for the release.
"""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sampan.clock import rfc3339nano
from sampan.errors import InvalidArgument
from sampan.image.busybox import PATH
from sampan.platforms import machine
from sampan.spec.oci_image import ContainerConfig, History, ImageConfig, RootFS

RELEASES = {
    "debian": {"10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "stable": "", "testing": "", "unstable": "", "sid": ""},
    "ubuntu": {"20.04": "focal", "22.04": "jammy", "24.04": "noble", "25.04": "plucky"},
}
"""Numbers by which images are called, and the suites they are; what is not here is taken for a suite's name."""
KEYRINGS = {"debian": ("debian-archive-keyring", "debian-archive-keyring.gpg"), "ubuntu": ("ubuntu-keyring", "ubuntu-archive-keyring.gpg")}
"""(package, file in /usr/share/keyrings)"""
INSTALL_EPOCH = 86400
"""SOURCE_DATE_EPOCH while installing: it gets into files such as /etc/shadow, where 0 would mean that the password must be changed."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?")
_SLIM = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*", "/usr/share/linda/*")
_SLIM_KEEPS = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
APT_CONFIG = 'APT::Keep-Downloaded-Packages "false";\\nAPT::AutoRemove::SuggestsImportant "false";\\n'
"""Of the image's own apt, in printf's form: packages go when they are installed, and at `--auto-remove` those that are only suggested."""
INDEX_FORMAT = "$(REPO_URI)|$(ORIGIN)|$(RELEASE)"


class Base(NamedTuple):
    """What is asked for: `debian:bookworm-slim` is vendor debian, suite bookworm, slim."""

    vendor: str
    tag: str
    suite: str
    slim: bool
    include: tuple[str, ...]

    @property
    def name(self) -> str:
        """The image's name."""
        return f"{self.vendor}:{self.tag}"


def parse_base(name: str, include: Iterable[str], os_release: dict[str, str]) -> Base:
    """Read an image's name; without a tag it is the host's own release. Raises InvalidArgument."""
    vendor, _, tag = name.partition(":")
    if vendor not in RELEASES:
        raise InvalidArgument(f"cannot bootstrap {name!r}: the images that can be made here are: busybox, debian:RELEASE, ubuntu:RELEASE")
    slim = tag.endswith("-slim") or tag == "slim"
    suite = tag.removesuffix("slim").removesuffix("-")
    if suite in ("", "latest"):
        suite = os_release.get("VERSION_CODENAME", "") if os_release.get("ID") == vendor else ""
        if not suite:
            raise InvalidArgument(
                f"cannot bootstrap {name!r}: say which release, as in {vendor}:{'bookworm' if vendor == 'debian' else 'noble'}"
            )
    suite = RELEASES[vendor].get(suite) or suite
    if not _NAME.fullmatch(suite):
        raise InvalidArgument(f"cannot bootstrap {name!r}: {suite!r} is no name of a release")
    packages = tuple(sorted({word for text in include for word in text.replace(",", " ").split()}))
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise InvalidArgument(f"cannot bootstrap {name!r}: {package!r} is no name of a package")
    return Base(vendor, tag or "latest", suite, slim, packages)


def read_os_release(text: str) -> dict[str, str]:
    """os-release(5)."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}


def sources(base: Base, index_targets: str, os_release: dict[str, str]) -> list[str]:
    """Lines of a sources.list out of `apt-get indextargets` (INDEX_FORMAT). Empty: the host's apt does not have the distribution."""
    found: dict[str, str] = {}
    for line in index_targets.splitlines():
        uri, origin, release = [*line.split("|"), "", ""][:3]
        # before its first update apt does not know the origin
        own = os_release.get("ID") == base.vendor and "$" in origin and os_release.get("VERSION_CODENAME", "-") in release
        if origin.lower() == base.vendor or own:
            found.setdefault("security" if release.endswith("-security") else "main", uri.rstrip("/"))
    if "main" not in found:
        return []
    signed = f"[signed-by=/usr/share/keyrings/{KEYRINGS[base.vendor][1]}]"
    components = "main" if base.vendor == "debian" else "main universe"
    lines = [f"deb {signed} {found['main']} {base.suite} {components}"]
    if base.suite in ("unstable", "sid"):
        return lines
    lines.append(f"deb {signed} {found['main']} {base.suite}-updates {components}")
    security = found.get("security") or (found["main"] if base.vendor == "ubuntu" else "")
    if security:
        lines.append(f"deb {signed} {security} {base.suite}-security {components}")
    return lines


def command(base: Base, target: str, cache: str, apt_options: Sequence[str]) -> list[str]:
    """mmdebstrap's command line; sources are read from standard input if there are any.

    It runs in mount and PID namespaces of its own, and ends with who started it.
    """
    held = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL"]
    options = [f"--aptopt={option}" for option in apt_options]
    if base.slim:
        options += [f"--dpkgopt=path-exclude={path}" for path in _SLIM] + [f"--dpkgopt=path-include={path}" for path in _SLIM_KEEPS]
    if base.include:
        options.append(f"--include={','.join(base.include)}")
    return [
        *held, "--mount-proc", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
        # packages that were fetched once are not fetched again
        "--skip=download/empty", "--skip=essential/unlink",
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives/"', f"--setup-hook=sync-in {shlex.quote(cache)} /var/cache/apt/archives/",
        f"--customize-hook=sync-out /var/cache/apt/archives {shlex.quote(cache)}",
        # the host's own, and what was for this run only
        '--customize-hook=: >"$1/etc/resolv.conf"; rm -f "$1/etc/hostname" "$1/etc/apt/apt.conf.d/99mmdebstrap"',
        # no service is to be started when a package is installed in a container
        '--customize-hook=printf "#!/bin/sh\\nexit 101\\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"',
        # nor is what a RUN installs to be in its layer twice: as files, and as the packages that they came in
        f"--customize-hook=printf {shlex.quote(APT_CONFIG)} >\"$1/etc/apt/apt.conf.d/90image\"",
        *options, base.suite, target,
    ]  # fmt: skip


def proxies(apt_config: str) -> list[str]:
    """The proxy settings among `apt-config dump`, as options for mmdebstrap's apt."""
    return [line for line in apt_config.splitlines() if re.match(r'Acquire::(https?|ftp)::Proxy(::\S+)? ".+";$', line, re.IGNORECASE)]


def image_config(base: Base, diff_id: str, packages: Sequence[str], epoch: int) -> ImageConfig:
    """The config document; `packages` are name=version, and become a label: the image's bill of materials."""
    created = rfc3339nano(epoch * 10**9)
    architecture, variant = machine()
    labels = {
        "org.opencontainers.image.title": base.vendor,
        "org.opencontainers.image.version": base.tag,
        "sampan.packages": " ".join(packages),
    }
    made_by = f"sampan image bootstrap {base.name}" + "".join(f" --include {package}" for package in base.include)
    return ImageConfig(
        architecture=architecture,
        variant=variant,
        os="linux",
        created=created,
        config=ContainerConfig(env=[PATH], cmd=["bash"] if base.vendor == "debian" else ["/bin/bash"], labels=labels),
        rootfs=RootFS(diff_ids=[diff_id]),
        history=[History(created=created, created_by=f"{made_by} # {len(packages)} packages")],
    )


def environment() -> dict[str, str]:
    """mmdebstrap's environment: this process's own PATH and proxies, and nothing else."""
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    return {
        **kept,
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(INSTALL_EPOCH),
        "TMPDIR": "/tmp",
    }
