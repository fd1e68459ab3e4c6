"""`--tz`: the time zone of a container, whatever its image knows of zones."""

import subprocess
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

SUMMER = "date -d @1751371200 +%H:%M"
"""12:00 UTC on a day in July."""


def run(engine: Engine, *options: str, image: str = "busybox", command: str = SUMMER) -> subprocess.CompletedProcess[str]:
    return engine.cli("run", "--rm", "--network=none", *options, image, "sh", "-c", command)


def test_a_zone_by_name_in_an_image_without_zones(engine: Engine) -> None:
    for zone, time in (("Europe/Berlin", "14:00"), ("Asia/Kolkata", "17:30"), ("UTC", "12:00")):
        done = run(engine, "--tz", zone)
        assert (done.stdout, done.stderr) == (f"{time}\n", "")


def test_local_is_the_hosts(engine: Engine) -> None:
    shown = subprocess.run(
        ["sh", "-c", SUMMER], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True, timeout=10
    ).stdout
    assert run(engine, "--tz=local", "--read-only").stdout == shown
    assert run(engine, "--tz=local", command="cat /etc/localtime | md5sum; touch /etc/localtime").stderr.endswith("Read-only file system\n")


def test_kept_over_restarts_and_shown(engine: Engine) -> None:
    made = engine.cli("create", "--name=kept", "--network=none", "--tz=Asia/Kolkata", "busybox", "sh", "-c", SUMMER)
    assert made.returncode == 0, made.stderr
    for _ in range(2):
        assert engine.cli("start", "-a", "kept").stdout == "17:30\n"
    assert engine.request("GET", "/containers/kept/json")[1]["HostConfig"]["Timezone"] == "Asia/Kolkata"
    engine.cli("create", "--name=plain", "busybox", "true")
    assert "Timezone" not in engine.request("GET", "/containers/plain/json")[1]["HostConfig"]


def test_an_images_link_and_variable_do_not_matter(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nENV TZ=UTC0\nRUN mkdir -p /usr/share/zoneinfo/Etc && echo utc > /usr/share/zoneinfo/Etc/UTC"
        " && ln -s ../usr/share/zoneinfo/Etc/UTC /etc/localtime\n"
    )
    built = engine.cli("build", "-q", "-t", "zoned", str(tmp_path))
    assert built.returncode == 0, built.stderr
    done = run(engine, "--tz=Europe/Berlin", image="zoned", command=f"{SUMMER}; cat /usr/share/zoneinfo/Etc/UTC")
    assert (done.stdout, done.stderr) == ("14:00\nutc\n", "")
    assert run(engine, "--tz=Europe/Berlin", "-e", "TZ=XYZ-1", image="zoned").stdout == "13:00\n"
    assert run(engine, image="zoned").stdout == "12:00\n"
    engine.cli("rmi", "zoned")


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../../../etc/passwd", "/etc/localtime", "zone.tab", "Europe", "Europe/Berlin\n"])
def test_unknown_zones_are_refused(engine: Engine, zone: str) -> None:
    body = {"Image": "busybox", "HostConfig": {"Timezone": zone}}
    assert engine.request("POST", "/containers/create", body) == (400, {"message": f"unknown time zone {zone}"})


def test_a_mount_of_the_users_own_wins(engine: Engine) -> None:
    done = run(engine, "--tz=Europe/Berlin", "-v", "/usr/share/zoneinfo/Asia/Kolkata:/etc/localtime:ro")
    assert (done.stdout, done.stderr) == ("17:30\n", "")
