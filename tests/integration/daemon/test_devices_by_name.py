"""`--device vendor.com/class=name` by the real client, with a specification made for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

SHOW = (
    "echo $KIND; cat /opt/words; ls -l /dev/thing | cut -c1,2; echo x > /dev/thing && echo wrote; touch /opt/words 2>&1; id -G; "
    "grep ' /opt/words ' /proc/mounts"
)


def test_a_device_with_its_environment_files_and_groups(make_engine: Callable[..., Engine], docker_path: str, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("from the host\n")
    edits = {
        "env": ["KIND=made"],
        "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null"}],
        "mounts": [{"hostPath": str(words), "containerPath": "/opt/words", "options": ["ro", "bind", "noexec"]}],
        "additionalGids": [4321],
    }
    specification = {"cdiVersion": "0.7.0", "kind": "sampan.test/thing", "devices": [{"name": "a", "containerEdits": edits}]}
    (tmp_path / "thing.json").write_text(json.dumps(specification))
    engine = make_engine(f"--cdi-spec-dir={tmp_path}")
    engine.start()
    engine.bootstrap()
    docker = [docker_path]
    info = engine.request("GET", "/info")[1]
    assert (info["CDISpecDirs"], info["DiscoveredDevices"]) == ([str(tmp_path)], [{"Source": "cdi", "ID": "sampan.test/thing=a"}])
    assert "DiscoveredDevices" not in engine.request("GET", "/v1.49/info")[1]
    done = engine.run_client(docker, "run", "--name", "has", "--device", "sampan.test/thing=a", "busybox", "sh", "-c", SHOW)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["made", "from the host", "cr"], done.stderr
    assert lines[3:5] == ["wrote", "touch: /opt/words: Read-only file system"]
    assert "4321" in lines[5].split()
    assert "noexec" in lines[6]
    shown = engine.request("GET", "/containers/has/json")[1]["HostConfig"]["DeviceRequests"]
    assert [(item["Driver"], item["DeviceIDs"]) for item in shown] == [("cdi", ["sampan.test/thing=a"])]
    (tmp_path / "broken.json").write_text("{")
    assert f"CDI: failed to load CDI Spec {tmp_path}/broken.json" in " ".join(engine.request("GET", "/info")[1]["Warnings"])
    for option, words_ in (
        ("--device=sampan.test/thing=b", "CDI device injection failed: unresolvable CDI devices sampan.test/thing=b"),
        ("--gpus=all", 'could not select device driver "" with capabilities: [[gpu]]'),
    ):
        failed = engine.run_client(docker, "run", option, "busybox", "true")
        assert failed.returncode == 125
        assert words_ in failed.stderr
