"""The C library that runc compiles seccomp profiles with, as an oracle: what it makes of rules, as BPF."""

import ctypes
import ctypes.util
import os
from collections.abc import Iterable
from functools import cache

from sampan.linux.seccomp_bpf import Condition, Rule

TOKENS = {"x86_64": 0xC000003E, "x86": 0x40000003, "x32": 0x4000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}
OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@cache
def _library() -> ctypes.CDLL:
    path = ctypes.util.find_library("seccomp")
    assert path is not None, "libseccomp2 is not installed (./dev installs it)"
    library = ctypes.CDLL(path, use_errno=False)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = library.seccomp_arch_remove.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_arch_exist.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    )  # fmt: skip
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def resolve(name: str, arch: str) -> int | None:
    """A syscall's number (x32: with its bit); None where libseccomp does not know it or the architecture does not have it."""
    number: int = _library().seccomp_syscall_resolve_name_arch(TOKENS[arch], name.encode())
    return number if number >= 0 else None


def _add(library: ctypes.CDLL, context: int, number: int, conditions: tuple[Condition, ...], action: int) -> None:
    array = (_Comparison * len(conditions))(*((index, OPERATORS[op], value, second) for index, op, value, second in conditions))
    status = library.seccomp_rule_add_array(context, action, number, len(conditions), array)
    assert status == 0, os.strerror(-status)


def compile_rules(default: int, rules: dict[str, list[Rule]], arches: Iterable[str]) -> bytes:
    """The program libseccomp makes; syscalls it does not know are left out, as runc leaves them out."""
    library = _library()
    context = library.seccomp_init(default)
    assert context
    try:
        native = library.seccomp_arch_native()
        wanted = {TOKENS[arch] for arch in arches}
        for token in wanted - {native}:
            assert library.seccomp_arch_add(context, token) == 0
        if native not in wanted:
            assert library.seccomp_arch_remove(context, native) == 0
        for name, listed in rules.items():
            # a negative number other than -1 stands for a syscall that this architecture lacks but another may have
            number = library.seccomp_syscall_resolve_name_arch(native, name.encode())
            if number != -1:
                for conditions, action in listed:
                    _add(library, context, number, conditions, action)
        file = os.memfd_create("bpf")
        try:
            assert library.seccomp_export_bpf(context, file) == 0
            return os.pread(file, 1 << 20, 0)
        finally:
            os.close(file)
    finally:
        library.seccomp_release(context)
