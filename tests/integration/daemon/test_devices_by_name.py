"""`--device vendor.com/class=name` by the real client, with a specification made for it."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


HOOK = """#!/bin/sh
state=$(cat)
bundle=$(echo "$state" | sed 's/.*"bundle": "\\([^"]*\\)".*/\\1/')
root=$(sed 's/.*"path":"\\([^"]*\\)".*/\\1/' "$bundle/config.json")
echo "$state" > "$root/state"
echo "$@ $WORD $(ls /proc/self/fd | wc -l) $(umask)" > "$root/said"
ln -s /bin/busybox "$root/made"
"""

OCI_HOOK = """#!/usr/bin/python3
import json, os, sys
bundle = json.load(sys.stdin)["bundle"]
with open(f"{bundle}/config.json") as file:
    root = os.path.join(bundle, json.load(file)["root"]["path"])
with open(f"{root}/said", "w") as file:
    file.write(" ".join(sys.argv[1:]))
"""


def test_hooks_that_run_before_a_container_is_entered(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    def device(name: str, script: str, **more: object) -> dict[str, object]:
        path = tmp_path / name
        path.write_text(script)
        path.chmod(0o755)
        hook = {"hookName": "createContainer", "path": str(path), "args": ["name", "one", "two"], "env": ["WORD=w", "PATH=/usr/bin:/bin"]}
        return {"name": name, "containerEdits": {"hooks": [{**hook, **more}]}}

    devices = [
        device("good", HOOK),
        device("bad", "#!/bin/sh\necho out; echo err >&2; exit 3\n"),
        device("hangs", "#!/bin/sh\nexec sleep 1234.5\n"),
        device("slow", "#!/bin/sh\nsleep 1234.5 & sleep 1234.5\n", timeout=1),
        device("absent", "", path="/no/such/hook"),
        device("plain", OCI_HOOK),
    ]
    (tmp_path / "t.json").write_text(json.dumps({"cdiVersion": "0.7.0", "kind": "sampan.test/hook", "devices": devices}))
    engine = make_engine(f"--cdi-spec-dir={tmp_path}")
    engine.start()
    engine.bootstrap()

    def run(name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return engine.cli("run", "--rm", "--network=none", f"--device=sampan.test/hook={name}", "--read-only", "busybox", *command)

    for _ in range(2):
        done = run("good", "sh", "-c", "readlink /made; cat /said /state")
        made, said, state = done.stdout.splitlines()
        assert (made, said) == ("/bin/busybox", "one two w 4 0022"), done.stderr
        assert (json.loads(state)["status"], json.loads(state)["pid"]) == ("creating", 1)
    for runtime in ("", "real-runc", "crun"):
        more = ("--runtime", runtime) if runtime else ()
        done = engine.cli("run", "--rm", *more, "--device=sampan.test/hook=plain", "busybox", "cat", "/said")
        assert done.stdout == "one two", (runtime, done.stderr)
    failed = run("bad", "true")
    assert failed.returncode == 125
    words = "unable to start container process: error during container init: error running createContainer hook #0: "
    assert f"{words}exit status 3, stdout: out\n, stderr: err\n" in failed.stderr
    assert f"{words}fork/exec /no/such/hook: no such file or directory" in run("absent", "true").stderr
    assert f"{words}hook ran past specified timeout of 1.0s" in run("slow", "true").stderr
    with ThreadPoolExecutor() as pool:
        hanging = pool.submit(run, "hangs", "true")
        while not (found := processes_of(engine)):
            assert not hanging.done()
            time.sleep(0.02)
        assert run("good", "true").returncode == 0
        assert not hanging.done()
        os.kill(found[0], signal.SIGKILL)
        assert f"{words}signal: killed, stdout: , stderr:" in hanging.result(timeout=30).stderr
    assert processes_of(engine) == []


def processes_of(engine: Engine) -> list[int]:
    """The hooks that are there, by what they run: they are in their containers' cgroups."""
    found = set()
    for directory in engine.cgroups():
        with contextlib.suppress(OSError):
            for pid in map(int, Path(directory, "cgroup.procs").read_text().split()):
                if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001234.5\x00":
                    found.add(pid)
    return sorted(found)
