"""What `POST /build` asks for."""

from collections.abc import Mapping, Sequence

import msgspec

from sampan.errors import EngineError
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.docker_api.container import Ulimit


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Its parameters. Sizes in bytes, times of the CPU scheduler in microseconds; 0: no limit."""

    dockerfile: str = "Dockerfile"
    """Its path in the context."""
    remote: str = ""
    """Where the context is, if it is not the request's body."""
    tags: Sequence[str] = ()
    target: str = ""
    platform: str = ""
    build_args: Mapping[str, str | None] = {}
    """None: named without a value, which is none."""
    labels: Mapping[str, str] = {}
    no_cache: bool = False
    cache_from: Sequence[str] = ()
    pull: bool = False
    remove: bool = True
    """Remove the containers of steps that went well."""
    force_remove: bool = False
    """Those of steps that failed, too."""
    quiet: bool = False
    squash: bool = False
    network: str = ""
    extra_hosts: Sequence[str] = ()
    cgroup_parent: str = ""
    shm_size: int = 0
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    ulimits: Sequence[Ulimit] = ()
    steps: bool = False
    """Told of by step as they happen (engine/buildtelling.py), not in the file's order."""
    only_output: bool = False
    """Its files are wanted, not the image, which is in the cache then and in no list."""
    credentials: Mapping[str, AuthConfig] = {}
    """By registry."""
    session: str = ""
    """The ID of the client's session, which has its secrets and agents."""

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in seconds, when it is given as a build argument: the image is the same each time then."""
        text = self.build_args.get("SOURCE_DATE_EPOCH") or ""
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None


class CacheLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the cache a prune leaves, in bytes; 0: not said. Without any of them nothing is left that could go."""

    reserved: int = 0
    """So much stays, whatever else is said."""
    max_used: int = 0
    min_free: int = 0
    """Of the disk."""


class StepFailed(EngineError):
    """A RUN ended with another exit code than 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
