"""The only place where the engine's objects meet: made by hand, in the order of the layers, closed in reverse."""

import logging
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

import msgspec

from sampan.api.app import App
from sampan.api.server import ApiServer
from sampan.api.services import Services
from sampan.clock import SystemClock
from sampan.content.partial import PartialBlobs
from sampan.daemon.config import DaemonConfig, cgroup_parent, engine_cgroup
from sampan.daemon.readopt import Readopter, close_all
from sampan.daemon.restore import Restorer
from sampan.daemon.shutdown import stop_all
from sampan.digest import ImageId
from sampan.engine.attach import AttachService
from sampan.engine.bootstrap import BootstrapService
from sampan.engine.commit import CommitService
from sampan.engine.containers import ContainerDefaults, ContainerService
from sampan.engine.exec import ExecService
from sampan.engine.files import FileService
from sampan.engine.image_archives import ImageArchives
from sampan.engine.image_removal import ImageUser
from sampan.engine.imagemounts import ImageMounts
from sampan.engine.images import ImageService
from sampan.engine.launching import command_of
from sampan.engine.networks import DnsDefaults, NetworkService
from sampan.engine.pull import PullService, PullSettings
from sampan.engine.registry import Container, Containers
from sampan.engine.runner import Paths, Runner
from sampan.engine.system import SystemFacts, SystemService
from sampan.engine.trees import Trees
from sampan.errors import EngineError
from sampan.events.bus import EventBus
from sampan.image.store import ImageStore
from sampan.logs import options
from sampan.network.bridge import BridgeNetwork, BridgeSettings
from sampan.runtime.client import KeeperClient, Link, SupervisorClient
from sampan.runtime.protocol import Message
from sampan.runtime.spawning import spawn_keeper
from sampan.snapshot import probe
from sampan.snapshot.erofs import ErofsLayers
from sampan.snapshot.formats import LayerFormat
from sampan.snapshot.store import LayeredSnapshots
from sampan.state.containers import ContainerRepository, MetaRepository
from sampan.state.database import Database
from sampan.worker.client import WorkerPool

log = logging.getLogger(__name__)


class EngineParts(msgspec.Struct, frozen=True):
    """What main needs of the graph."""

    server: ApiServer
    containers: Containers
    runner: Runner
    service: ContainerService


async def _bridge(config: DaemonConfig, stack: AsyncExitStack) -> BridgeNetwork | None:
    """The default bridge network, started; None when it is switched off or this host cannot have it."""
    if config.bridge == "none":
        return None
    bridge = BridgeNetwork(
        BridgeSettings(
            bridge=config.bridge, bip=config.bip, fixed_cidr=config.fixed_cidr, mtu=config.mtu, icc=config.icc, ip_masq=config.ip_masq,
            ip_forward=config.ip_forward, iptables=config.iptables, ip=config.ip, userland_proxy=config.userland_proxy,
            owner=config.exec_root,
        )
    )  # fmt: skip
    try:
        await bridge.start()
    except EngineError as error:
        log.warning("containers can use the networks host and none only: %s", error.message)
        return None
    stack.push_async_callback(bridge.stop, remove=False)
    return bridge


def _snapshots(config: DaemonConfig, paths: Paths, database: Database, workers: WorkerPool) -> LayeredSnapshots:
    """The snapshot store with the driver that works here, or that was asked for. Raises SystemFailure."""
    wanted = "overlay2" if config.storage_driver == "overlay" else config.storage_driver
    driver, status, missing = probe.choose(paths.data_root, wanted)
    if missing and not wanted:
        log.info("storage driver overlay2: %s", missing)

    def more(empty: Path) -> list[LayerFormat]:
        return [ErofsLayers(paths.data_root / "erofs", empty, workers, missing=missing)]

    return LayeredSnapshots(paths.data_root, database, workers, driver=driver, more=more, status=status)


