"""Registries that mean harm, clients that do not read, mirrors that are no use."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.faultyregistry import INDEX, MANIFEST, FaultyRegistry, digest_of
from tests.support.imagetars import config
from tests.support.registries import Docker, big, load, partials, zipped
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("no_images_left")]


def test_a_size_that_no_disk_has(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = tar(("f", "a", "b"))
    digest = registry.add("evil", "1", config(layer), [layer])
    manifest = json.loads(registry.manifests[f"evil@{digest}"][1])
    manifest["layers"][0]["size"] = 10**15
    registry.add_manifest("evil", "1", json.dumps(manifest).encode(), MANIFEST)
    done = docker("pull", f"{registry.host}/evil:1")
    assert done.returncode == 1
    assert "no space left on device" in done.stderr
    assert registry.total_served <= len(config(layer))
    assert partials(engine) == []


@pytest.mark.slow  # five attempts
def test_prune_drops_what_a_cut_off_pull_left(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = big(2)
    registry.add("cut", "1", config(layer), [layer])
    registry.change = lambda digest, data: data[: len(data) // 2] if digest == digest_of(layer) else data
    assert docker("pull", f"{registry.host}/cut:1", timeout=120).returncode == 1
    (name,) = partials(engine)
    size = os.stat(engine.data_root / "content/partial" / name).st_size
    assert size > 500_000
    assert engine.request("POST", "/images/prune")[1]["SpaceReclaimed"] >= size
    assert partials(engine) == []


@pytest.mark.parametrize("digest", ["latest", "../..", "md5:" + "0" * 32, "sha512:" + "0" * 128])
def test_an_index_without_real_digests(docker: Docker, registry: FaultyRegistry, digest: str) -> None:
    layer = tar(("f", "a", "b"))
    registry.add("pinned", "latest", config(layer), [layer])
    platform = {"os": "linux", "architecture": docker("version", "-f", "{{.Server.Arch}}").stdout.strip()}
    entry = {"mediaType": MANIFEST, "digest": digest, "size": 100, "platform": platform}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    pinned = registry.add_manifest("pinned", "2", index, INDEX)
    done = docker("pull", f"{registry.host}/pinned@{pinned}")
    assert done.returncode == 1
    assert f"unsupported digest algorithm: {digest}" in done.stderr


def test_a_client_that_does_not_read_holds_nobody_up(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layers = [tar(("f", f"f{number}", str(number))) for number in range(400)]
    registry.add("many", "1", config(*layers), layers)
    registry.add("other", "1", config(layers[0]), [layers[0]])
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(engine.socket)
        deaf.sendall(f"POST /images/create?fromImage={registry.host}/many&tag=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        deadline = time.monotonic() + 100
        while not docker("images", "-q", f"{registry.host}/many").stdout:
            assert time.monotonic() < deadline, "the pull waits for a client that does not read"
            time.sleep(0.2)
        assert docker("pull", f"{registry.host}/other:1").returncode == 0


def test_all_tags_of_a_mirror_that_is_no_use(make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    refusing = FaultyRegistry()
    refusing.refuse = (403, {}, b'{"errors":[{"code":"DENIED","message":"not for you"}]}')
    mirrors = [f"--registry-mirror=http://{host}" for host in (f"127.0.0.1:{dead}", refusing.host, registry.host)]
    engine = make_engine("--bridge=none", *mirrors, "--max-concurrent-downloads=0")
    engine.start()
    for name in ("a", "b"):
        layers = [tar(("f", name, name)), tar(("f", "x" + name, name))]
        registry.add("library/many", name, config(*layers), layers)
    try:
        done = engine.run_client([docker_path], "pull", "-a", "many")
        assert done.returncode == 0, done.stderr
        assert sorted(engine.run_client([docker_path], "images", "--format", "{{.Tag}}", "many").stdout.split()) == ["a", "b"]
    finally:
        refusing.close()


def test_too_many_tags(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    body = json.dumps({"name": "x", "tags": [f"t{number:060}" for number in range(60_000)]}).encode()
    pages = iter(range(10))

    class Endless(tuple[int, dict[str, str], bytes]):
        """An answer that is another page each time."""

        def __iter__(self) -> Iterator[int | dict[str, str] | bytes]:  # type: ignore[override]
            page = next(pages)
            yield 200
            yield {"Link": '</v2/x/tags/list?more>; rel="next"'}
            yield body.replace(b'"t0', b'"t' + b"0123456789"[page : page + 1])

    registry.refuse = Endless()
    done = docker("pull", "-a", f"{registry.host}/x")
    assert done.returncode == 1
    assert "more than 100000 tags" in done.stderr
    assert next(pages) == 2


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 96 MiB."""
    place = Path(tempfile.mkdtemp(prefix="sampan-small-", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)], check=True, timeout=10)
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=10)
    place.rmdir()


