"""Makes containers: what image, request and daemon say is merged and checked, then its directory, tree, volumes and row are made."""

import os
from contextlib import suppress
from typing import NamedTuple

import msgspec

from sampan.archive.room import making
from sampan.digest import ChainId
from sampan.engine import joining, launching, links, merging, names, timezones, usernamespaces
from sampan.engine.containerstore import Container
from sampan.engine.images import ImageService
from sampan.engine.limits import host_limits
from sampan.engine.runner import Runner, new_state
from sampan.engine.signals import signal_number
from sampan.engine.volumefill import VolumeFiller
from sampan.errors import InvalidArgument, NotFound
from sampan.ids import ContainerId, new_id, short_id
from sampan.image import platforms
from sampan.runtime.plan import host_facts, left_out
from sampan.spec.docker_api.container import Config, CreateRequest, CreateResponse, HostConfig
from sampan.spec.oci_image import ContainerConfig
from sampan.state.containers import ContainerRow


class Base(NamedTuple):
    """What a container stands on."""

    image_id: str
    """Empty: no image."""
    chain_id: ChainId | None
    config: ContainerConfig
    """What the request leaves open."""


class Creator:
    """See the module."""

    def __init__(self, runner: Runner, images: ImageService, filler: VolumeFiller, defaults: merging.ContainerDefaults) -> None:
        self._runner = runner
        self._containers = runner.containers
        self._mounts = runner.mounts
        self._images = images
        self._filler = filler
        self._defaults = defaults

    async def create(self, name: str, request: CreateRequest, platform: str) -> CreateResponse:
        """Make a container. NotFound: no such image. Conflict: name in use. InvalidArgument, NotImplementedYet: see engine/merging.py."""
        name = name.removeprefix("/")
        if name and not names.VALID.fullmatch(name):
            raise InvalidArgument(f"Invalid container name ({name}), only {names.ALLOWED} are allowed")
        if name:
            self._containers.check_name(name)
        if not request.image:
            raise InvalidArgument("no image specified") if not request.cmd else NotFound("No such image: ")
        image = self._images.resolve(request.image)
        problem = platforms.mismatch(request.image, image, platforms.wanted(platform) if platform else None)
        if problem:
            raise NotFound(problem)
        base = Base(image.id, image.chain_id, image.config.config or ContainerConfig())
        container, warnings = await self.create_on(base, name, request)
        return CreateResponse(id=container.id, warnings=warnings)

    async def create_on(
        self, base: Base, name: str, request: CreateRequest, container_id: ContainerId | None = None
    ) -> tuple[Container, list[str]]:
        """Make a container on layers that are there, and warnings. name "": a made-up one. container_id: None: a new one.

        Raises InvalidArgument, NotImplementedYet.
        """
        container_id = container_id or ContainerId(new_id())
        config, host, warnings = self._merged(base, request, container_id)
        mounts = self._mounts.wanted(config, host)
        warnings.extend(launching.SecurityOptions(host.security_opt or []).ignored(has_apparmor=host_facts().apparmor))
        timezones.check(host.timezone)
        launching.check_capabilities(host, host_facts().capabilities)
        warnings.extend(left_out(launching.capability_names(host), host_facts()))
        if config.stop_signal and not (config.stop_signal.isdecimal() and len(config.stop_signal) < 10):  # any number, as in docker
            signal_number(config.stop_signal)
        row = ContainerRow(
            id=container_id,
            name=name or names.made_up_name(lambda word: self._containers.holder_of(word) is not None),
            created=self._runner.clock.now_ns(),
            image_id=base.image_id,
            image_name=request.image,
            chain_id=base.chain_id,
            config=b"",
            host_config=b"",
            networking=b"",
            mounts=None,
            state=new_state(host.console_size),
        )
        container = Container(row, config, links.resolved(host, self._containers), merging.merge_networking(request.networking_config))
        self._runner.logs.check(container)
        self._runner.network.check(container)
        try:
            container.mounts = self._mounts.claim(container_id, mounts)
            await self._make(container, base.chain_id)
        except BaseException:
            self._mounts.abandon(container_id)
            raise
        self._mounts.owned(container)
        self._runner.events.publish(container, "create")
        return container, warnings

    def _merged(self, base: Base, request: CreateRequest, container_id: ContainerId) -> tuple[Config, HostConfig, list[str]]:
        """What request, image and daemon come to, and warnings. Raises InvalidArgument, NotImplementedYet."""
        asked = request.host_config or HostConfig()
        of_host = asked.network_mode == "host" or asked.uts_mode == "host"
        config = merging.merge_config(request, base.config, os.uname().nodename if of_host else short_id(container_id))
        host, warnings = merging.merge_host_config(request, config, defaults=self._defaults, limits=host_limits())
        host = msgspec.structs.replace(joining.resolved(host, self._containers), runtime=self._runner.runtimes.chosen(host.runtime))
        remapped = self._runner.userns.maps_of(host) is not None
        self._runner.runtimes.check(host, remapped=remapped)
        if remapped:
            usernamespaces.check(host)
        return config, host, warnings

    async def _make(self, container: Container, chain_id: ChainId | None) -> None:
        """Directory, snapshot, volumes' content, row: undone in reverse when one fails; a kill in between leaves what repair finds."""
        directory = self._runner.paths.container(container.id)
        asked = merging.storage_size(container.host_config.storage_opt or {})
        size = self._defaults.storage_size or None if asked is None else asked
        try:
            with making("the container's directory"):
                os.makedirs(f"{directory}/log", 0o710)
            self._runner.snapshots.prepare(container.id, chain_id, size)
            await self._filler.fill(container)
            self._containers.add(container)
        except BaseException:
            self._runner.snapshots.remove(container.id)
            self._runner.hooks.discarded()
            for path in (f"{directory}/log", directory):
                with suppress(OSError):
                    os.rmdir(path)
            raise
