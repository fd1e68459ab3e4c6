"""An evaluator of classic BPF as seccomp uses it: the meaning of a program, independent of the compiler."""

import struct


def data(arch: int, number: int, arguments: tuple[int, ...] = ()) -> bytes:
    """struct seccomp_data."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return struct.pack("<IIQ6Q", number, arch, 0, *padded)


def run(program: bytes, packet: bytes) -> int:
    """The program's return value. Raises ValueError for an instruction or jump the kernel would refuse."""
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        if at >= len(code):
            raise ValueError("fell off the end")
        opcode, yes, no, value = code[at]
        at += 1
        if opcode == 0x20:
            if value % 4 or value > 60:
                raise ValueError(f"load at {value}")
            accumulator = struct.unpack_from("<I", packet, value)[0]
        elif opcode == 0x54:
            accumulator &= value
        elif opcode == 0x05:
            at += value
        elif opcode == 0x06:
            return value
        elif opcode in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[opcode]
            at += yes if holds else no
        else:
            raise ValueError(f"opcode {opcode:#x}")
