"""`--security-opt`: what each asks for, what is refused, and what this host ignores."""

import json
from typing import Any

import pytest

from sampan.engine import launching
from sampan.engine.launching import SecurityOptions, apparmor_profile
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.container import HostConfig

BROKEN = "Decoding seccomp profile failed: json: cannot unmarshal"


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("no-new-privileges", "no_new_privileges", True),
        ("no-new-privileges=1", "no_new_privileges", True),
        ("no-new-privileges:false", "no_new_privileges", False),
        ("writable-cgroups", "writable_cgroups", True),
        ("writable-cgroups=T", "writable_cgroups", True),
        ("writable-cgroups=0", "writable_cgroups", False),
        ("apparmor=mine", "apparmor", "mine"),
        ("seccomp=unconfined", "seccomp", "unconfined"),
        ("seccomp=builtin", "seccomp", None),
        ("seccomp=", "seccomp", None),
        ("seccomp={}", "seccomp", "unconfined"),
        ("seccomp=null", "seccomp", "unconfined"),
        (
            'seccomp={"DefaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":null}]}',
            "seccomp",
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]},
        ),
    ],
)
def test_what_is_asked_for(option: str, field: str, value: Any) -> None:
    assert getattr(SecurityOptions([option]), field) == value


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("nope", 'invalid --security-opt 1: "nope"'),
        ("nope=1", 'invalid --security-opt 2: "nope=1"'),
        ("systempaths=x", 'invalid --security-opt 2: "systempaths=x"'),
        ("no-new-privileges=x", 'invalid --security-opt 2: "no-new-privileges=x"'),
        ("writable-cgroups=dang", 'invalid --security-opt 2: "writable-cgroups=dang"'),
        ("writable-cgroups=", 'invalid --security-opt 2: "writable-cgroups="'),
        ("seccomp=" + "[" * 100_000, "Decoding seccomp profile failed: exceeded max depth"),
        ("seccomp=" + "{" + " " * (512 << 10), "Decoding seccomp profile failed: longer than 524288 characters"),
        ("seccomp=[]", f"{BROKEN} array into Go value of type container.Profile"),
        (
            'seccomp={"syscalls":["x"]}',
            f"{BROKEN} string into Go struct field Profile.syscalls of type container.Syscall",
        ),
        (
            'seccomp={"syscalls":[{"args":[{"index":1e999}]}]}',
            f"{BROKEN} number inf into Go struct field Profile.syscalls.args.index of type uint",
        ),
        (
            'seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{}]}',
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ),
        (
            'seccomp={"syscalls":[{"name":"read","names":["write"]}]}',
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
        ),
    ],
)
def test_refused_in_dockers_words(option: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        SecurityOptions([option])
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("options", "has_apparmor", "warnings"),
    [
        (["apparmor=mine"], False, ["The host has no AppArmor: the profile mine is not applied."]),
        (["apparmor=mine"], True, []),
        (["apparmor=unconfined", "label=disable", "disable"], False, []),
        (["label=type:t"], True, ["SELinux is not supported: the label type:t is not applied."]),
        (["label:disable", "label:level:s0"], True, ["SELinux is not supported: the label level:s0 is not applied."]),
    ],
)
def test_what_this_host_ignores_is_said(options: list[str], has_apparmor: bool, warnings: list[str]) -> None:
    assert SecurityOptions(options).ignored(has_apparmor=has_apparmor) == warnings


@pytest.mark.parametrize(
    ("options", "privileged", "profile"), [([], False, ""), ([], True, "unconfined"), (["apparmor=mine"], True, "mine")]
)
def test_the_apparmor_profile_of_a_container(options: list[str], privileged: bool, profile: str) -> None:
    assert apparmor_profile(SecurityOptions(options), HostConfig(privileged=privileged)) == profile


def test_large_seccomp_profiles_are_not_kept() -> None:
    """Read, one may have eighty times the size of its text."""
    before = launching._kept_seccomp_profile.cache_info().misses
    text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}] * 40_000})
    assert isinstance(SecurityOptions([f"seccomp={text}"]).seccomp, dict)
    assert launching._kept_seccomp_profile.cache_info().misses == before
