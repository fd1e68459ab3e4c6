"""`system check` finds what is planted by hand, repairs what is certain, and says nothing of an engine that is well."""

import json
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sampan.daemon.config import cgroup_parent, parse_command_line
from sampan.runtime.cgroups import directories, host_layout
from tests.integration.images.support import Images, run
from tests.support import imagetars
from tests.support.engine import Engine
from tests.support.realregistry import RealRegistry
from tests.support.registries import load
from tests.support.tars import tar

pytestmark = pytest.mark.root

STRANGER = "5" * 64
LAYER = tar(("f", "file", "content " * 20_000))


@pytest.fixture
def engine(engine_of_each_driver: Engine) -> Iterator[Engine]:
    yield engine_of_each_driver
    engine_of_each_driver.request("DELETE", "/images/checked:1?force=1")


def check(engine: Engine, *flags: str) -> tuple[int, list[dict[str, object]]]:
    """Exit code and findings of `sampan system check`."""
    result = engine.cli("system", "check", "--format", "json", *flags)
    assert result.stderr == ""
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def told(findings: list[dict[str, object]]) -> set[str]:
    return {f"{one['Kind']} {one['Subject']} {one['Problem']}" for one in findings}


def own_files(engine: Engine) -> dict[str, Path]:
    """Each layer's directory or file, by ChainID."""
    with closing(sqlite3.connect(engine.data_root / "state.db")) as database:
        rows = database.execute("SELECT chain_id, driver, directory FROM layers").fetchall()
    return {chain: engine.data_root / driver / "l" / name for chain, driver, name in rows}


def layer_of(engine: Engine, image: str) -> tuple[str, Path]:
    """The only layer of an image."""
    chain = engine.request("GET", f"/images/{image}/json")[1]["RootFS"]["Layers"][0]
    return chain, own_files(engine)[chain]


def forge(engine: Engine, *statements: str) -> None:
    """Write to the database behind sampand's back."""
    with closing(sqlite3.connect(engine.data_root / "state.db", timeout=10)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_nothing_is_wrong(engine: Engine) -> None:
    engine.cli("run", "-d", "--name", "checked", "busybox", "sleep", "60")
    engine.cli("create", "busybox")
    result = engine.cli("system", "check")
    assert (result.stdout, result.stderr, result.returncode) == ("Everything fits together.\n", "", 0)
    result = engine.cli("system", "check", "--deep", "--repair")
    count = len(own_files(engine))
    assert (result.stdout, result.returncode) == (f"Everything fits together; {count} layers read.\n", 0)
    assert engine.cli("exec", "checked", "true").returncode == 0


def test_what_is_planted_is_found_and_repaired(engine: Engine) -> None:
    running = engine.cli("run", "-d", "--name", "checked", "busybox", "sleep", "60").stdout.strip()
    idle = engine.cli("create", "busybox").stdout.strip()
    image = load(engine, "checked:1", LAYER)
    other = engine.request("GET", "/images/busybox/json")[1]["Id"]
    data = engine.data_root
    config = parse_command_line(engine.flags)
    group = f"{cgroup_parent(config)}/{STRANGER}"
    (data / "overlay/l" / ("a" * 24) / "sub").mkdir(parents=True)
    (data / "erofs/l").mkdir(parents=True, exist_ok=True)
    (data / "erofs/l" / ("b" * 24)).write_bytes(b"half")
    (data / "overlay/c" / STRANGER / "upper").mkdir(parents=True)
    (data / "containers" / STRANGER / "log").mkdir(parents=True)
    (data / "content/partial/stray").write_bytes(b"x")
    (data / "bootstrap/tree-12").mkdir(parents=True)
    (data / "overlay/trash/left").mkdir()
    mount = data / "containers" / running / "stray mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(mount)], check=True)
    sleeper = subprocess.Popen(["sleep", "60"])
    reaper = threading.Thread(target=sleeper.wait)  # a zombie stays in its cgroup
    reaper.start()
    for directory in directories(host_layout(), group):
        Path(directory).mkdir()
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if Path(directory, setting).exists() and host_layout().version == 1:
                Path(directory, setting).write_text(Path(directory).parent.joinpath(setting).read_text())
        Path(directory, "cgroup.procs").write_text(str(sleeper.pid))
    os.rename(data / "containers" / idle, data / "containers-lost")
    forge(
        engine,
        f"INSERT INTO image_tags VALUES ('docker.io/library/dangling', '1', 'sha256:{STRANGER}')",
        f"UPDATE image_tags SET image_id = '{other}' WHERE repository = 'docker.io/library/checked'",
        f"INSERT INTO images VALUES ('sha256:{STRANGER}', x'7b7d', '', 1, 0)",
        f"INSERT INTO layers VALUES ('sha256:{STRANGER}', NULL, 'sha256:{STRANGER}', 'overlay', '{'c' * 24}', 1, 1)",
        f"UPDATE images SET config = x'7b7d' WHERE id = '{image}'",
    )
    try:
        expected = {
            f"file {data}/overlay/l/{'a' * 24} is a layer that was never finished",
            f"file {data}/erofs/l/{'b' * 24} is a layer that was never finished",
            f"tree {STRANGER} is of no container",
            f"file {data}/containers/{STRANGER} is of no container",
            f"file {data}/content/partial/stray is no partial blob",
            f"file {data}/bootstrap/tree-12 is a base image that was never finished",
            "file overlay/trash holds 1 removed trees",
            f"mount {mount} is nobody's",
            f"cgroup {group} is of no container",
            f"container {idle} has lost its directory, with what was in its log",
            f"reference docker.io/library/dangling 1 points at image sha256:{STRANGER}, which is not there",
            f"reference checked:1 means image {image}, but is stored otherwise",
            f"image sha256:{STRANGER} is stored, and is no image that can be read",
            f"database sha256:{STRANGER} is a layer that the engine does not know",
        }
        code, findings = check(engine)
        assert told(findings) == expected
        assert (code, {one["Repairable"] for one in findings}, {one["Repaired"] for one in findings}) == (1, {"true"}, {"false"})
        code, findings = check(engine, "--repair", "--deep")
        assert told(findings) == {*expected, f"image {image} is stored otherwise than its ID says"}
        assert (code, {one["Repaired"] for one in findings}) == (0, {"true"})
        assert check(engine, "--deep") == (0, [])
        reaper.join(10)
        assert sleeper.returncode == -9
    finally:
        sleeper.kill()
        reaper.join()
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)
        os.rmdir(data / "containers-lost/log")
        os.rmdir(data / "containers-lost")
    assert engine.cli("exec", "checked", "true").returncode == 0
    assert engine.cli("start", "-a", idle).returncode == 0
    assert next(name for name in engine.request("GET", "/images/json")[1] if name["Id"] == image)["RepoTags"] == ["checked:1"]


