"""What dockerd 28 printed and returned for the same commands (tests/golden/docker28; recorded by record.py there)."""

from pathlib import Path
from typing import Any

import pytest

from sampan.runtime.cgroups import host_layout
from tests.support import dockercases
from tests.support.engine import Engine

pytestmark = pytest.mark.root


@pytest.mark.parametrize("case", [pytest.param(case, id=case["run"][:100]) for case in dockercases.load()])
def test_as_docker_28(engine: Engine, docker_path: str, case: dict[str, Any], tmp_path: Path) -> None:
    if case.get("needs") == "cgroup1" and host_layout().version != 1:
        pytest.skip("reads files of cgroup v1")
    try:
        code, out, err = dockercases.run(case["run"], docker_path, engine.environment(), str(tmp_path))
    finally:
        if "case" in case["run"] or "own" in case["run"]:
            dockercases.clean_up(docker_path, engine.environment())
    expected = case["ours"] if "why" in case else [case["code"], case["out"], case["err"]]
    assert [code, out, err] == expected