def test_a_full_disk(make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry, small_disk: Path) -> None:
    engine = make_engine("--bridge=none", place=str(small_disk))
    engine.start()
    zeros = tar(("f", "zeros", "\0" * (120 << 20)))
    for name, layer in (("large", big(100)), ("twice", big(60)), ("bomb", zeros)):
        registry.add(name, "1", config(layer), [layer], compress=zipped if name == "bomb" else bytes)
    try:
        before = free(small_disk)
        for name in ("large", "twice", "bomb"):
            done = engine.run_client([docker_path], "pull", f"{registry.host}/{name}:1", timeout=120)
            assert (done.returncode, "no space left on device" in done.stderr.lower()) == (1, True), done.stderr
            assert engine.run_client([docker_path], "images", "-q").stdout == ""
            if name == "large":
                assert registry.total_served < 10_000, "what cannot fit is not fetched"
        assert engine.request("POST", "/images/prune")[0] == 200
        deadline = time.monotonic() + 30
        while free(small_disk) < before - (2 << 20):
            assert time.monotonic() < deadline, "the space is not given back"
            time.sleep(0.1)
        load(engine, f"{registry.host}/mine:1", big(28))
        (small_disk / "ballast").write_bytes(bytes(free(small_disk) - (12 << 20)))
        done = engine.run_client([docker_path], "push", f"{registry.host}/mine:1", timeout=120)
        assert (done.returncode, "no space left on device" in done.stderr.lower()) == (1, True), done.stderr
        (small_disk / "ballast").unlink()
        assert engine.run_client([docker_path], "push", f"{registry.host}/mine:1", timeout=120).returncode == 0
        assert engine.run_client([docker_path], "create", "--name", "full", f"{registry.host}/mine:1", "x").returncode == 0
        assert engine.run_client([docker_path], "cp", "-", "full:/", stdin=big(12)).returncode == 0
        (small_disk / "ballast").write_bytes(bytes(free(small_disk) - (8 << 20)))
        before = free(small_disk)
        done = engine.run_client([docker_path], "commit", "full", "committed", timeout=120)
        assert (done.returncode, "no space left on device" in done.stderr.lower()) == (1, True), done.stderr
        assert len(engine.run_client([docker_path], "images", "-aq").stdout.split()) == 1
        assert free(small_disk) > before - (1 << 20)
        (small_disk / "ballast").unlink()
        assert engine.run_client([docker_path], "commit", "full", "committed", timeout=120).returncode == 0
    finally:
        engine.teardown()
        shutil.rmtree(engine.root)


def free(place: Path) -> int:
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:300_000] + bytes([data[300_000] ^ 1]) + data[300_001:],
        lambda data: data + b"more",
        lambda data: b"\x1f\x8b" + data[2:],
    ],
    ids=["changed", "longer", "garbage"],
)
def test_the_next_mirror_has_what_the_first_one_spoils(
    make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry, change: Callable[[bytes], bytes]
) -> None:
    lying = FaultyRegistry()
    layers = [tar(("f", "small", "x")), big(1)]
    for mirror in (lying, registry):
        mirror.add("library/app", "1", config(*layers), layers)
    lying.delay = 0.02
    lying.change = lambda digest, data: change(data) if digest == digest_of(layers[1]) else data
    engine = make_engine("--bridge=none", f"--registry-mirror=http://{lying.host}", f"--registry-mirror=http://{registry.host}")
    engine.start()
    try:
        done = engine.run_client([docker_path], "pull", "app:1", timeout=120)
        assert done.returncode == 0, done.stderr
        assert lying.served[digest_of(layers[0])] == len(layers[0])
        assert partials(engine) == []
    finally:
        lying.close()
