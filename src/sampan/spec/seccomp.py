"""Seccomp profiles in docker's JSON form (moby profiles/seccomp/seccomp.go; OCI runtime-spec config-linux.md, Seccomp)."""

import msgspec

from sampan.spec.docker_api.base import Uint, Uint64, always


class _Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class Filter(_Body, frozen=True, kw_only=True):
    """Where a rule holds, or does not. Architectures by Go's names."""

    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str = ""


class Argument(_Body, frozen=True, kw_only=True):
    """A comparison of one of a call's arguments."""

    index: Uint = always(0)
    value: Uint64 = always(0)
    value_two: Uint64 = always(0)
    op: str = always("")


class Syscall(_Body, frozen=True, kw_only=True):
    """What is done with some calls."""

    name: str = ""
    names: list[str] | None = None
    action: str = always("")
    errno_ret: Uint | None = None
    args: list[Argument] | None = None
    includes: Filter | None = None
    excludes: Filter | None = None


class Architecture(_Body, frozen=True, kw_only=True):
    """One that a profile is for, and those that its kernel runs as well."""

    architecture: str = always("")
    sub_architectures: list[str] | None = None


class Profile(_Body, frozen=True, kw_only=True):
    """A whole profile."""

    default_action: str = always("")
    default_errno_ret: Uint | None = None
    architectures: list[str] | None = None
    arch_map: list[Architecture] | None = None
    flags: list[str] | None = None
    syscalls: list[Syscall] | None = None