async def wire(config: DaemonConfig, stack: AsyncExitStack, keeper_process: Popen[bytes] | None = None) -> EngineParts:
    """Make every part; stack closes them. keeper_process: the keeper that is coming up, if it is ours.

    Raises EngineError, OSError when a part cannot be had.
    """
    clock = SystemClock()
    paths = Paths(data_root=Path(config.data_root), exec_root=Path(config.exec_root), cgroup_parent=cgroup_parent(config))
    database = Database(paths.data_root / "state.db")
    stack.callback(database.close)
    processes = [] if keeper_process is None else [keeper_process]

    async def revive() -> None:
        # One at a time; one that met the lock of a keeper just being killed has ended again. The keeper finds or starts the supervisor.
        if all(process.poll() is not None for process in processes):
            processes[:] = [spawn_keeper(config.exec_root, engine_cgroup(config))]

    meta = MetaRepository(database)
    events = EventBus(clock)
    containers = Containers(ContainerRepository(database))
    containers.load()
    workers = WorkerPool(python=sys.executable)
    stack.push_async_callback(workers.stop)
    snapshots = _snapshots(config, paths, database, workers)
    stack.push_async_callback(snapshots.close)

    def users_of(image: ImageId) -> list[ImageUser]:
        return [ImageUser(item.id, item.is_running) for item in containers if item.image_id == image]

    store = ImageStore(database)
    images = ImageService(store, snapshots, events, clock, in_use=users_of)
    archives = ImageArchives(images, store, snapshots, workers, paths.data_root / "tmp")
    stack.push_async_callback(images.settle)

    def attributes(container: Container) -> dict[str, str]:
        if container.host_config.log_config.type == "none":
            return {}
        info = options.LogInfo(
            container_id=container.id,
            name=container.name,
            image_id=container.image_id,
            image_name=container.image_name,
            command=" ".join(command_of(container.config)),
            labels=container.config.labels or {},
            env=tuple(container.config.env or ()),
        )
        return options.attributes(container.host_config.log_config.config or {}, info)

    def check_logs(container: Container) -> None:
        chosen = container.host_config.log_config
        options.validate(chosen.type, chosen.config or {})
        attributes(container)

    def log_wire(container: Container) -> dict[str, Any]:
        chosen, directory = container.host_config.log_config, paths.container(container.id)
        return options.log_settings(chosen.type, chosen.config or {}, container.id, directory, attributes(container))

    handlers: list[Restorer] = []

    def on_event(message: Message, fds: dict[str, int]) -> None:
        if handlers:
            handlers[0].event(message, fds)
        else:
            close_all(fds)

    async def on_hello(hello: Message) -> None:
        if handlers:
            handlers[0].hello(hello)
            # Not awaited: it makes requests on the very link that is coming up.
            runner.spawn(readopter.readopt())

    keeper_link = Link(f"{config.exec_root}/keeper.sock", on_event, on_hello, revive=revive)
    supervisor_link = Link(f"{config.exec_root}/supervisor.sock", on_event, on_hello)
    supervisor, keeper = SupervisorClient(supervisor_link), KeeperClient(keeper_link)
    dns = DnsDefaults(config.dns, config.dns_search, config.dns_opts)
    network = NetworkService(containers, meta, await _bridge(config, stack), dns)
    await network.reconcile()
    runner = Runner(containers, snapshots, supervisor, keeper, network, events, clock, paths)
    runner.log_settings = log_wire
    execs = ExecService(containers, runner)
    attach = AttachService(containers, runner, attributes)
    runner.on_started = attach.started
    runner.on_discarded = images.collect
    defaults = ContainerDefaults(
        log_driver=config.log_driver,
        log_opts=dict(config.log_opts),
        shm_size=config.default_shm_size,
        init=config.init,
        no_new_privileges=config.no_new_privileges,
    )

    def log_path(container: Container) -> str:
        return options.log_path(container.host_config.log_config.type, container.id, paths.container(container.id))

    service = ContainerService(containers, runner, images, clock, defaults, check_logs, log_path)
    trees = Trees(snapshots, workers, runner.own_mounts)
    runner.quiesce = trees.quiesce
    files = FileService(containers, trees, runner.publish)
    bootstraps = BootstrapService(images, workers, paths.data_root / "bootstrap")
    bootstraps.repair()
    pull_settings = PullSettings(
        mirrors=config.registry_mirrors,
        insecure_registries=config.insecure_registries,
        max_concurrent_downloads=config.max_concurrent_downloads,
        max_download_attempts=config.max_download_attempts,
    )
    pulls = PullService(images, store, snapshots, PartialBlobs(paths.data_root), pull_settings, unpackers=workers.parallel)
    image_mounts = ImageMounts(images, snapshots, paths.data_root)
    image_mounts.restore()
    commits = CommitService(containers, images, runner, trees, clock)
    readopter = Readopter(containers, runner, execs)
    restorer = Restorer(containers, runner, execs, readopter)
    handlers.append(restorer)
    await keeper_link.open()
    stack.push_async_callback(keeper_link.close)
    await supervisor_link.open()
    stack.push_async_callback(supervisor_link.close)
    stop = None if config.live_restore else partial(stop_all, service, containers, runner, config.shutdown_timeout)
    await restorer.restore(stop)
    for line in images.repair([container.id for container in containers]):
        log.warning("%s", line)
    facts = SystemFacts(
        data_root=config.data_root,
        log_driver=config.log_driver,
        labels=config.labels,
        debug=config.debug,
        experimental=config.experimental,
        live_restore=config.live_restore,
    )
    system = SystemService(containers, images, snapshots, events, meta, facts, lambda: network.warnings)
    services = Services(
        containers=service, execs=execs, attach=attach, files=files, commits=commits, bootstraps=bootstraps, pulls=pulls,
        image_mounts=image_mounts,
        images=images, archives=archives,
        networks=network, system=system,
    )  # fmt: skip
    return EngineParts(ApiServer(App(services).resolve), containers, runner, service)
