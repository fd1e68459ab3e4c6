"""The host's null device in a container's hands."""

import os

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


def test_a_detached_exec_of_a_user_leaves_the_null_device_alone(engine: Engine, docker_path: str) -> None:
    before = os.stat("/dev/null")
    for words in (
        ["run", "-d", "--network=none", "--name", "nulls", "busybox", "sleep", "100"],
        ["exec", "-d", "-u", "1000", "nulls", "true"],
    ):
        done = engine.run_client([docker_path], *words, timeout=60)
        assert done.returncode == 0, done.stderr
    assert engine.run_client([docker_path], "exec", "-u", "1000", "nulls", "true", timeout=60).returncode == 0
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
