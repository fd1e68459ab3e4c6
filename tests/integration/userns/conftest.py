"""An engine with `userns-remap`, in a mount namespace whose /etc has a user with subordinate IDs."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine

BASE = 700_000
USER = "remapped"
_SURROUNDINGS = 'mount -t overlay overlay -o "lowerdir=$ACCOUNTS:/etc" /etc && exec "$@"'


def surrounded(engine: Engine) -> Engine:
    """Give an engine that is not started its own accounts."""
    accounts = Path(engine.root, "accounts")
    accounts.mkdir()
    for name, line in (("passwd", f"{USER}:x:64321:64321::/:/bin/false"), ("group", f"{USER}:x:64321:")):
        shutil.copy(f"/etc/{name}", accounts / name)
        with (accounts / name).open("a") as file:
            file.write(f"{line}\n")
    (accounts / "subuid").write_text(f"other:100000:65536\n{USER}:{BASE}:1000\n64321:{BASE + 5000}:64536\n")
    (accounts / "subgid").write_text(f"{USER}:{BASE + 7}:65536\n")
    engine.data_root.mkdir(mode=0o755)  # as an administrator makes it, or where a disk is mounted
    engine.prefix = ["env", f"ACCOUNTS={accounts}", "unshare", "--mount", "sh", "-c", _SURROUNDINGS, "sh"]
    return engine


@pytest.fixture(scope="session", params=["own-driver", "overlay2"])
def remapped_engine(request: pytest.FixtureRequest, _session_engines: Callable[..., Engine]) -> Iterator[Engine]:
    """Started, with the image busybox, with either driver."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = surrounded(_session_engines(f"--userns-remap={USER}", *(["--storage-driver=overlay2"] if request.param == "overlay2" else [])))
    engine.start()
    engine.bootstrap()
    yield engine
    if engine.process is not None and engine.process.poll() is None:
        assert engine.findings() == [], "what tests did with this engine does not fit together"


@pytest.fixture
def engine(remapped_engine: Engine) -> Iterator[Engine]:
    """Instead of the session's one."""
    yield remapped_engine
    if remapped_engine.process is not None and remapped_engine.process.poll() is None:
        remapped_engine.remove_containers()
