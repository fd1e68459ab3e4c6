"""Images and running containers as the host sees them: image mount, and inspect's GraphDriver."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.layers import need

pytestmark = pytest.mark.root


@pytest.fixture
def engine(engine_of_each_driver: Engine) -> Engine:
    """Instead of the session's one: each test with both storage drivers."""
    return engine_of_each_driver


def test_an_image_is_shown(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "with blank"
    place.mkdir()
    assert engine.cli("image", "mount", "busybox", str(place)).returncode == 0
    try:
        assert (place / "etc/passwd").read_text().startswith("root:")
        assert not (place / ".dockerenv").exists()
        with pytest.raises(OSError, match="Read-only file system"):
            (place / "new").touch()
        again = engine.cli("image", "mount", "busybox", str(place))
        assert (again.returncode, "is mounted on" in again.stderr) == (1, True)
        busy = os.open(place, os.O_RDONLY)
        done = engine.cli("image", "umount", str(place))
        assert (done.returncode, "device or resource busy" in done.stderr) == (1, True)
        os.close(busy)
    finally:
        done = engine.cli("image", "umount", str(place))
    assert (done.returncode, done.stdout) == (0, f"{place}\n")
    assert os.listdir(place) == []
    assert engine.cli("image", "umount", str(place)).stderr == f"Error response from daemon: no image is mounted on {place}\n"


def test_refusals(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert engine.cli("image", "mount", "none", str(tmp_path)).stderr == "Error response from daemon: No such image: none:latest\n"
    assert "no such file or directory" in engine.cli("image", "mount", "busybox", str(tmp_path / "none")).stderr
    assert "not a directory" in engine.cli("image", "mount", "busybox", str(tmp_path / "file")).stderr
    # a mount that is none of the engine's is left alone
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        assert "no image is mounted" in engine.cli("image", "umount", str(tmp_path)).stderr
        assert os.path.ismount(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("driver", ["erofs", "overlay2"])
def test_a_mount_outlives_engine_and_image(make_engine: Callable[..., Engine], tmp_path: Path, driver: str) -> None:
    need(driver)
    engine = make_engine(f"--storage-driver={driver}")
    engine.start()
    engine.bootstrap()
    assert engine.cli("image", "mount", "busybox", str(tmp_path)).returncode == 0
    engine.stop(signal.SIGKILL)
    assert (tmp_path / "etc/group").read_text().startswith("root:")
    engine.start()
    assert engine.cli("rmi", "busybox").returncode == 0
    assert (tmp_path / "bin/busybox").stat().st_size > 100_000
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert "etc/group" in names
    for _ in range(2):
        engine.stop(signal.SIGKILL)
        engine.start()
        assert (tmp_path / "bin/busybox").read_bytes()[:4] == b"\x7fELF"
        assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == names
    assert engine.cli("image", "umount", str(tmp_path)).returncode == 0
    assert os.listdir(engine.data_root / ("erofs/l" if driver == "erofs" else "overlay/l")) == []
    engine.bootstrap()
    assert engine.cli("image", "mount", "busybox", str(tmp_path)).returncode == 0
    engine.teardown()
    assert not os.path.ismount(tmp_path)


def test_graph_driver_of_a_running_container(engine: Engine) -> None:
    identifier = engine.cli("run", "-d", "busybox", "sh", "-c", "echo written > /written; exec sleep 1000").stdout.strip()
    engine.cli("exec", identifier, "sh", "-c", "until test -s /written; do sleep 0.1; done")
    data = engine.request("GET", f"/containers/{identifier}/json")[1]["GraphDriver"]["Data"]
    assert Path(data["UpperDir"], "written").read_text() == "written\n"
    assert os.path.isdir(data["WorkDir"])
    assert Path(data["MergedDir"], "written").read_text() == "written\n"
    assert Path(data["MergedDir"], "etc/passwd").read_text().startswith("root:")
    for lower in data["LowerDir"].split(":"):
        assert os.path.exists(lower), lower
    image = engine.request("GET", "/images/busybox/json")[1]["GraphDriver"]
    assert image["Name"] == engine.request("GET", "/info")[1]["Driver"]
    assert set(image["Data"]) == {"UpperDir"}
    assert os.path.exists(image["Data"]["UpperDir"])
