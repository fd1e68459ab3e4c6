"""image bootstrap takes packages from nobody but the distribution: a mirror whose lists another key has signed is refused."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.engine import bootstrap
from sampan.engine.bootstrap import BootstrapService
from sampan.errors import SystemFailure
from sampan.image import debian
from sampan.worker.client import WorkerPool
from tests.integration.images.support import Images, run

pytestmark = pytest.mark.root

UNKNOWN_KEY = "NO_PUBKEY"
"""apt's word for it."""


@pytest.fixture
def signer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a key of our own: `key.gpg`."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    with tempfile.TemporaryDirectory(prefix="gpg-", dir="/tmp") as home:  # short: there is a socket in it
        monkeypatch.setenv("GNUPGHOME", home)
        gpg("--quick-gen-key", "nobody@example.org", "ed25519", "sign", "never")
        (Path(home) / "key.gpg").write_bytes(gpg("--export"))
        os.chmod(home, 0o755)  # apt reads it as another user
        yield Path(home)
        subprocess.run(["gpgconf", "--kill", "all"], check=True, timeout=30)


def gpg(*words: str, text: bytes = b"") -> bytes:
    command = ["gpg", "--batch", "--quiet", "--no-permission-warning", "--pinentry-mode", "loopback", "--passphrase", "", *words]
    return subprocess.run(command, input=text, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture
def mirror(signer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host's apt has: a mirror of Debian with no packages in it, signed by our key."""
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    lines = ["Origin: Debian", "Suite: stable", "Codename: bookworm", f"Architectures: {architecture}", "Components: main", "SHA256:"]
    top = signer / "mirror"
    for suite in ("bookworm", "bookworm-updates"):
        name = f"main/binary-{architecture}/Packages"
        packages = top / "dists" / suite / name
        packages.parent.mkdir(parents=True)
        packages.touch()
        release = "\n".join([*lines, f" {hashlib.sha256(b'').hexdigest()} 0 {name}\n"]).replace("bookworm", suite)
        (top / "dists" / suite / "InRelease").write_bytes(gpg("--clear-sign", text=release.encode()))

    async def output(*command: str) -> str:
        return f"file://{top}/|Debian|bookworm\n" if "indextargets" in command else ""

    monkeypatch.setattr(bootstrap, "_output", output)


def complaint(place: Path) -> str:
    """Why no image can be made. Nothing may be left of it."""
    found = []

    async def body(images: Images) -> None:
        workers = WorkerPool()
        service = BootstrapService(images.service, workers, place / "bootstrap")
        try:
            with pytest.raises(SystemFailure) as caught:
                async for _ in service.bootstrap("debian:bookworm", ()):
                    pass
        finally:
            await workers.stop()
        found.append(caught.value.message)
        assert service.look() == []
        assert [path.name for path in (place / "bootstrap").iterdir()] == ["cache"]
        assert images.snapshots.layers() == []

    run(place, body)
    return found[0]


@pytest.mark.usefixtures("mirror")
def test_a_mirror_signed_by_another_key_is_refused(root: Path) -> None:
    assert UNKNOWN_KEY in complaint(root)


@pytest.mark.usefixtures("mirror")
def test_the_distributions_key_is_what_is_asked_for(root: Path, signer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the same mirror would be refused for the lack of packages only."""
    monkeypatch.setitem(debian.KEYRINGS, "debian", ("none", f"../../..{signer}/key.gpg"))
    said = complaint(root)
    assert UNKNOWN_KEY not in said
    assert "did not find any indices" in said
