"""RUN: a container of the engine's own, as every other, that is removed when its step is over."""

import codecs
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import msgspec

from sampan.engine import merging
from sampan.engine.attach import AttachService
from sampan.engine.buildoptions import BuildOptions
from sampan.engine.buildspool import Workspace
from sampan.engine.containers import ContainerService
from sampan.engine.containerstore import Container
from sampan.engine.control import Control
from sampan.engine.creating import Base, Creator
from sampan.engine.limits import host_limits
from sampan.engine.runner import Runner
from sampan.engine.runs import Lent
from sampan.errors import EngineError
from sampan.ids import ContainerId, new_id
from sampan.spec.docker_api.container import CreateRequest, HealthConfig, HostConfig
from sampan.spec.oci_image import ContainerConfig
from sampan.waiting import to_the_end

log = logging.getLogger(__name__)

_HEAD = 8
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"

HOSTNAME: Final = "buildkitsandbox"
"""Of steps that are to come to the same image each time; BuildKit's steps are called so."""

Say = Callable[[str], Awaitable[None]]
"""Sends text to the client, waiting while it has enough to read."""


class StepContainers:
    """Makes, runs and removes the containers of build steps."""

    def __init__(self, creator: Creator, service: ContainerService, runner: Runner, control: Control, attach: AttachService) -> None:
        self._creator = creator
        self._service = service
        self._runner = runner
        self._control = control
        self._attach = attach

    async def make(
        self, workspace: Workspace, base: Base, config: ContainerConfig, command: Sequence[str], host: HostConfig, *, anonymous: bool
    ) -> tuple[Container, list[str]]:
        """A container of a step, not started, and warnings. config: of the stage, its environment complete.

        anonymous: its host has the name that all such have. Raises InvalidArgument, NotImplementedYet.
        """
        shared = host.network_mode.startswith("container:")  # name and ports are the other container's then
        request = CreateRequest(
            hostname=HOSTNAME if anonymous and not shared else "",
            image=base.image_id,
            user=config.user,
            env=config.env,
            cmd=list(command),
            entrypoint=[],
            working_dir=config.working_dir,
            labels=config.labels,
            exposed_ports=None if shared else config.exposed_ports,
            stop_signal=config.stop_signal,
            shell=config.shell,
            healthcheck=HealthConfig(test=["NONE"]),
            host_config=host,
        )
        # no volumes: those of the image are mounts of the step (engine/buildmounts.py)
        container_id = ContainerId(new_id())
        workspace.note_container(container_id)
        return await self._creator.create_on(base._replace(config=ContainerConfig()), "", request, container_id)

    @staticmethod
    def check(host: HostConfig) -> list[str]:
        """Whether a step's container could have these limits and hosts, and warnings. Raises InvalidArgument, NotImplementedYet."""
        return merging.check_host(host, host_limits())

    async def run(self, container: Container, say: Say, lent: Lent) -> int:
        """Run it to its end with what it is lent, telling its output. Its exit code. Raises StartFailure and other EngineErrors."""
        async with self._attach.output(container) as chunks:
            async with container.lock:
                await to_the_end(self._runner.start(container, lent))  # half a start is nothing that remove() could end
            await _tell(chunks, say)
        await container.exited.wait()
        return container.state.exit_code

    async def remove(self, workspace: Workspace, container: Container) -> None:
        """End and remove it, also for a build that is ended meanwhile; silent when somebody else has."""
        try:
            await to_the_end(self._remove(container))
        finally:
            workspace.forget_container(container.id)

    async def remove_noted(self, workspace: Workspace) -> None:
        """At the end of a build: those that are neither removed nor to stay."""
        for container_id in list(workspace.containers):
            container = self._runner.containers.get(container_id)
            if container is not None:
                await self.remove(workspace, container)

    async def _remove(self, container: Container) -> None:
        container.removing = True
        try:
            if container.is_running:
                await self._control.kill(container)
            async with container.lock:
                if container.removed.is_set():
                    return
                await container.settled.wait()
                await self._runner.discard(container)
        except EngineError as error:
            container.removing = False
            log.warning("a container of a build stays: %s", error.message)


async def _tell(chunks: AsyncIterator[bytes], say: Say) -> None:
    """Both streams as text, stderr in red, as docker's classic builder shows it."""
    decoders = {1: codecs.getincrementaldecoder("utf-8")("replace"), 2: codecs.getincrementaldecoder("utf-8")("replace")}
    async for chunk in chunks:
        place = 0
        while place < len(chunk):
            stream, length = chunk[place], int.from_bytes(chunk[place + 4 : place + _HEAD], "big")
            place += _HEAD
            text = decoders[stream].decode(chunk[place : place + length])
            place += length
            if text:
                await say(f"{_RED}{text}{_PLAIN}" if stream == 2 else text)


def host_config(options: BuildOptions, network: str, mounts: Sequence[object] = ()) -> HostConfig:
    """Of a step's container: it keeps no log, for its output is the build's. network: the step's own, "" or `default` for the build's."""
    given = {
        "NetworkMode": options.network if network in ("", "default") else network,
        "ExtraHosts": list(options.extra_hosts),
        "CgroupParent": options.cgroup_parent,
        "ShmSize": options.shm_size,
        "Memory": options.memory,
        "MemorySwap": options.memory_swap,
        "CpuShares": options.cpu_shares,
        "CpuPeriod": options.cpu_period,
        "CpuQuota": options.cpu_quota,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "Ulimits": msgspec.to_builtins(list(options.ulimits)),
        "Mounts": list(mounts),
        "LogConfig": {"Type": "none", "Config": {}},
    }
    return msgspec.convert(given, HostConfig)
