"""`--security-opt` by the real client: what the processes of a container see of it."""

import subprocess
from collections.abc import Callable

import pytest

from sampan.linux import apparmor

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
LOOK = (
    "grep -c ' /proc/' /proc/mounts; grep NoNewPrivs /proc/self/status | cut -f2; "
    "grep -m1 ' cgroup2* ' /proc/mounts | cut -d' ' -f4 | cut -c1,2"
)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ([], ["masked", "0", "ro"]),
        (["systempaths=unconfined"], ["0", "0", "ro"]),
        (["no-new-privileges=1"], ["masked", "1", "ro"]),
        (["writable-cgroups=true"], ["masked", "0", "rw"]),
        (["label=type:t", "label=level:s0"], ["masked", "0", "ro"]),
    ],
)
def test_what_is_seen(docker: Docker, options: list[str], seen: list[str]) -> None:
    given = [f"--security-opt={option}" for option in options]
    done = docker("run", "--rm", "--network=none", *given, "busybox", "sh", "-c", LOOK)
    assert done.returncode == 0, done.stderr
    paths, *rest = done.stdout.split()
    assert ["0" if paths == "0" else "masked", *rest] == seen
    assert ("SELinux is not supported" in done.stderr) == ("label=level:s0" in options)


def test_in_a_writable_cgroup_there_can_be_others_and_they_go_with_it(docker: Docker) -> None:
    made = "d=/sys/fs/cgroup/pids; [ -d $d ] || d=/sys/fs/cgroup; mkdir $d/own && echo made"
    done = docker("run", "--rm", "--network=none", "--security-opt=writable-cgroups=true", "busybox", "sh", "-c", made)
    assert done.stdout == "made\n", done.stderr
    refused = docker("run", "--rm", "--network=none", "--privileged", "--security-opt=writable-cgroups=false", "busybox", "sh", "-c", made)
    assert "Read-only file system" in refused.stderr


@pytest.mark.skipif(apparmor.enabled(), reason="the host has AppArmor")
def test_without_apparmor_a_profile_is_ignored_with_a_warning(docker: Docker) -> None:
    done = docker("run", "--rm", "--network=none", "--security-opt=apparmor=mine", "busybox", "true")
    assert (done.returncode, done.stderr) == (0, "WARNING: The host has no AppArmor: the profile mine is not applied.\n")
    assert docker("run", "--rm", "--network=none", "--security-opt=apparmor=unconfined", "busybox", "true").stderr == ""


@pytest.mark.skipif(not apparmor.enabled(), reason="the host has no AppArmor")
def test_a_profile_that_is_not_loaded(docker: Docker) -> None:
    done = docker("run", "--rm", "--network=none", "--security-opt=apparmor=sampan-no-such-profile", "busybox", "true")
    assert done.returncode == 125
    assert "unable to apply apparmor profile" in done.stderr
