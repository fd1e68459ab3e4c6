"""BPF bytes against the meaning of the profile they were compiled from."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.linux import seccomp_bpf as compiler
from sampan.runtime import defaults
from tests.support import bpf, libseccomp

KERNEL = (6, 18)
EPERM, ENOSYS, ALLOW = compiler.RET_ERRNO | 1, compiler.RET_ERRNO | 38, compiler.RET_ALLOW
X86_64 = compiler.AUDIT_ARCH["x86_64"]
NUMBERS = compiler.syscall_numbers()
MASK64 = 2**64 - 1


def _holds(condition: compiler.Condition, arguments: tuple[int, ...], arch: str) -> bool:
    index, op, value, second = condition
    width = 0xFFFFFFFF if arch in compiler.NARROW else MASK64
    actual, value, second = arguments[index] & width, value & width, second & width
    return {
        "EQ": actual == value,
        "NE": actual != value,
        "LT": actual < value,
        "LE": actual <= value,
        "GT": actual > value,
        "GE": actual >= value,
        "MASKED_EQ": actual & value == second,
    }[op]


def meaning(default: int, rules: dict[str, list[compiler.Rule]], arch: str, name: str, arguments: tuple[int, ...]) -> int:
    """What a profile says, written down naively; of it we have what rules_by_name gives."""
    found = rules.get(name, [])
    final = next((action for conditions, action in found if not conditions), default)
    for conditions, action in found:
        if conditions and action != final and all(_holds(condition, arguments, arch) for condition in conditions):
            return action
    return final


def evaluate(program: bytes, arch: str, number: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    return bpf.run(program, bpf.data(compiler.AUDIT_ARCH[arch], number + (compiler.X32_BIT if arch == "x32" else 0), arguments))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("caps", [(), defaults.CAPABILITIES, ("CAP_SYS_ADMIN",), ("CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_BPF")])
def test_every_syscall_of_the_default_profile_means_what_it_says(machine: str, caps: tuple[str, ...]) -> None:
    profile = compiler.default_profile()
    program = compiler.compile_profile(profile, caps, machine, KERNEL)
    samples = [
        (0,) * 6,
        (40, 0, 0, 0, 0, 0),
        (0x20000, 0, 0, 0, 0, 0),
        (0x10000000, 0, 0, 0, 0, 0),
        (MASK64,) * 6,
        (1 << 40, 0, 0, 0, 0, 0),
    ]
    default, rules = compiler.rules_by_name(profile, caps, machine, KERNEL)
    for arch in {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}[machine]:
        highest = max(number for name, number in NUMBERS[arch].items() if name in rules)
        for name, number in NUMBERS[arch].items():
            for arguments in samples:
                expected = meaning(default, rules, arch, name, arguments) if number <= highest else ENOSYS
                assert evaluate(program, arch, number, arguments) == expected, (arch, name, arguments)


def test_facts_about_dockers_default() -> None:
    program = compiler.compile_profile(compiler.default_profile(), defaults.CAPABILITIES, "x86_64", KERNEL)
    number = NUMBERS["x86_64"]
    for name in (
        "mount",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "bpf",
        "kexec_load",
        "io_uring_setup",
        "userfaultfd",
        "reboot",
        "pivot_root",
    ):
        assert evaluate(program, "x86_64", number[name]) == EPERM, name
    for name in ("read", "execve", "chroot", "ptrace", "statmount", "arch_prctl", "modify_ldt", "mseal"):
        assert evaluate(program, "x86_64", number[name]) == ALLOW, name
    assert evaluate(program, "x86_64", number["clone3"]) == ENOSYS
    assert evaluate(program, "x86_64", 1000) == ENOSYS
    assert evaluate(program, "x86_64", number["clone"], (0x01200011, 0, 0, 0, 0, 0)) == ALLOW
    assert evaluate(program, "x86_64", number["clone"], (0x10000000, 0, 0, 0, 0, 0)) == EPERM
    assert evaluate(program, "x86_64", number["socket"], (40, 0, 0, 0, 0, 0)) == EPERM
    assert evaluate(program, "x86_64", number["socket"], (2, 0, 0, 0, 0, 0)) == ALLOW
    assert evaluate(program, "x86_64", number["personality"], (0x20008, 0, 0, 0, 0, 0)) == ALLOW
    assert evaluate(program, "x86_64", number["personality"], (0x4000, 0, 0, 0, 0, 0)) == EPERM
    assert bpf.run(program, bpf.data(0x80000015, 1)) == compiler.RET_KILL_THREAD


def test_the_default_profile_has_361_syscalls_always_allowed() -> None:
    assert len(compiler.default_profile()["syscalls"][0]["names"]) == 361


_names = st.sampled_from(["read", "write", "socket", "clone", "personality", "statx", "mseal", "futex", "nosuchcall"])
_values = st.one_of(st.integers(0, 3), st.integers(0, MASK64), st.sampled_from([2**32 - 1, 2**32, 2**63]))
_arguments = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "op": st.sampled_from([f"SCMP_CMP_{op}" for op in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")]),
        "value": _values,
        "valueTwo": _values,
    }
)
_rules = st.fixed_dictionaries(
    {
        "names": st.lists(_names, min_size=1, max_size=4),
        "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", "SCMP_ACT_TRAP"]),
        "errnoRet": st.integers(0, 130),
        "args": st.lists(_arguments, max_size=3),
    }
)
_profiles = st.fixed_dictionaries(
    {
        "defaultAction": st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL"]),
        "archMap": st.just(compiler.default_profile()["archMap"]),
        "syscalls": st.lists(_rules, max_size=6),
    }
)


@settings(max_examples=150, deadline=None)
@given(profile=_profiles, arguments=st.tuples(*[_values] * 6), name=_names, arch=st.sampled_from(["x86_64", "x86", "x32"]))
def test_any_profile(profile: dict[str, Any], arguments: tuple[int, ...], name: str, arch: str) -> None:
    program = compiler.compile_profile(profile, (), "x86_64", KERNEL)
    if name not in NUMBERS[arch]:
        return
    default, rules = compiler.rules_by_name(profile, (), "x86_64", KERNEL)
    named = [NUMBERS[arch][known] for known in rules if known in NUMBERS[arch]]
    number = NUMBERS[arch][name]
    if profile["defaultAction"] != "SCMP_ACT_ALLOW" and number > max(named, default=-1):
        assert evaluate(program, arch, number, arguments) == ENOSYS
    else:
        assert evaluate(program, arch, number, arguments) == meaning(default, rules, arch, name, arguments)


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "x"}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}],
        },
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "x"}}]},
    ],
)
def test_malformed_profiles_are_refused(profile: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        compiler.compile_profile(profile, (), "x86_64", KERNEL)


def test_numbers_agree_with_libseccomp() -> None:
    for arch in NUMBERS:
        base = compiler.X32_BIT if arch == "x32" else 0
        known = {name: number - base for name in NUMBERS[arch] if (number := libseccomp.resolve(name, arch)) is not None}
        assert len(known) > 300
        assert known == {name: NUMBERS[arch][name] for name in known}


def test_a_bomb_is_not_worked_on() -> None:
    """800,000 rules in 200 kB: 645 MB of memory before."""
    condition = {"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
    entry = {"names": ["read"] * 20_000, "action": "SCMP_ACT_ERRNO", "args": [condition]}
    with pytest.raises(ValueError, match="more than 65536 rules"):
        compiler.rules_by_name({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry] * 40}, (), "x86_64", (6, 1))
