"""`system df` against du(1)."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.engine.bootstrap import BootstrapService
from sampan.worker.client import WorkerPool
from tests.integration.images.support import Images, run
from tests.support.engine import Engine
from tests.support.registries import load
from tests.support.tars import tar

pytestmark = pytest.mark.root

SHARED = tar(*(("f", f"small{number}", "x" * number) for number in range(500)), ("f", "large", "y" * 40_000_000))


@pytest.fixture
def engine(engine_of_each_driver: Engine) -> Iterator[Engine]:
    deadline = time.monotonic() + 20
    while any((engine_of_each_driver.data_root / "overlay/trash").iterdir()):  # what other tests have removed counts until it is gone
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield engine_of_each_driver
    for name in ("one", "two"):
        engine_of_each_driver.request("DELETE", f"/images/{name}:df?force=1")


def du(*paths: object) -> int:
    """Bytes on disk."""
    lines = subprocess.run(["du", "-xscB1", *map(str, paths)], capture_output=True, text=True, check=True).stdout.splitlines()
    return int(lines[-1].split()[0])


def test_df_is_what_du_finds(engine: Engine) -> None:
    engine.request("POST", "/build/prune?all=1")  # of other tests
    engine.request("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%221%22%5D%7D")
    deadline = time.monotonic() + 20
    while any(os.scandir(engine.data_root / "overlay/trash")) and time.monotonic() < deadline:
        time.sleep(0.05)
    load(engine, "one:df", SHARED, tar(("f", "own", "1" * 5_000_000)))
    load(engine, "two:df", SHARED)
    (engine.data_root / "content/partial" / ("d" * 64)).write_bytes(b"p" * 3_000_000)
    script = "head -c 20000000 /dev/zero > /written; yes | head -c 9000000"
    engine.cli("run", "--name", "df", "--log-driver", "json-file", "busybox", "sh", "-c", script, timeout=60)
    engine.cli("create", "busybox")
    os.sync()
    root = engine.data_root
    usage = engine.request("GET", "/system/df")[1]
    # What is left over is the database, the spare room and empty directories: not what any image or container takes.
    containers = du(root / "containers", root / "overlay/c")
    images = du(root) - containers - sum(file.stat().st_blocks * 512 for file in (*root.glob("state.db*"), root / "spare-room"))
    assert usage["LayersSize"] == pytest.approx(images, rel=0.01)
    assert sum(one["SizeRw"] for one in usage["Containers"]) == pytest.approx(containers, rel=0.01)
    one, two = ({**image} for name in ("one:df", "two:df") for image in usage["Images"] if image["RepoTags"] == [name])
    assert one["SharedSize"] == two["SharedSize"] == two["Size"]
    assert one["Size"] - one["SharedSize"] == pytest.approx(5_000_000, rel=0.02)
    assert (one["Containers"], usage["Volumes"], usage["BuildCache"]) == (0, [], [])
    engine.request("POST", "/images/prune")
    # what was on its way out is gone as well by now
    assert usage["LayersSize"] - engine.request("GET", "/system/df?type=image")[1]["LayersSize"] > 2_970_000


def test_packages_of_bootstrap_go_with_prune_all(root: Path) -> None:
    async def body(images: Images) -> None:
        cache = root / "bootstrap/cache/debian-x"
        cache.mkdir(parents=True)
        (cache / "package.deb").write_bytes(b"d" * 1_000_000)
        service = BootstrapService(images.service, WorkerPool(), root / "bootstrap")
        images.service.spare_all = service.drop_cache
        assert (await images.service.prune({})).space_reclaimed == 0
        assert (await images.service.prune({"dangling": ["false"], "label": ["x"]})).space_reclaimed == 0
        assert (await images.service.prune({"dangling": ["false"]})).space_reclaimed == pytest.approx(1_000_000, rel=0.02)
        assert service.disk_usage() == 0

    run(root, body)


def test_types(engine: Engine) -> None:
    usage = engine.request("GET", "/system/df?type=container&type=volume")[1]
    assert usage == {"LayersSize": 0, "Images": None, "Containers": [], "Volumes": [], "BuildCache": None}
    assert engine.request("GET", "/v1.41/system/df?type=container")[1]["Images"]
    assert engine.request("GET", "/system/df?type=foo") == (400, {"message": "unknown object type: foo"})


def timeless(text: str) -> str:
    """Without what a second changes, and the widths of columns with it."""
    return re.sub(r" +", " ", re.sub(r"(Less than a|\S+)( a)?( \S+)? ago", "ago", text))


def test_the_clients_agree(engine: Engine, docker_path: str) -> None:
    engine.cli("run", "busybox", "true")
    for arguments in ((), ("-v",), ("--format", "json"), ("--format", "{{.Type}} {{.Size}} {{.Reclaimable}}")):
        ours, theirs = engine.cli("system", "df", *arguments), engine.run_client([docker_path], "system", "df", *arguments)
        assert (timeless(ours.stdout), ours.returncode) == (timeless(theirs.stdout), 0), theirs.stderr
    assert json.loads(engine.cli("system", "df", "-v", "--format", "json").stdout)["Containers"][0]["Size"] != "0B"
