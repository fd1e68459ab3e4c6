"""The real docker client for conformance tests: the one on PATH, else the distribution's, unpacked without installing it."""

import glob
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp") / "sampan-test-docker"
PACKAGES = ("docker-cli", "docker.io")


def on_path() -> str | None:
    """The docker client a shell would run."""
    return shutil.which("docker")


def unpacked() -> Path:
    """Where the distribution's client is put."""
    return CACHE / "usr/bin/docker"


def describe() -> str:
    """For the header of a test run: which client it uses."""
    found = on_path()
    if not found and unpacked().exists():
        found = str(unpacked())
    if not found:
        return "docker client: none on PATH, the distribution's will be unpacked"
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    return f"docker client: {found} ({version})"


def find() -> str:
    """The client's path. Raises RuntimeError when there is none and none can be had: tests must not be skipped for it."""
    if found := on_path():
        return found
    if not unpacked().exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            if subprocess.run(["apt-get", "download", "-qq", package], cwd=CACHE, capture_output=True, timeout=300, check=False).returncode:
                continue
            for archive in glob.glob(f"{CACHE}/{package}_*.deb"):
                subprocess.run(["dpkg-deb", "-x", archive, str(CACHE)], check=True, timeout=120)
                os.unlink(archive)
            if unpacked().exists():
                break
    if not unpacked().exists():
        raise RuntimeError("no docker client: none on PATH, and apt-get download of docker-cli and docker.io failed")
    return str(unpacked())
