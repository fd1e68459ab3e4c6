"""The eBPF device filter, interpreted."""

import struct

import pytest

from sampan.linux.cgroup2 import device_program
from sampan.runtime import defaults


def interpret(program: bytes, kind: str, major: int, minor: int, access: str) -> int:
    word = {"b": 1, "c": 2}[kind] | sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access) << 16
    memory = struct.pack("III", word, major, minor)
    registers = [0] * 11
    code = list(struct.iter_unpack("<BBhi", program))
    at = 0
    while True:
        opcode, pair, offset, value = code[at]
        target, source = pair & 15, pair >> 4
        at += 1
        if opcode == 0x61:
            registers[target] = struct.unpack_from("I", memory, offset)[0]
        elif opcode == 0x57:
            registers[target] &= value
        elif opcode == 0x77:
            registers[target] >>= value
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0xB7:
            registers[target] = value
        elif opcode == 0x55:
            at += offset if registers[target] != value else 0
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(hex(opcode))


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        ("c", 1, 3, "rwm", 1),
        ("c", 1, 3, "r", 1),
        ("c", 136, 9, "rw", 1),
        ("c", 10, 229, "m", 1),
        ("c", 10, 229, "r", 0),
        ("b", 8, 0, "m", 1),
        ("b", 8, 0, "rm", 0),
        ("b", 1, 3, "r", 0),
    ],
)
def test_dockers_rules(kind: str, major: int, minor: int, access: str, allowed: int) -> None:
    assert interpret(device_program(list(defaults.DEVICE_RULES)), kind, major, minor, access) == allowed
