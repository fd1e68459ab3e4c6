"""The keys `runtimes` and `default-runtime`: checked in docker's words, and what the engine takes of them.

Source: moby daemon/runtime_unix.go setupRuntimes, opts/runtime.go.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sampan.engine.runtimes import BUILT_IN, RuntimeSettings
from sampan.spec.docker_api.system import Runtime

SHIM: Final = "io.containerd.runc.v2"
"""The one runtimeType that there is: its options name a program that is an OCI runtime."""


class RuntimeProblem(Exception):
    """A value that cannot be used; `key`: of which key."""

    def __init__(self, message: str, key: str = "runtimes") -> None:
        super().__init__(message)
        self.key = key


def named(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`--add-runtime NAME=PATH`, once or several times. Raises RuntimeProblem."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, _, path = (word.strip() for word in text.partition("="))
        name = name.lower()
        if not name or not path:
            raise RuntimeProblem(f"invalid runtime argument: {text}")
        _check_name(name)
        if name in found:
            raise RuntimeProblem(f"runtime '{name}' was already defined")
        found[name] = {"path": path}
    return found


def _check_name(name: str) -> None:
    if name == BUILT_IN:
        raise RuntimeProblem(f"runtime name '{name}' is reserved")


def settings(runtimes: Mapping[str, Mapping[str, Any]], default: str) -> RuntimeSettings:
    """Every runtime as the program that is executed. Raises RuntimeProblem."""
    commands = {name: _command(name, runtime) for name, runtime in runtimes.items()}
    if default not in ("", BUILT_IN, SHIM) and default not in commands:
        raise RuntimeProblem(f"specified default runtime '{default}' does not exist", "default-runtime")
    return RuntimeSettings(default or BUILT_IN, commands)


def _command(name: str, runtime: Mapping[str, Any]) -> tuple[str, ...]:
    _check_name(name)
    path, kind = runtime.get("path") or "", runtime.get("runtimeType") or ""
    arguments, options = runtime.get("runtimeArgs") or (), runtime.get("options") or {}
    if not path and not kind:
        raise RuntimeProblem(f"runtime {name}: either a runtimeType or a path must be configured")
    if path and kind:
        raise RuntimeProblem(f"runtime {name}: cannot configure both path and runtimeType for the same runtime")
    if path and options:
        raise RuntimeProblem(f"runtime {name}: options cannot be used with a path runtime")
    if path:
        return (path, *arguments)
    if arguments:
        raise RuntimeProblem(f"runtime {name}: args cannot be used with a runtimeType runtime")
    if kind != SHIM:
        raise RuntimeProblem(f"runtime {name}: not supported by Sampan: runtimeType {kind} (there is no containerd: use {SHIM} or path)")
    for option, value in options.items():
        if option != "BinaryName" and value:
            raise RuntimeProblem(f"runtime {name}: not supported by Sampan: option {option} of {SHIM}")
    binary = options.get("BinaryName") or ""
    if not isinstance(binary, str):
        raise RuntimeProblem(f"runtime {name}: option BinaryName of {SHIM} must be a string")
    return (binary,) if binary else ()


def shown(runtimes: Mapping[str, Mapping[str, Any]]) -> dict[str, Runtime]:
    """As `docker info` has them."""
    return {
        name: Runtime(
            path=runtime.get("path") or "", runtime_args=list(runtime.get("runtimeArgs") or ()) or None,
            runtime_type=runtime.get("runtimeType") or "", options=runtime.get("options") or None,
        )
        for name, runtime in runtimes.items()
    }  # fmt: skip
