"""What of volumes and mounts has to do with layers, on layers that are directories."""

import os
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


@pytest.fixture
def engine(overlay_engine: Engine) -> Engine:
    """Instead of the session's one."""
    return overlay_engine


def test_copies_and_parts_of_images(engine: Engine, docker_path: str) -> None:
    mounts = ["-v", "etc:/etc", "--mount", "type=image,src=busybox,dst=/part,image-subpath=etc", "--mount", "type=image,src=busybox,dst=/i"]
    script = "cmp /etc/passwd /part/passwd && cmp /i/etc/passwd /part/passwd && touch /etc/mine && ! touch /i/x 2>/dev/null"
    done = engine.run_client([docker_path], "run", "--name", "user", *mounts, "busybox", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    place = Path(engine.data_root, "volumes/etc/_data")
    assert {"mine", "passwd", "mtab"} <= set(os.listdir(place))
    done = engine.run_client([docker_path], "cp", "user:/part/passwd", "-")
    assert "root:x:0:0" in done.stdout
    done = engine.run_client([docker_path], "run", "--rm", "-u", "9:9", "-v", "etc:/e:idmap", "busybox", "stat", "-c", "%u:%g", "/e/mine")
    assert done.stdout == "9:9\n"
