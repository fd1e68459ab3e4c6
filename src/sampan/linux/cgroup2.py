"""What is particular to cgroup v2: the device whitelist, which is an eBPF program on the cgroup, and the two files for weights of disks."""

import ctypes
import os
import struct

from sampan.linux.cgroup1 import Rule
from sampan.linux.libc import syscall

_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LDX_W, _AND_K, _RSH_K, _MOV_X, _MOV_K, _JNE_K, _EXIT = 0x61, 0x57, 0x77, 0xBF, 0xB7, 0x55, 0x95


def _instruction(opcode: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("BBhi", opcode, source << 4 | target, offset, value)


def device_program(rules: list[Rule]) -> bytes:
    """A program that answers 1 for what a rule allows, else 0. Pure.

    The context is struct bpf_cgroup_dev_ctx: access_type (type in the low, access in the high 16 bits), major, minor.
    """
    code = [
        _instruction(_LDX_W, 2, 1, 0),
        _instruction(_AND_K, 2, value=0xFFFF),
        _instruction(_LDX_W, 3, 1, 0),
        _instruction(_RSH_K, 3, value=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    allow = [_instruction(_MOV_K, 0, value=1), _instruction(_EXIT)]
    for kind, major, minor, access in rules:
        checks: list[tuple[int, int]] = []
        if kind in _TYPES:
            checks.append((2, _TYPES[kind]))
        forbidden = 7 & ~sum(_ACCESS[letter] for letter in set(access))
        body: list[bytes] = []
        tail = len(allow)
        if forbidden:
            body = [_instruction(_MOV_X, 1, 3), _instruction(_AND_K, 1, value=forbidden)]
            checks.append((1, 0))
        if major >= 0:
            checks.append((4, major))
        if minor >= 0:
            checks.append((5, minor))
        jumps = [
            _instruction(_JNE_K, register, offset=len(checks) - at - 1 + tail, value=value) for at, (register, value) in enumerate(checks)
        ]
        code += [*body, *jumps, *allow]
    return b"".join([*code, _instruction(_MOV_K, 0, value=0), _instruction(_EXIT)])


def has_bfq_instead(file: str) -> bool:
    """Whether that is an io.weight that is not there and need not be: without blk-iocost a kernel has BFQ's own file only."""
    directory, name = os.path.split(file)
    return name == "io.weight" and not os.path.exists(file) and os.path.exists(f"{directory}/io.bfq.weight")


def attach_devices(directory: str, rules: list[Rule]) -> None:
    """Load the program for the rules and attach it to the cgroup. Raises OSError."""
    program = ctypes.create_string_buffer(device_program(rules))
    license_text = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "IIQQIIQ", _PROG_TYPE_CGROUP_DEVICE, (len(program) - 1) // 8, ctypes.addressof(program), ctypes.addressof(license_text), 0, 0, 0
    )
    loaded = syscall("bpf", _PROG_LOAD, attributes, len(attributes))
    target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        argument = struct.pack("IIII", target, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
        syscall("bpf", _PROG_ATTACH, argument, len(argument), path=directory)
    finally:
        os.close(target)
        os.close(loaded)