def test_a_layer_without_files(engine: Engine) -> None:
    load(engine, "checked:1", LAYER)
    chain, path = layer_of(engine, "checked:1")
    os.rename(path, path.parent.parent / "lost")
    problem = f"layer {chain} has lost its files ({path}): images with it cannot run"
    try:
        result = engine.cli("system", "check", "--repair")
        assert (result.stdout, result.returncode) == (f"{problem}: pull or load an image with it again: checked:1\n", 1)
        error = f"the files of layer {chain} are missing ({path}): pull or load the image again"
        result = engine.cli("run", "checked:1", "/file")
        assert (error in result.stderr, result.returncode) == (True, 125), result.stderr
        assert error in engine.cli("save", "checked:1").stderr
        load(engine, "checked:1", LAYER)
        assert check(engine, "--deep") == (0, [])
        assert layer_of(engine, "checked:1")[1] != path
    finally:
        subprocess.run(["rm", "-rf", str(path.parent.parent / "lost")], check=True)


def test_a_damaged_layer(engine: Engine) -> None:
    image = load(engine, "checked:1", LAYER)
    chain, path = layer_of(engine, "checked:1")
    file = path / "file" if path.is_dir() else path
    with file.open("r+b") as opened:
        opened.seek(10_000)
        opened.write(b"rot")
    assert check(engine) == (0, [])
    created = engine.cli("create", "checked:1", "/file").stdout.strip()
    code, findings = check(engine, "--deep", "--repair")
    assert (code, told(findings)) == (1, {f"layer {chain} is not what was unpacked"})
    # a container may be looking at these very files
    document = imagetars.docker_files(imagetars.config(LAYER), [LAYER], ["checked:1"])
    answer = engine.request("POST", "/images/load", imagetars.packed(document))[1]
    assert "is damaged, and containers stand on it" in str(answer)
    engine.cli("rm", created)
    assert load(engine, "checked:1", LAYER) == image
    assert check(engine, "--deep") == (0, [])


def test_a_start_with_a_forged_database(root: Path) -> None:
    """What cannot be read is left out, told of, and mended; the rest is there."""

    async def before(images: Images) -> None:
        await images.load(LAYER, "good", "1")
        await images.load(tar(("f", "other", "1")), "spoilt", "1")

    async def after(images: Images) -> None:
        spoilt = next(row for row in forged if row != "good")
        told = {finding.text for finding in images.service.look()}
        assert told == {
            f"image {spoilt} is stored, and is no image that can be read",
            f"reference docker.io/library/spoilt 1 points at image {spoilt}, which is not there",
            "reference docker.io/LIBRARY/x 1 is in no use",
            f"layer {layers[1]} is of no image",
        }
        assert images.service.resolve("good:1").id == forged["good"]
        while found := images.service.look():
            for finding in found:
                assert finding.mend is not None
                waiting = finding.mend()
                assert waiting is None
        assert images.service.resolve("good:1").id == forged["good"]
        await images.load(tar(("f", "other", "1")), "spoilt", "1")
        assert images.service.look() == []

    forged: dict[str, str] = {}
    run(root, before)
    with closing(sqlite3.connect(root / "state.db")) as database:
        layers = [row[0] for row in database.execute("SELECT chain_id FROM layers ORDER BY rowid")]
        for repository, image in database.execute("SELECT repository, image_id FROM image_tags").fetchall():
            forged["good" if repository.endswith("good") else image] = image
        database.execute("INSERT INTO image_tags VALUES ('docker.io/LIBRARY/x', '1', ?)", (forged["good"],))
        database.execute("UPDATE images SET config = x'7b' WHERE id != ?", (forged["good"],))
        database.commit()
    run(root, after)


def test_a_pull_brings_a_lost_layer_back(engine: Engine, tmp_path: Path) -> None:
    registry = RealRegistry(tmp_path / "registry")
    name = f"{registry.host}/checked"
    try:
        load(engine, f"{name}:1", LAYER, tar(("f", "top", "2")))
        assert "digest: sha256:" in str(engine.request("POST", f"/images/{name}/push?tag=1")[1])
        chain, path = layer_of(engine, f"{name}:1")
        subprocess.run(["rm", "-rf", str(path)], check=True)
        result = engine.cli("pull", f"{name}:1")
        assert (result.stdout.count("Pull complete"), result.stdout.count("Already exists")) == (1, 1), result.stdout
        assert check(engine, "--deep") == (0, [])
        assert layer_of(engine, f"{name}:1") != (chain, path)
    finally:
        engine.request("DELETE", f"/images/{name}:1?force=1")
        registry.close()
