"""Devices by name: which specification is meant, what it comes to, and what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.engine import cdi
from sampan.engine.launch_failures import StartFailure
from sampan.runtime import plan
from sampan.spec.docker_api.container import DeviceRequest

NODE = {"path": "/dev/thing", "hostPath": "/dev/null", "permissions": "rw"}


def write(directory: Path, name: str, *, device: str = "one", edits: dict[str, Any] | None = None, **more: Any) -> None:
    """A specification with one device."""
    directory.mkdir(exist_ok=True)
    found = {"cdiVersion": "0.6.0", "kind": "vendor.com/class", "devices": [{"name": device, "containerEdits": edits or {"env": ["A=1"]}}]}
    (directory / name).write_text(json.dumps({**found, **more}))


def edits(*names: str, where: Path, more: Path | None = None) -> cdi.Edits:
    directories = [str(directory) for directory in (where, more) if directory is not None]
    return cdi.edits_of([DeviceRequest(driver="cdi", device_ids=list(names))], directories)


def test_what_a_device_comes_to(tmp_path: Path) -> None:
    mount = {"hostPath": "/srv", "containerPath": "/lib/x", "options": ["ro", "nosuid", "nodev", "rbind"]}
    own = {"env": ["B=2"], "deviceNodes": [NODE], "mounts": [mount], "additionalGids": [44, 0]}
    write(tmp_path, "v.json", edits=own, containerEdits={"env": ["A=1", "B=1"]})
    assert edits("vendor.com/class=one", where=tmp_path) == cdi.Edits(
        env=("A=1", "B=2"),
        devices=(plan.Device(host_path="/dev/null", container_path="/dev/thing", permissions="rw"),),
        mounts=(plan.Mount(source="/srv", destination="/lib/x", readonly=True, attributes=("nosuid", "nodev")),),
        groups=(44,),
    )


def test_later_directories_win_and_two_of_one_are_none(tmp_path: Path) -> None:
    write(tmp_path / "a", "v.json", edits={"env": ["A=1"]})
    write(tmp_path / "b", "v.json", edits={"env": ["A=2"]})
    assert edits("vendor.com/class=one", where=tmp_path / "a", more=tmp_path / "b").env == ("A=2",)
    write(tmp_path / "b", "w.json")
    with pytest.raises(StartFailure, match=r"unresolvable CDI devices vendor.com/class=one; conflicting device"):
        edits("vendor.com/class=one", where=tmp_path / "b")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"surprise": 1}, "contains unknown field"),
        ({"cdiVersion": "9.9.9"}, 'invalid version "9.9.9"'),
        ({"kind": "class"}, 'invalid kind "class"'),
        ({"devices": []}, "no devices"),
        ({"devices": [{"name": "-"}]}, 'invalid device name "-"'),
        ({"devices": [{"name": "one"}, {"name": "one"}]}, 'multiple device "one"'),
        ({"containerEdits": {"env": ["=1"]}}, 'invalid environment variable "=1"'),
        ({"containerEdits": {"deviceNodes": [{"path": "dev"}]}}, 'device "dev"'),
        ({"containerEdits": {"mounts": [{"hostPath": "x", "containerPath": "/y"}]}}, "invalid mount"),
        ({"containerEdits": {"additionalGids": [-1]}}, "invalid group -1"),
        ({"containerEdits": {"hooks": [{"hookName": "createContainer", "path": "x"}]}}, 'hook "x"'),
        ({"containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x", "env": ["A"]}]}}, 'hook "/x"'),
        ({"containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x", "timeout": -1}]}}, 'hook "/x"'),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    write(tmp_path, "v.json", **more)
    with pytest.raises(StartFailure, match=r"unresolvable CDI devices vendor.com/class=one; failed to load CDI Spec .*v.json: ") as caught:
        edits("vendor.com/class=one", where=tmp_path)
    assert words in caught.value.message


def test_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("cdiVersion: 0.6.0\n")
    with pytest.raises(StartFailure, match="YAML is not read by Sampan"):
        edits("vendor.com/class=one", where=tmp_path)
    write(tmp_path, "v.yaml")
    assert edits("vendor.com/class=one", where=tmp_path).env == ("A=1",)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"hooks": [{"hookName": "poststop", "path": "/bin/x"}]}, "poststop hook /bin/x: not implemented"),
        ({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}, "netDevices: not implemented"),
        ({"intelRdt": {"closID": "x"}}, "intelRdt: not implemented"),
        (
            {"deviceNodes": [{"path": "/dev/no-such-device"}]},
            'failed to stat CDI host device "/dev/no-such-device": no such file or directory',
        ),
        ({"deviceNodes": [{**NODE, "type": "b"}]}, "the host has no such device of this type"),
        ({"deviceNodes": [{"path": "/dev/null", "major": 7}]}, "another major than the host's is not implemented"),
        ({"deviceNodes": [{"path": "/dev/null", "uid": 7}]}, "another uid than the host's is not implemented"),
        ({"mounts": [{"hostPath": "/x", "containerPath": "/y", "options": ["sync"]}]}, "option sync is not implemented"),
        ({"mounts": [{"hostPath": "/x", "containerPath": "/y", "type": "tmpfs"}]}, "type tmpfs is not implemented"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(tmp_path: Path, own: dict[str, Any], words: str) -> None:
    write(tmp_path, "v.json", edits=own)
    with pytest.raises(StartFailure, match=r"^CDI device injection failed: failed to inject devices: ") as caught:
        edits("vendor.com/class=one", where=tmp_path)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (DeviceRequest(count=-1, capabilities=[["gpu"]]), 'could not select device driver "" with capabilities: [[gpu]]'),
        (
            DeviceRequest(driver="nvidia", capabilities=[["gpu", "utility"]]),
            'could not select device driver "nvidia" with capabilities: [[gpu utility]]',
        ),
        (DeviceRequest(driver="cdi", count=1), "unexpected count in CDI device request"),
        (DeviceRequest(driver="cdi", options={"a": "b"}), "unexpected options in CDI device request"),
        (DeviceRequest(driver="cdi", device_ids=["0"]), "CDI device injection failed: unresolvable CDI devices 0"),
    ],
)
def test_requests_that_nobody_serves(tmp_path: Path, request_: DeviceRequest, words: str) -> None:
    with pytest.raises(StartFailure) as caught:
        cdi.edits_of([request_], [str(tmp_path)])
    assert caught.value.message == words


def test_without_directories_there_is_no_driver() -> None:
    with pytest.raises(StartFailure, match=r'^could not select device driver "cdi" with capabilities: \[\]$'):
        cdi.edits_of([DeviceRequest(driver="cdi", device_ids=["a.com/b=c"])], [])


def test_a_file_that_is_too_deep_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text('{"devices":[{"name":"x","containerEdits":{"intelRdt":{"a":' + "[" * 100_000)
    (problem,) = cdi.look([str(tmp_path)]).problems
    assert problem.endswith("v.json: too deep")


def test_many_devices_take_little_time_and_their_problems_few_words(tmp_path: Path) -> None:
    devices = [{"name": f"d{number}"} for number in range(20_000)]
    write(tmp_path, "v.json", devices=devices)
    write(tmp_path, "w.json", devices=devices)
    started = time.process_time()
    with pytest.raises(StartFailure, match="conflicting device") as caught:
        edits("vendor.com/class=one", where=tmp_path)
    assert time.process_time() - started < 5
    assert len(caught.value.message) < 10_000
