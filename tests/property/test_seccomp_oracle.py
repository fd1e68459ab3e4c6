"""Our filter of the default profile beside the one libseccomp makes of the same rules: the same action for the same call.

What runc adds to libseccomp's program, ENOSYS for numbers above every named one, is test_seccomp.py's.
"""

from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.linux import capabilities
from sampan.linux import seccomp_bpf as compiler
from sampan.runtime import defaults
from tests.support import bpf, libseccomp

KERNEL = (6, 18)
ARCHES = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}
CAPABILITIES = ((), defaults.CAPABILITIES, ("CAP_SYS_ADMIN",), ("CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYSLOG"), tuple(capabilities.NUMBERS))
INTERESTING = (0, 1, 2, 8, 16, 38, 39, 40, 41, 0x20000, 0x20008, 0x7E020000, 0x10000000, 2**32 - 1, 2**32, 2**32 + 40, 1 << 40, 2**64 - 1)
"""Values near what the profile compares with (socket families, personalities, clone's flags), and where words meet."""


@cache
def programs(machine: str, caps: tuple[str, ...]) -> tuple[bytes, bytes]:
    """(ours, libseccomp's)"""
    profile = compiler.default_profile()
    default, rules = compiler.rules_by_name(profile, caps, machine, KERNEL)
    return compiler.compile_profile(profile, caps, machine, KERNEL), libseccomp.compile_rules(default, rules, ARCHES[machine])


@cache
def known(arch: str) -> dict[str, int]:
    """The syscalls of an architecture that both sides know, by name; the number has x32's bit."""
    pairs = ((name, libseccomp.resolve(name, arch)) for name in compiler.syscall_numbers()[arch])
    return {name: number for name, number in pairs if number is not None}


def actions(machine: str, caps: tuple[str, ...], arch: str, number: int, arguments: tuple[int, ...]) -> tuple[int, int]:
    packet = bpf.data(compiler.AUDIT_ARCH[arch], number, arguments)
    ours, theirs = programs(machine, caps)
    return bpf.run(ours, packet), bpf.run(theirs, packet)


@pytest.mark.parametrize("caps", CAPABILITIES, ids=["none", "default", "sys_admin", "three", "all"])
@pytest.mark.parametrize(("machine", "arch"), [(machine, arch) for machine, arches in ARCHES.items() for arch in arches])
def test_every_known_syscall_has_the_same_action(machine: str, arch: str, caps: tuple[str, ...]) -> None:
    _, rules = compiler.rules_by_name(compiler.default_profile(), caps, machine, KERNEL)
    assert len(known(arch)) > 300
    for name, number in known(arch).items():
        conditional = any(conditions for conditions, _ in rules.get(name, ()))
        for value in INTERESTING if conditional else INTERESTING[:1]:
            ours, theirs = actions(machine, caps, arch, number, (value, value ^ 1, 0, 0, 0, 0))
            assert ours == theirs, (name, number, hex(value))


def test_the_oracle_sees_what_the_profile_says() -> None:
    """Both kinds of answers are among those compared, and an argument makes a difference."""
    number = known("x86_64")
    for name, arguments, action in (
        ("read", (0,), compiler.RET_ALLOW),
        ("mount", (0,), compiler.RET_ERRNO | 1),
        ("clone3", (0,), compiler.RET_ERRNO | 38),
        ("socket", (40,), compiler.RET_ERRNO | 1),
        ("socket", (2,), compiler.RET_ALLOW),
        ("clone", (0x10000000,), compiler.RET_ERRNO | 1),
    ):
        assert actions("x86_64", defaults.CAPABILITIES, "x86_64", number[name], arguments) == (action, action), name


@settings(max_examples=400)
@given(
    pair=st.sampled_from([(machine, arch) for machine, arches in ARCHES.items() for arch in arches]),
    caps=st.sampled_from(CAPABILITIES),
    name=st.sampled_from(["clone", "clone3", "socket", "personality", "open_by_handle_at", "bpf", "ptrace", "syslog", "read", "unshare"]),
    arguments=st.tuples(*[st.one_of(st.sampled_from(INTERESTING), st.integers(0, 2**64 - 1))] * 6),
)
def test_any_arguments(pair: tuple[str, str], caps: tuple[str, ...], name: str, arguments: tuple[int, ...]) -> None:
    number = known(pair[1]).get(name)
    if number is not None:
        ours, theirs = actions(*(pair[0], caps, pair[1]), number, arguments)
        assert ours == theirs


@pytest.mark.parametrize(("machine", "arch"), list(product(ARCHES, ["s390x", "mips"])))
def test_a_foreign_architecture_is_killed_by_both(machine: str, arch: str) -> None:
    packet = bpf.data({"s390x": 0x80000016, "mips": 0x00000008}[arch], 1)
    ours, theirs = programs(machine, ())
    assert bpf.run(ours, packet) == bpf.run(theirs, packet) == compiler.RET_KILL_THREAD
