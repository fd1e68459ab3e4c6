"""commit on real containers: the image is what the container was, the same each time, and a kill in the middle leaves nothing."""

import io
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.test_copy_clients import CHANGES, image
from tests.support import layers, tars
from tests.support.engine import CLI, Engine
from tests.support.imagetars import base_layer, config, docker_files, packed

pytestmark = pytest.mark.root


@pytest.fixture
def files_image(engine: Engine) -> str:
    if engine.request("GET", "/images/files:1/json")[0] != 200:
        assert engine.cli("import", "-", "files:1", stdin=image()).returncode == 0
    return "files:1"


def ok(engine: Engine, *args: str) -> str:
    done = engine.cli(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def contents(engine: Engine, container: str) -> dict[str, tuple[Any, ...]]:
    """Everything that an export tells of a container's files."""
    status, body = engine.request("GET", f"/containers/{container}/export")
    assert status == 200, body
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        found = {}
        for item in tar.getmembers():
            file = tar.extractfile(item) if item.isreg() else None
            data = file.read() if file is not None else b""
            found[item.name] = (item.type, item.mode, item.uid, item.gid, item.mtime, item.linkname, data)
        return found


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_the_image_is_the_container(engine: Engine, files_image: str, running: bool) -> None:
    tail = "touch /done; exec sleep 1000" if running else ""
    ok(engine, "run", *(["-d"] if running else []), "--name", "made", files_image, "sh", "-c", CHANGES + tail)
    deadline = time.monotonic() + 30
    while running and "A /done" not in ok(engine, "diff", "made"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = contents(engine, "made")
    identifier = ok(engine, "commit", "-a", "me", "-m", "why", "made", "made:1")
    ok(engine, "create", "--name", "again", "made:1")
    assert contents(engine, "again") == before
    assert ok(engine, "diff", "again") == ""
    shown = engine.request("GET", f"/images/{identifier}/json")[1]
    assert (shown["Author"], shown["Comment"], len(shown["RootFS"]["Layers"])) == ("me", "why", 2)
    newest = engine.request("GET", "/images/made:1/history")[1][0]
    assert newest["Comment"] == "why"
    assert newest["CreatedBy"].startswith("sh -c")
    assert ok(engine, "inspect", "-f", "{{.State.Status}}", "made") == ("running" if running else "exited")


def test_nothing_changed_is_no_layer(engine: Engine, files_image: str) -> None:
    ok(engine, "create", "--name", "same", files_image, "sh")
    identifier = ok(engine, "commit", "same")
    shown = engine.request("GET", f"/images/{identifier}/json")[1]
    assert len(shown["RootFS"]["Layers"]) == 1
    assert engine.request("GET", f"/images/{identifier}/history")[1][0]["Size"] == 0


def test_the_same_each_time(engine: Engine, files_image: str) -> None:
    made = []
    for name in ("one", "two"):
        ok(engine, "run", "--name", name, files_image, "sh", "-c", CHANGES)
        environment = {**engine.environment(), "SOURCE_DATE_EPOCH": "1700000000"}
        done = subprocess.run([*CLI, "commit", name], env=environment, capture_output=True, text=True, timeout=60, check=True)
        made.append(done.stdout.strip())
    assert made[0] == made[1]
    assert engine.request("GET", f"/images/{made[0]}/json")[1]["Created"] == "2023-11-14T22:13:20Z"


def test_config_changes(engine: Engine, files_image: str) -> None:
    ok(engine, "create", "--name", "made", "-e", "A=1", "-e", "B=2", "-l", "x=y", "-w", "/tmp", files_image, "sh", "-c", "true")
    changes = ["ENV C=3 A=9", "LABEL q=r", "EXPOSE 99", "WORKDIR sub", "USER root", 'ENTRYPOINT ["e"]', "ONBUILD RUN x"]
    identifier = ok(engine, "commit", *(word for change in changes for word in ("-c", change)), "made")
    config = engine.request("GET", f"/images/{identifier}/json")[1]["Config"]
    assert config["Env"] == ["A=9", "B=2", "C=3"]
    assert config["Labels"] == {"x": "y", "q": "r"}
    assert (config["WorkingDir"], config["User"], config["Entrypoint"], config.get("Cmd")) == ("/tmp/sub", "root", ["e"], None)
    assert config["ExposedPorts"] == {"99/tcp": {}}
    assert config["OnBuild"] == ["RUN x"]
    refused = engine.cli("commit", "-c", "RUN x", "made")
    assert (refused.returncode, refused.stderr) == (1, "Error response from daemon: RUN is not a valid change command\n")
    assert engine.cli("commit", "none").stderr == "Error response from daemon: No such container: none\n"


@pytest.mark.parametrize("committed", [3, pytest.param(126, marks=pytest.mark.slow)])
def test_the_deepest_image(engine: Engine, committed: int) -> None:
    """docker's limit is on the 128th layer; what would exceed it is refused with the way out, and the image before it runs."""
    below = [base_layer(engine), *(tars.tar(("f", f"tmp/layer{number}")) for number in range(126 - committed))]
    assert engine.request("POST", "/images/load?quiet=1", packed(docker_files(config(*below), below, ["below:1"])))[0] == 200
    base = "below:1"
    for number in range(126 - committed, 126):
        assert engine.request("POST", "/containers/create?name=deep", {"Image": base, "Cmd": ["sh"]})[0] == 201
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            info = tarfile.TarInfo(f"layer{number}")
            info.mtime = 1_000_000_000
            tar.addfile(info)
        status, answer = engine.request("PUT", "/containers/deep/archive?path=/tmp", body.getvalue())
        assert status == 200, (number, answer)
        base = engine.request("POST", "/commit?container=deep&repo=deep&tag=1", {})[1]["Id"]
        assert engine.request("DELETE", "/containers/deep")[0] == 204
    ok(engine, "run", "--name", "deep", "deep:1", "sh", "-c", "cat /tmp/layer0 /tmp/layer125 && echo x > /more")
    refused = engine.cli("commit", "deep")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error response from daemon: max depth exceeded: the container's image has 127 layers")
    assert "sampan export CONTAINER | sampan import" in refused.stderr


def test_an_image_without_history(engine: Engine) -> None:
    layer = base_layer(engine)
    archive = packed(docker_files(config(layer, history=[]), [layer], ["bare:1"]))
    assert engine.request("POST", "/images/load?quiet=1", archive)[0] == 200
    ok(engine, "run", "--name", "made", "bare:1", "sh", "-c", "echo x > /more")
    ok(engine, "commit", "made", "bare:2")
    assert ok(engine, "run", "--rm", "bare:2", "cat", "/more") == "x"
    assert len(engine.request("GET", "/images/bare:2/history")[1]) == 2
    ok(engine, "rm", "made")
    ok(engine, "rmi", "bare:2", "bare:1")


def freezer(engine: Engine, container: str) -> str:
    for directory in engine.cgroups():
        for name, frozen in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
            path = Path(directory) / container / name
            if path.exists():
                return "frozen" if path.read_text().strip() == frozen else "running"
    return "unknown"


@pytest.mark.parametrize("pause", [True, False])
def test_the_container_stands_still(engine: Engine, files_image: str, pause: bool) -> None:
    container = ok(engine, "run", "-d", files_image, "sh", "-c", "exec sleep 1000")
    big = b"".join(os.urandom(1 << 20) for _ in range(64))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = len(big)
        tar.addfile(info, io.BytesIO(big))
    assert engine.request("PUT", f"/containers/{container}/archive?path=/", buffer.getvalue())[0] == 200
    assert freezer(engine, container) == "running"
    seen = set()
    committing = threading.Thread(target=ok, args=(engine, "commit", f"--pause={str(pause).lower()}", container, "big:1"))
    committing.start()
    while committing.is_alive():
        seen.add(freezer(engine, container))
    committing.join()
    assert ("frozen" in seen) == pause
    assert freezer(engine, container) == "running"
    ok(engine, "rmi", "big:1")


def test_a_container_that_just_ends(engine: Engine, files_image: str) -> None:
    """As dockerd, which does not mind when there is nothing left to pause."""
    images = []
    for number in range(40):
        made = engine.request("POST", "/containers/create", {"Image": files_image, "Cmd": ["sh", "-c", "echo new > /new"]})[1]
        assert engine.request("POST", f"/containers/{made['Id']}/start")[0] == 204
        if number % 2:
            time.sleep(0.001 * number)
        status, answer = engine.request("POST", f"/commit?container={made['Id']}")
        assert status == 201, answer
        images.append(answer["Id"])
    engine.remove_containers()
    for image_id in images:
        assert engine.request("DELETE", f"/images/{image_id}?force=1")[0] == 200


def on_disk(engine: Engine) -> set[str]:
    """All layers, finished or not, of either driver, and what is to be deleted."""
    places = ("overlay/l", "overlay/r", "overlay/trash", "erofs/l", "erofs/f", "erofs/t")
    return {f"{place}/{path.name}" for place in places for path in (engine.data_root / place).glob("*")}


@pytest.mark.parametrize("driver", ["overlay2", "erofs"])
def test_a_killed_engine(make_engine: Callable[..., Engine], driver: str) -> None:
    """kill -9 in the middle of a commit: the container goes on, nothing of the image is there."""
    layers.need(driver)
    engine = make_engine(f"--storage-driver={driver}")
    engine.start()
    assert engine.cli("import", "-", "files:1", stdin=image()).returncode == 0
    container = ok(engine, "run", "-d", "files:1", "sh", "-c", "exec sleep 1000")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(64):
            info = tarfile.TarInfo(f"big{number}")
            info.size = 1 << 20
            tar.addfile(info, io.BytesIO(os.urandom(1 << 20)))
    assert engine.request("PUT", f"/containers/{container}/archive?path=/", buffer.getvalue())[0] == 200
    before = on_disk(engine)
    committing = threading.Thread(target=engine.cli, args=("commit", container, "half:1"))
    committing.start()
    deadline = time.monotonic() + 30
    while freezer(engine, container) != "frozen" or on_disk(engine) == before:
        assert time.monotonic() < deadline
    engine.stop(signal.SIGKILL)
    committing.join(60)
    assert freezer(engine, container) == "frozen"
    assert on_disk(engine) > before, "half of a layer is what this is about"
    engine.start()
    assert freezer(engine, container) == "running"
    assert [item["RepoTags"] for item in engine.request("GET", "/images/json?all=1")[1]] == [["files:1"]]
    assert ok(engine, "exec", container, "cat", "/etc/passwd") == "text"
    deadline = time.monotonic() + 30
    while left := on_disk(engine) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert engine.findings() == []
    assert ok(engine, "commit", container, "whole:1")
    engine.remove_containers()
    for image_name in ("whole:1", "files:1"):
        ok(engine, "rmi", image_name)
    deadline = time.monotonic() + 30
    while left := on_disk(engine):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
