"""Seccomp profiles (docker's JSON) compiled to classic BPF. Pure; seccomp.py installs the result.

The program: check the architecture; for each, a binary search over ranges of syscall numbers that share an outcome; at a leaf a return,
or the comparisons of a rule with argument filters. Numbers newer than any the profile names on that architecture get ENOSYS, as runc
does, so that libc falls back instead of seeing EPERM. Semantics of several rules for one syscall are libseccomp's: any matching rule with
arguments wins, then an unconditional one, then the default; arguments of one rule are ANDed, but several on one index in a rule make
separate rules.
"""

import json
import os
import re
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

Profile = dict[str, Any]
Instruction = tuple[int, int, int, int]

_LD, _JEQ, _JGT, _JGE, _AND, _RET, _JA = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06, 0x05
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16
RET_KILL_PROCESS = 0x80000000
RET_KILL_THREAD = 0x00000000
RET_TRAP = 0x00030000
RET_ERRNO = 0x00050000
RET_TRACE = 0x7FF00000
RET_LOG = 0x7FFC0000
RET_ALLOW = 0x7FFF0000
X32_BIT = 0x40000000
_ENOSYS = 38
_MAX_PROGRAM = 4096
_MAX_RULES = 16 * _MAX_PROGRAM
"""Most of them would have to say the same: then the profile is a bomb, and is not worked on."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "x86": 0x40000003, "x32": 0xC000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}
NARROW = ("x86", "x32", "arm")
"""Arguments have 32 bits here, and no more is compared, as in libseccomp: an x32 call may have rubbish above them."""
_SCMP_ARCH = {
    "SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "x86", "SCMP_ARCH_X32": "x32", "SCMP_ARCH_AARCH64": "aarch64", "SCMP_ARCH_ARM": "arm",
}  # fmt: skip
_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_FAMILY = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}
_OPERATORS = {"NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"}

Condition = tuple[int, str, int, int]
"""(argument index, operator, value, second value); MASKED_EQ: argument & value == second."""
Rule = tuple[tuple[Condition, ...], int]
"""(conditions, return value)"""


@lru_cache(maxsize=1)
def syscall_numbers() -> dict[str, dict[str, int]]:
    """Numbers by architecture and name (x32's without its bit). From the kernel's tables up to 6.17."""
    with open(os.path.join(os.path.dirname(__file__), "syscalls.json")) as file:
        tables: dict[str, dict[str, int]] = json.load(file)
    return tables


@lru_cache(maxsize=1)
def default_profile() -> Profile:
    """The built-in profile, equal in effect to moby 28.2's, in docker's JSON form."""
    with open(os.path.join(os.path.dirname(__file__), "seccomp_default.json")) as file:
        data = json.load(file)
    rules: list[dict[str, Any]] = [{"names": " ".join(data["allow"]).split(), "action": "SCMP_ACT_ALLOW"}]
    for rule in data["rules"]:
        entry: dict[str, Any] = {"names": rule["syscalls"].split(), "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}}
        if "errno" in rule:
            entry.update(action="SCMP_ACT_ERRNO", errnoRet=rule["errno"])
        for key, side, name in (
            ("kernel", "includes", "minKernel"), ("caps", "includes", "caps"), ("arches", "includes", "arches"),
            ("without_caps", "excludes", "caps"), ("not_arches", "excludes", "arches"),
        ):  # fmt: skip
            if key in rule:
                entry[side][name] = rule[key] if name == "minKernel" else rule[key].split()
        if "args" in rule:
            entry["args"] = [
                {"index": index, "op": f"SCMP_CMP_{op.upper()}", "value": value, "valueTwo": (rest or [0])[0]}
                for index, op, value, *rest in rule["args"]
            ]
        rules.append(entry)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": data["default_errno"],
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": rules,
    }


def _action(name: str, errno_ret: int | None) -> int:
    simple = {
        "SCMP_ACT_ALLOW": RET_ALLOW, "SCMP_ACT_KILL": RET_KILL_THREAD, "SCMP_ACT_KILL_THREAD": RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS": RET_KILL_PROCESS, "SCMP_ACT_TRAP": RET_TRAP, "SCMP_ACT_LOG": RET_LOG,
    }  # fmt: skip
    if name in simple:
        return simple[name]
    number = 1 if errno_ret is None else int(errno_ret)
    if name == "SCMP_ACT_ERRNO":
        return RET_ERRNO | (number & 0xFFFF)
    if name == "SCMP_ACT_TRACE":
        return RET_TRACE | (number & 0xFFFF)
    raise ValueError(f"invalid action: {name}")


def _applies(entry: dict[str, Any], caps: set[str], machine: str, kernel: tuple[int, int]) -> bool:
    """Whether a rule's includes and excludes let it in. Source: moby profiles/seccomp/seccomp_linux.go setupSeccomp."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    arch = _GO_ARCH.get(machine, machine)
    if set(excludes.get("arches") or []) & {arch} or set(excludes.get("caps") or []) & caps:
        return False

    def at_least(version: str) -> bool:
        match = re.fullmatch(r"(\d+)\.(\d+)", version)
        if match is None:
            raise ValueError(f"invalid kernel version: {version}")
        return kernel >= (int(match[1]), int(match[2]))

    if excludes.get("minKernel") and at_least(excludes["minKernel"]):
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if not set(includes.get("caps") or []) <= caps:
        return False
    return not includes.get("minKernel") or at_least(includes["minKernel"])


def _conditions(entry: dict[str, Any]) -> list[tuple[Condition, ...]]:
    found: list[Condition] = []
    for argument in entry.get("args") or []:
        op = str(argument["op"]).removeprefix("SCMP_CMP_")
        index = int(argument["index"])
        if op not in _OPERATORS or not 0 <= index <= 5:
            raise ValueError(f"invalid syscall argument filter: {argument}")
        found.append((index, op, int(argument.get("value", 0)), int(argument.get("valueTwo", 0))))
    indices = [condition[0] for condition in found]
    if len(set(indices)) != len(indices):
        return [(condition,) for condition in found]
    return [tuple(found)]


def _architectures(profile: Profile, machine: str) -> tuple[str, ...]:
    family = _FAMILY.get(machine)
    if family is None:
        raise ValueError(f"no seccomp tables for {machine}")
    listed = [_SCMP_ARCH.get(name) for name in profile.get("architectures") or []]
    for group in profile.get("archMap") or []:
        if _SCMP_ARCH.get(group.get("architecture", "")) == machine:
            listed += [machine, *(_SCMP_ARCH.get(name) for name in group.get("subArchitectures") or [])]
    # libseccomp always has the native one.
    return tuple(arch for arch in family if arch == machine or arch in listed)


def rules_by_name(profile: Profile, caps: Iterable[str], machine: str, kernel: tuple[int, int]) -> tuple[int, dict[str, list[Rule]]]:
    """(default return value, rules by syscall name) of a profile under these circumstances. Raises ValueError, KeyError."""
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    having = set(caps)
    rules: dict[str, list[Rule]] = {}
    count = 0
    for entry in profile.get("syscalls") or []:
        if not _applies(entry, having, machine, kernel):
            continue
        action = _action(entry["action"], entry.get("errnoRet"))
        alternatives = _conditions(entry)
        names = list(entry.get("names") or []) + ([entry["name"]] if entry.get("name") else [])
        for name in names:
            listed = rules.setdefault(name, [])
            if action != default:
                listed.extend((conditions, action) for conditions in alternatives)
                count += len(alternatives)
            if count > _MAX_RULES:
                raise ValueError(f"the profile has more than {_MAX_RULES} rules, and the kernel takes {_MAX_PROGRAM} instructions")
    return default, rules


def resolved(profile: Profile, caps: Iterable[str], machine: str, kernel: tuple[int, int]) -> Profile:
    """The profile as OCI runtimes take it: under these circumstances, without conditions. Raises ValueError, KeyError, TypeError."""
    having = set(caps)
    rules_by_name(profile, having, machine, kernel)
    architectures = _architectures(profile, machine)
    rules = []
    for entry in profile.get("syscalls") or []:
        if _applies(entry, having, machine, kernel):
            names = [*(entry.get("names") or ()), *([entry["name"]] if entry.get("name") else ())]
            kept = {key: entry[key] for key in ("errnoRet", "args") if entry.get(key) is not None}
            rules.append({"names": names, "action": entry["action"], **kept})
    kept = {key: profile[key] for key in ("defaultErrnoRet", "flags") if profile.get(key) is not None}
    listed = [name for name, architecture in _SCMP_ARCH.items() if architecture in architectures]
    return {"defaultAction": profile["defaultAction"], **kept, "architectures": listed, "syscalls": rules}


def _load(offset: int) -> Instruction:
    return (_LD, 0, 0, offset)


def _low_condition_code(condition: Condition) -> list[Instruction]:
    """_condition_code where arguments have 32 bits: the high halves of argument and value do not count."""
    index, op, value, second = condition
    low, mask, no = _load(_ARGS_OFFSET + 8 * index), 0xFFFFFFFF, 255
    if op == "MASKED_EQ":
        return [low, (_AND, 0, 0, value & mask), (_JEQ, 0, no, second & mask)]
    test = {"EQ": _JEQ, "NE": _JEQ, "GT": _JGT, "LE": _JGT, "GE": _JGE, "LT": _JGE}[op]
    return [low, (test, 0, no, value & mask) if op in ("EQ", "GT", "GE") else (test, no, 0, value & mask)]


def _condition_code(condition: Condition) -> list[Instruction]:
    """Falls through when the condition holds; jumps with k = -1 in jt or jf (patched by the caller) when it does not."""
    index, op, value, second = condition
    low, high = _load(_ARGS_OFFSET + 8 * index), _load(_ARGS_OFFSET + 8 * index + 4)
    mask = 0xFFFFFFFF
    hi, lo = value >> 32 & mask, value & mask
    no = 255
    if op == "EQ":
        return [high, (_JEQ, 0, no, hi), low, (_JEQ, 0, no, lo)]
    if op == "NE":
        return [high, (_JEQ, 0, 2, hi), low, (_JEQ, no, 0, lo)]
    if op == "MASKED_EQ":
        second_hi, second_lo = second >> 32 & mask, second & mask
        return [high, (_AND, 0, 0, hi), (_JEQ, 0, no, second_hi), low, (_AND, 0, 0, lo), (_JEQ, 0, no, second_lo)]
    if op in ("GT", "GE"):
        return [high, (_JGT, 3, 0, hi), (_JEQ, 0, no, hi), low, (_JGT if op == "GT" else _JGE, 0, no, lo)]
    # a < v is not a >= v; a <= v is not a > v
    return [high, (_JGT, no, 0, hi), (_JEQ, 0, 2, hi), low, (_JGE if op == "LT" else _JGT, no, 0, lo)]


def _leaf(rules: tuple[Rule, ...], default: int, arch: str) -> list[Instruction]:
    """What to do for one syscall: its rules with arguments in order, then the unconditional one or the default."""
    final = next((action for conditions, action in rules if not conditions), default)
    code: list[Instruction] = []
    compare = _low_condition_code if arch in NARROW else _condition_code
    for conditions, action in rules:
        if not conditions or action == final:
            continue
        block = [instruction for condition in conditions for instruction in compare(condition)]
        size = len(block)
        for at, (opcode, jt, jf, k) in enumerate(block):
            # To behind the block's return: 255 stands for "does not hold".
            block[at] = (opcode, size - at if jt == 255 else jt, size - at if jf == 255 else jf, k)
        code += [*block, (_RET, 0, 0, action)]
    return [*code, (_RET, 0, 0, final)]


def _search(ranges: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """A binary search over (first number, code) ranges; the accumulator holds the number. Every leaf returns."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle]), _search(ranges[middle:])
    if len(left) <= 255:
        return [(_JGE, len(left), 0, ranges[middle][0]), *left, *right]
    return [(_JGE, 0, 1, ranges[middle][0]), (_JA, 0, 0, len(left)), *left, *right]


def _section(arch: str, default: int, rules: dict[str, list[Rule]]) -> list[Instruction]:
    numbers = syscall_numbers()[arch]
    base = X32_BIT if arch == "x32" else 0
    table = {numbers[name] + base: tuple(found) for name, found in rules.items() if name in numbers}
    beyond: tuple[Rule, ...] = ()
    # A profile that allows by default has nothing to hide from newer syscalls.
    if default not in (RET_ALLOW, RET_LOG):
        beyond = (((), RET_ERRNO | _ENOSYS),)
    ranges: list[tuple[int, list[Instruction]]] = []
    last: tuple[Rule, ...] | None = None

    def add(start: int, outcome: tuple[Rule, ...]) -> None:
        nonlocal last
        if outcome != last:
            ranges.append((start, _leaf(outcome, default, arch)))
            last = outcome

    position = base
    for number in sorted(table):
        if number > position:
            add(position, ())
        add(number, table[number])
        position = number + 1
    add(position, beyond)
    return _search(ranges)


def compile_profile(profile: Profile, caps: Iterable[str], machine: str, kernel: tuple[int, int]) -> bytes:
    """The BPF program of a profile, as bytes of struct sock_filter. Raises ValueError, KeyError, TypeError for a malformed profile."""
    default, rules = rules_by_name(profile, caps, machine, kernel)
    arches = _architectures(profile, machine)
    code: list[Instruction] = [_load(_ARCH_OFFSET)]
    for arch in arches:
        if arch == "x32":
            continue
        section = [_load(_NR_OFFSET)]
        body = _section(arch, default, rules)
        if arch == "x86_64":
            other = _section("x32", default, rules) if "x32" in arches else [(_RET, 0, 0, RET_KILL_THREAD)]
            section += [(_JGE, 0, 1, X32_BIT), (_JA, 0, 0, len(body)), *body, *other]
        else:
            section += body
        code += [(_JEQ, 1, 0, AUDIT_ARCH[arch]), (_JA, 0, 0, len(section)), *section]
    code.append((_RET, 0, 0, RET_KILL_THREAD))
    if len(code) > _MAX_PROGRAM:
        raise ValueError(f"the filter has {len(code)} instructions, the kernel takes {_MAX_PROGRAM}")
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
