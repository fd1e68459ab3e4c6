"""Registries and mirrors that lie: of blobs that nobody fetched, with bytes that poison others' pulls, by manifests with two meanings."""

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable

import pytest

from sampan.spec import oci_layout
from tests.support.engine import Engine
from tests.support.faultyregistry import CONFIG, INDEX, MANIFEST, FaultyRegistry, digest_of
from tests.support.imagetars import config
from tests.support.registries import Docker, big, partials, zipped
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("no_images_left")]

TOP = tar(("f", "pulled", "as it should be"))
EVIL = tar(("f", "pulled", "by somebody else"))


def test_what_was_not_fetched_is_not_believed(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    good = registry.add("team/app", "1", config(TOP), [zipped(TOP)])
    assert docker("pull", f"{registry.host}/team/app:1").returncode == 0
    registry.add("evil/app", "1", config(TOP), [zipped(EVIL)])
    docker("pull", f"{registry.host}/evil/app:1")
    assert docker("tag", f"{registry.host}/team/app:1", f"{registry.host}/mine/app:1").returncode == 0
    pushed = docker("push", f"{registry.host}/mine/app:1")
    assert pushed.returncode == 0, pushed.stderr
    manifest = json.loads(registry.manifests["mine/app:1"][1])
    assert manifest["layers"][0]["digest"] == digest_of(zipped(TOP))
    assert good in pushed.stdout


def test_a_pull_waits_for_nobody_whose_layers_it_has(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    slow = big(2)
    registry.add("base", "1", config(TOP), [zipped(TOP)])
    registry.add("slow", "1", config(TOP, slow), [zipped(TOP), slow])
    assert docker("pull", f"{registry.host}/base:1").returncode == 0
    registry.delay = 1.0
    pull = subprocess.Popen(["docker", "pull", f"{registry.host}/slow:1"], env=engine.environment(), stdout=subprocess.PIPE)
    try:
        assert pull.stdout is not None
        while b"Pulling fs layer" not in pull.stdout.readline():
            pass
        began = time.monotonic()
        assert "up to date" in docker("pull", f"{registry.host}/base:1").stdout
        assert time.monotonic() - began < 3
    finally:
        pull.kill()
        pull.wait()
        pull.stdout.close()


def test_a_pull_does_not_wait_for_a_slow_push(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = big(2)
    registry.add("app", "1", config(layer), [layer])
    registry.add("other", "1", config(TOP, layer), [TOP, layer])
    assert docker("pull", f"{registry.host}/app:1").returncode == 0
    slow = FaultyRegistry()
    slow.delay = 1.0
    assert docker("tag", f"{registry.host}/app:1", f"{slow.host}/app:1").returncode == 0
    push = subprocess.Popen(["docker", "push", f"{slow.host}/app:1"], env=engine.environment(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not any(request.startswith("PATCH") for request in slow.requests):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert docker("pull", f"{registry.host}/other:1", timeout=10).returncode == 0
        assert push.poll() is None
    finally:
        push.kill()
        push.wait()
        slow.close()


def test_what_an_earlier_pull_left_may_be_anything(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = big(1)
    registry.add("app", "1", config(layer), [layer])
    left = engine.data_root / "content/partial" / digest_of(layer).removeprefix("sha256:")
    left.write_bytes(bytes(len(layer) // 2))
    done = docker("pull", f"{registry.host}/app:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert not left.exists()


@pytest.mark.parametrize("part", [1, 1000], ids=["more than is free", "more than the disk"])
def test_a_poisoned_part_fills_no_disk(overlay_engine: Engine, docker_path: str, registry: FaultyRegistry, part: int) -> None:
    layer = big(1)
    registry.add("app", "1", config(layer), [layer])
    registry.delay = 0.05
    stat = os.statvfs(overlay_engine.data_root)
    bomb = tarfile.TarInfo("bomb")
    bomb.size = stat.f_bavail * stat.f_frsize * part
    left = overlay_engine.data_root / "content/partial" / digest_of(layer).removeprefix("sha256:")
    left.write_bytes(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    done = overlay_engine.run_client([docker_path], "pull", f"{registry.host}/app:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert not left.exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_mirror_that_gives_half_of_something_else(
    make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry, *, ranges: bool
) -> None:
    layer = big(2)
    mirror = FaultyRegistry()
    try:
        for one in (mirror, registry):
            one.add("app", "1", config(layer), [layer])
        mirror.change = lambda digest, data: bytes(len(data) // 2) if digest == digest_of(layer) else data
        registry.ranges = ranges
        engine = make_engine("--bridge=none")
        (engine.root / "daemon.json").write_text(
            json.dumps({"mirrors": {"registry.invalid": [f"http://{one.host}" for one in (mirror, registry)]}})
        )
        engine.start()
        done = engine.run_client([docker_path], "pull", "registry.invalid/app:1")
        assert (done.returncode, done.stderr) == (0, "")
        assert mirror.total_served
        assert partials(engine) == []
    finally:
        mirror.close()


def test_bytes_that_are_manifest_and_index_at_once(docker: Docker, registry: FaultyRegistry) -> None:
    registry.add("app", "good", config(TOP), [TOP])
    evil = registry.add("app", "evil", config(EVIL), [EVIL])
    document = json.loads(registry.manifests["app:good"][1])
    platform = {"os": "linux", "architecture": docker("version", "-f", "{{.Server.Arch}}").stdout.strip()}
    size = len(registry.manifests["app:evil"][1])
    document["manifests"] = [{"mediaType": MANIFEST, "digest": evil, "size": size, "platform": platform}]
    body = json.dumps(document).encode()
    digest = registry.add_manifest("app", "1", body, INDEX)
    done = docker("pull", f"{registry.host}/app@{digest}")
    assert done.returncode == 1
    registry.add_manifest("app", "1", body, MANIFEST)
    assert docker("pull", f"{registry.host}/app@{digest}").returncode == 1


@pytest.mark.parametrize(
    "body",
    [b'{"errors":[{"code":"\xff"}]}', b'{"x":' + b"[" * 60_000, b"x" * 100_000],
    ids=["no UTF-8", "deep", "long"],
)
def test_a_mirror_whose_errors_cannot_be_read_is_passed_over(
    make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry, body: bytes
) -> None:
    mirror = FaultyRegistry()
    try:
        mirror.refuse = (503, {}, body)
        registry.add("app", "1", config(TOP), [TOP])
        engine = make_engine("--bridge=none")
        (engine.root / "daemon.json").write_text(json.dumps({"mirrors": {registry.host: [f"http://{mirror.host}"]}}))
        engine.start()
        done = engine.run_client([docker_path], "pull", f"{registry.host}/app:1")
        assert (done.returncode, done.stderr) == (0, "")
        assert "503" in "".join(engine.request("GET", "/info")[1]["Warnings"])
    finally:
        mirror.close()


def test_a_refusal_moves_no_cursor(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    message = "\x1b]0;title\x07\x1b[2Jgone\nSuccess\u202e" + "x" * 5000
    registry.refuse = (404, {}, json.dumps({"errors": [{"code": "A\x1b[31m", "message": message}]}).encode())
    done = docker("pull", f"{registry.host}/app:1")
    assert done.returncode == 1
    assert "gone" in done.stderr
    assert done.stderr.rstrip("\n").isprintable()
    assert len(done.stderr) < 2000


TITLE = "\x1b]0;title\x07\x1b[2J"


@pytest.mark.parametrize(
    "digest", [f"sha256:{TITLE}", f"{TITLE}:{'0' * 64}", "sha512:" + "0" * 128, ""], ids=["hex", "name", "512", "none"]
)
def test_a_digest_is_one_before_it_is_shown(docker: Docker, registry: FaultyRegistry, digest: str) -> None:
    registry.add("app", "1", config(TOP), [TOP])
    manifest = json.loads(registry.manifests["app:1"][1])
    manifest["layers"][0]["digest"] = digest
    registry.add_manifest("app", "1", json.dumps(manifest).encode(), MANIFEST)
    done = docker("pull", f"{registry.host}/app:1")
    assert done.returncode == 1
    assert "title" not in done.stdout
    assert "unsupported digest algorithm" in done.stderr
    assert not registry.total_served


def test_the_warning_of_another_platform_moves_no_cursor(docker: Docker, registry: FaultyRegistry) -> None:
    registry.add("app", "1", config(TOP, architecture=f"z80{TITLE}"), [TOP])
    done = docker("pull", "--platform=linux/amd64", f"{registry.host}/app:1")
    (warning,) = [line for line in done.stdout.splitlines() if "WARNING" in line]
    assert "z80" in warning
    assert warning.isprintable()


def test_a_chart_is_no_image(docker: Docker, registry: FaultyRegistry) -> None:
    registry.add("chart", "1", b"{}", [TOP])
    document = registry.manifests["chart:1"][1].decode().replace(MANIFEST, oci_layout.MANIFEST)
    kind = "application/vnd.cncf.helm.config.v1+json"
    registry.add_manifest("chart", "1", document.replace(CONFIG, kind).encode(), oci_layout.MANIFEST)
    done = docker("pull", f"{registry.host}/chart:1")
    assert (done.returncode, done.stderr) == (1, f"Error response from daemon: unsupported media type {kind}\n")


def test_configs_have_an_end(docker: Docker, registry: FaultyRegistry) -> None:
    registry.add("app", "1", config(config={"Labels": {"long": "x" * (1 << 20)}}), [])
    done = docker("pull", f"{registry.host}/app:1")
    assert done.returncode == 1
    assert "larger than 1048576 bytes" in done.stderr
    for number in range(36):
        registry.add("many", str(number), config(config={"Labels": {"long": f"{number}" + "x" * 1_000_000}}), [])
    done = docker("pull", "-a", f"{registry.host}/many")
    assert done.returncode == 1
    assert "have more than 33554432 bytes: pull those that you want by name" in done.stderr
