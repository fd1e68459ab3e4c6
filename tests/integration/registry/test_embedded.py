"""The registry within sampand: the transcript of docs/registry.md, and what daemon.json may say."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.tutorial.test_tutorial import DOCS, blocks, run_console
from tests.support.engine import CLI, Engine

pytestmark = pytest.mark.root


@pytest.fixture
def own_engine(make_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """An engine with a registry in it."""
    engine = make_engine()
    (engine.root / "daemon.json").write_text(json.dumps({"registry": {"listen": "127.0.0.1:5099"}}))
    engine.start()
    yield engine
    (engine.root / "daemon.json").write_text("{}")  # teardown reads it, too


def test_the_transcript(own_engine: Engine, tmp_path: Path) -> None:
    program = tmp_path / "sampan"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(CLI)} "$@"\n')
    program.chmod(0o755)
    environment = {**own_engine.environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "no_proxy": "*"}
    subprocess.run(["sampan", "image", "bootstrap", "busybox"], env=environment, check=True, capture_output=True, timeout=60)
    for _, block in blocks((DOCS / "registry.md").read_text()):
        run_console(block, environment)
    assert (own_engine.data_root / "registry/docker/registry/v2/repositories/mine/busybox").is_dir()
