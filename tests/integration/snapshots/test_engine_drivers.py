"""Real containers on each storage driver, `docker info`'s words, and a data root whose driver changes."""

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.engine import CLI, Engine
from tests.support.layers import has_erofs, need

pytestmark = pytest.mark.root

MakeEngine = Callable[..., Engine]


def run(engine: Engine, *command: str, code: int = 0) -> str:
    """Output of a command of the client."""
    done = engine.run_client(CLI, *command)
    assert done.returncode == code, done.stderr
    return done.stdout


def status(engine: Engine) -> tuple[str, dict[str, str]]:
    """(driver, its rows) of `docker info`."""
    code, info = engine.request("GET", "/info")
    assert code == 200
    return info["Driver"], dict(info["DriverStatus"])


SCRIPT = "echo mine > /etc/issue; rm /bin/ls; touch /ready; exec sleep 1000"
LOOK = "until [ -e /ready ]; do :; done; cat /etc/issue; test -e /bin/ls || echo gone; stat -c %d / /bin/sh /etc/issue | uniq | wc -l"


def use(engine: Engine) -> None:
    """Run, write, exec, remove."""
    run(engine, "run", "-d", "--name", "box", "busybox", "sh", "-c", SCRIPT)
    assert run(engine, "exec", "box", "sh", "-c", LOOK) == "mine\ngone\n1\n"
    run(engine, "rm", "-f", "box")
    assert run(engine, "run", "--rm", "busybox", "ls", "/bin/ls") == "/bin/ls\n"


@pytest.mark.parametrize("driver", ["erofs", "overlay2"])
def test_containers_run_on_a_forced_driver(make_engine: MakeEngine, driver: str) -> None:
    need(driver)
    engine = make_engine(f"--storage-driver={driver}")
    engine.start()
    assert status(engine)[0] == driver
    assert status(engine)[1]["Chosen by"] == "storage-driver"
    engine.bootstrap()
    use(engine)
    files = list((engine.data_root / "erofs/l").iterdir()) + list((engine.data_root / "overlay/l").iterdir())
    assert [path.is_file() for path in files] == [driver == "erofs"]
    _, image = engine.request("GET", "/images/busybox/json")
    assert image["GraphDriver"]["Data"]["UpperDir"] == str(files[0])
    run(engine, "rmi", "busybox")
    assert not list((engine.data_root / "erofs/l").iterdir()) + list((engine.data_root / "overlay/l").iterdir())


def test_the_probe_chooses_and_says_so(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.start()
    driver, rows = status(engine)
    assert driver == ("erofs" if has_erofs() else "overlay2")
    assert rows["Chosen by"] == "probe"
    assert ("Not erofs" in rows) == (driver == "overlay2")
    assert rows["Mount Options"] == "xino=on"


def test_images_and_containers_outlive_a_change_of_driver(make_engine: MakeEngine) -> None:
    need("erofs")
    engine = make_engine("--storage-driver=overlay2")
    engine.start()
    engine.bootstrap()
    run(engine, "run", "--name", "old", "busybox", "sh", "-c", "echo kept > /kept")
    for driver in ("erofs", "overlay2"):
        engine.stop()
        engine.flags[-1] = f"--storage-driver={driver}"
        engine.start()
        assert status(engine)[0] == driver
        assert run(engine, "run", "--rm", "busybox", "echo", "hello") == "hello\n"
        run(engine, "run", "--name", driver, "busybox", "true")
        run(engine, "start", "-a", "old")
        assert engine.request("GET", "/images/busybox/json")[1]["GraphDriver"]["Name"] == "overlay2", "who made it"
    names: Any = run(engine, "ps", "-a", "--format", "{{.Names}}").split()
    assert sorted(names) == ["erofs", "old", "overlay2"]


@pytest.mark.parametrize("flag", ["", "--storage-driver=overlay2"], ids=["probe", "forced"])
def test_a_kernel_that_cannot_mount_the_layers_any_more(make_engine: MakeEngine, flag: str) -> None:
    """A data root on tmpfs, which file-backed EROFS cannot use: the layers are told of, kept, and saved; back on a disk they work."""
    need("erofs")
    engine = make_engine("--storage-driver=erofs")
    engine.start()
    engine.bootstrap()
    run(engine, "run", "--name", "old", "busybox", "sh", "-c", "echo kept > /kept")
    engine.stop()
    other = engine.root / "other"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", other], check=True)
    try:
        shutil.copytree(engine.data_root, other, symlinks=True, dirs_exist_ok=True)
        subprocess.run(["mount", "--bind", other, engine.data_root], check=True)
        try:
            refused(engine, flag)
        finally:
            subprocess.run(["umount", engine.data_root], check=True)
    finally:
        subprocess.run(["umount", other], check=True)
    engine.flags.pop()
    engine.start()
    assert status(engine)[0] == "erofs"
    assert run(engine, "run", "--rm", "busybox", "echo", "back") == "back\n"
    run(engine, "start", "-a", "old")
    assert "kept" in run(engine, "cp", "old:/kept", "-")


def refused(engine: Engine, flag: str) -> None:
    """What an engine does with layers that it cannot mount: `flag` in place of its last one."""
    engine.flags[-1] = "--storage-driver=erofs"
    with pytest.raises(AssertionError, match="storage-driver erofs: file-backed EROFS layers do not work in"):
        engine.start()
    engine.flags[-1] = flag or engine.flags[0]
    engine.start()
    try:
        driver, rows = status(engine)
        assert driver == "overlay2"
        assert "file-backed EROFS layers do not work in" in rows["Not erofs"]
        assert "driver erofs made 1 layers, and images with them cannot run" in engine.log.read_text()
        for command in (("run", "busybox", "true"), ("start", "old"), ("diff", "old"), ("cp", "old:/kept", "-"), ("export", "old")):
            failed = engine.cli(*command)
            assert failed.returncode in (1, 125)
            assert failed.stderr.count("cannot mount the layer") == 1
            assert "file-backed EROFS layers do not work in" in failed.stderr
            assert "`save` still writes its images" in failed.stderr
        # nothing is lost, and there is a way out
        run(engine, "commit", "old", "changed")
        saved = engine.request("GET", "/images/changed/get")[1]
        run(engine, "rm", "-f", *run(engine, "ps", "-aq").split())
        run(engine, "rmi", "changed", "busybox")
        assert engine.cli("load", stdin=saved).returncode == 0
        assert run(engine, "run", "--rm", "changed", "cat", "/kept") == "kept\n"
    finally:
        engine.stop()
