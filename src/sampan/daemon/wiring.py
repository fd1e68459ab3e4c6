"""The only place where the engine's objects meet: made by hand, in the order of the layers, closed in reverse."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from subprocess import Popen

import msgspec

from sampan.api.app import App
from sampan.api.server import ApiServer
from sampan.api.services import Services
from sampan.clock import Clock, SystemClock
from sampan.content.partial import PartialBlobs
from sampan.daemon import remapping, spareroom
from sampan.daemon.config import DaemonConfig, cgroup_parent, log_level, pool_sizes
from sampan.daemon.leanprocesses import LeanProcesses
from sampan.daemon.loopwatch import LoopWatch
from sampan.daemon.metrics import EngineMetrics, Watched
from sampan.daemon.processevents import ProcessEvents
from sampan.daemon.readopt import Readopter
from sampan.daemon.restore import Restorer
from sampan.daemon.shutdown import Shutdown
from sampan.digest import ImageId
from sampan.engine.attach import AttachService
from sampan.engine.background import Background
from sampan.engine.bootstrap import BootstrapService
from sampan.engine.build import BuildParts, BuildService
from sampan.engine.buildbases import Bases
from sampan.engine.buildcache import BuildCachePruning
from sampan.engine.buildcopy import Copies
from sampan.engine.buildmounts import CacheDirectories
from sampan.engine.buildrun import StepContainers
from sampan.engine.buildsession import BuildSessions
from sampan.engine.buildspool import BuildSpool
from sampan.engine.cacheentries import CacheEntries
from sampan.engine.check import CheckService, LayerCheck, database_look, plain_look
from sampan.engine.commit import CommitService
from sampan.engine.container_check import ContainerCheck
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerlogs import ContainerLogs
from sampan.engine.containermounts import ContainerMounts
from sampan.engine.containers import ContainerService
from sampan.engine.containerstore import Container, Containers
from sampan.engine.control import Control
from sampan.engine.disk_usage import DiskUsageService
from sampan.engine.exec import ExecService
from sampan.engine.files import FileService
from sampan.engine.image_archives import ImageArchives
from sampan.engine.image_removal import ImageUser
from sampan.engine.imagemounts import ImageMounts
from sampan.engine.images import ImageService
from sampan.engine.imports import ImportService
from sampan.engine.launching import LaunchSettings
from sampan.engine.login import LoginService
from sampan.engine.logshipping import LogShipping
from sampan.engine.merging import ContainerDefaults
from sampan.engine.network_check import NetworkCheck
from sampan.engine.networkfiles import DnsDefaults
from sampan.engine.networks import NetworkDefaults, NetworkService, open_networks
from sampan.engine.networkstore import NetworkStore
from sampan.engine.paths import Paths
from sampan.engine.probing import HealthMonitor
from sampan.engine.pull import PullService
from sampan.engine.push import PushService
from sampan.engine.registries import Registries, RegistrySettings
from sampan.engine.remote import RemoteService
from sampan.engine.runner import RunHooks, Runner
from sampan.engine.sampling import Sampler
from sampan.engine.sandboxes import Sandboxes
from sampan.engine.stats import StatsService
from sampan.engine.system import SystemFacts, SystemService
from sampan.engine.trees import Trees
from sampan.engine.usernamespaces import UserNamespaces
from sampan.engine.volumefill import VolumeFiller
from sampan.engine.volumes import VolumeService
from sampan.events.bus import EventBus
from sampan.findings import Finding
from sampan.image.store import ImageStore
from sampan.network import bridge, firewall, ipam
from sampan.network.exposure import Exposure
from sampan.network.proxy import UserlandProxy, ipv6_is_usable
from sampan.network.rules import Rules
from sampan.proxies import Proxies
from sampan.runtime.cgroups import host_layout
from sampan.snapshot import probe
from sampan.snapshot.erofs import ErofsLayers
from sampan.snapshot.formats import LayerFormat
from sampan.snapshot.store import LayeredSnapshots
from sampan.spec.docker_api.container import Ulimit
from sampan.state.blobs import BlobSourceRepository
from sampan.state.buildcache import BuildCacheRepository
from sampan.state.containers import ContainerRepository, MetaRepository
from sampan.state.database import Database
from sampan.state.networks import NetworkRepository
from sampan.state.volumes import VolumeRepository
from sampan.volume.local import LocalVolumes
from sampan.volume.store import VolumeStore
from sampan.worker.client import WorkerPool

log = logging.getLogger(__name__)


class EngineParts(msgspec.Struct, frozen=True):
    """What main needs of the graph."""

    server: ApiServer
    shutdown: Shutdown
    take_over: Callable[[DaemonConfig], None]
    """Have a configuration's reloadable settings in force."""
    publish_reload: Callable[[Mapping[str, str]], None]
    metrics: EngineMetrics


class _Network(msgspec.Struct, frozen=True):
    """What makes networks out of the host's kernel."""

    store: NetworkStore
    rules: Rules
    places: Sandboxes
    defaults: NetworkDefaults


async def _network(
    config: DaemonConfig, stack: AsyncExitStack, database: Database, containers: Containers, clock: Clock, paths: Paths
) -> _Network:
    """All networks up, with the rules before them, and the running containers' places taken again."""
    rules = Rules(firewall.table_of(config.bridge, config.exec_root), forward=config.ip_forward)
    proxy = UserlandProxy(config.exec_root) if config.userland_proxy and ipv6_is_usable() else None
    exposure = Exposure(rules, proxy)
    store = NetworkStore(NetworkRepository(database), MetaRepository(database))
    dns = DnsDefaults(config.dns, config.dns_search, config.dns_opts, config.host_gateway_ips)
    places = Sandboxes(containers, store, exposure, dns, paths)
    if config.ip_forward:
        bridge.sysctl("net/ipv4/ip_forward", "1")
    pools = ipam.Pools(pool_sizes(config), seed=store.predefined_id("none"))
    stack.push_async_callback(rules.stop, remove=False)
    stack.push_async_callback(exposure.stop)
    stack.push_async_callback(places.stop)
    default = _default_bridge(config, rules, pools)
    now = clock.now_ns()
    for text in await open_networks(store, rules, default, config.exec_root, config.ip, now, filtered=config.iptables):
        log.warning("%s", text)
    await places.reconcile()
    return _Network(store, rules, places, NetworkDefaults(pools, config.default_network_opts, config.ip))


def _default_bridge(config: DaemonConfig, rules: Rules, pools: ipam.Pools) -> bridge.Bridge | None:
    """The default bridge network; None when it is switched off."""
    if config.bridge == "none":
        return None
    return bridge.Bridge(
        bridge.BridgeSettings(
            bridge=config.bridge, bip=config.bip, fixed_cidr=config.fixed_cidr, mtu=config.mtu, icc=config.icc, ip_masq=config.ip_masq,
            ip=config.ip, ipv6=config.ipv6, bip6=config.bip6, fixed_cidr6=config.fixed_cidr_v6, owner=config.exec_root,
        ),
        rules,
        pools,
    )  # fmt: skip


def _snapshots(config: DaemonConfig, paths: Paths, database: Database, workers: WorkerPool) -> LayeredSnapshots:
    """The snapshot store with the driver that works here, or that was asked for. Raises SystemFailure."""
    wanted = "overlay2" if config.storage_driver == "overlay" else config.storage_driver
    driver, status, missing = probe.choose(paths.data_root, wanted)
    if missing and not wanted:
        log.info("storage driver overlay2: %s", missing)

    def more(empty: Path) -> list[LayerFormat]:
        return [ErofsLayers(paths.data_root / "erofs", empty, workers, missing=missing)]

    return LayeredSnapshots(paths.data_root, database, workers, driver=driver, more=more, status=status)


class _ImageParts(msgspec.Struct, frozen=True):
    """What has to do with images, on one snapshot store."""

    snapshots: LayeredSnapshots
    images: ImageService
    archives: ImageArchives
    store: ImageStore
    registries: Registries
    pulls: PullService
    pushes: PushService
    logins: LoginService
    remotes: RemoteService
    bootstraps: BootstrapService
    mounts: ImageMounts


def _image_parts(
    config: DaemonConfig,
    stack: AsyncExitStack,
    paths: Paths,
    database: Database,
    workers: WorkerPool,
    containers: Containers,
    events: EventBus,
) -> _ImageParts:
    """Raises SystemFailure, OSError."""
    snapshots = _snapshots(config, paths, database, workers)
    stack.push_async_callback(snapshots.close)

    def users_of(image: ImageId) -> list[ImageUser]:
        return [ImageUser(item.id, item.is_running) for item in containers if item.image_id == image]

    store = ImageStore(database)
    images = ImageService(store, snapshots, events, SystemClock(), in_use=users_of)
    stack.push_async_callback(images.settle)
    registries = Registries(_registry_settings(config), PartialBlobs(paths.data_root), BlobSourceRepository(database), SystemClock())
    images.spare = registries.partials.drop_idle
    bootstraps = BootstrapService(images, workers, paths.data_root / "bootstrap")
    bootstraps.repair()
    images.spare_all = bootstraps.drop_cache
    mounts = ImageMounts(images, snapshots, paths.data_root)
    mounts.restore()
    return _ImageParts(
        snapshots=snapshots,
        images=images,
        archives=ImageArchives(images, store, snapshots, workers, paths.data_root / "tmp"),
        store=store,
        registries=registries,
        pulls=PullService(images, store, snapshots, registries, unpackers=workers.parallel),
        pushes=PushService(images, store, snapshots, workers, registries, paths.data_root / "tmp"),
        logins=LoginService(registries),
        remotes=RemoteService(registries),
        bootstraps=bootstraps,
        mounts=mounts,
    )


def _registry_settings(config: DaemonConfig) -> RegistrySettings:
    proxies = {"http-proxy": config.http_proxy, "https-proxy": config.https_proxy, "no-proxy": config.no_proxy, **config.proxies}
    return RegistrySettings(
        mirrors=config.registry_mirrors,
        mirrors_by_registry=config.mirrors,
        insecure_registries=config.insecure_registries,
        max_concurrent_downloads=config.max_concurrent_downloads,
        max_concurrent_uploads=config.max_concurrent_uploads,
        max_download_attempts=config.max_download_attempts,
        proxies=Proxies.of(os.environ, proxies),
    )


def _launches(config: DaemonConfig) -> LaunchSettings:
    return LaunchSettings(config.cpu_rt_period, config.cpu_rt_runtime, config.cdi_spec_dirs)


def _defaults(config: DaemonConfig) -> ContainerDefaults:
    return ContainerDefaults(
        log_driver=config.log_driver,
        log_opts=dict(config.log_opts),
        shm_size=config.default_shm_size,
        ipc_mode=config.default_ipc_mode,
        cgroupns_mode=config.default_cgroupns_mode or ("private" if host_layout().version == 2 else "host"),
        ulimits=[Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in config.default_ulimits.values()],
        init=config.init,
        no_new_privileges=config.no_new_privileges,
        timezone=config.default_timezone,
    )


def _facts(config: DaemonConfig, userns: bool) -> SystemFacts:
    return SystemFacts(
        data_root=config.data_root,
        log_driver=config.log_driver,
        labels=config.labels,
        cdi_spec_dirs=config.cdi_spec_dirs,
        registries=_registry_settings(config),
        debug=config.debug,
        live_restore=config.live_restore,
        userns_remap=userns,
        filtered=config.iptables,
    )


def _checks(parts: _ImageParts, database: Database, containers: Containers, runner: Runner, networks: NetworkCheck) -> CheckService:
    layers = LayerCheck(parts.images, parts.store, parts.snapshots, containers)

    def of_images() -> list[Finding]:
        parts.mounts.restore()  # what was unmounted by others keeps layers until then
        return [*parts.registries.partials.look(), *parts.bootstraps.look()]

    looks = [plain_look(of_images), layers.look, ContainerCheck(containers, runner).look, networks.look, database_look(database)]
    return CheckService(looks, layers)


async def wire(config: DaemonConfig, stack: AsyncExitStack, watch: LoopWatch, keeper_process: Popen[bytes] | None = None) -> EngineParts:
    """Make every part; stack closes them. watch: shown in metrics. keeper_process: the keeper that is coming up, if it is ours.

    Raises EngineError, OSError when a part cannot be had.
    """
    clock = SystemClock()
    maps = remapping.maps_of(config.userns_remap)
    paths = Paths(data_root=Path(config.data_root), exec_root=Path(config.exec_root), cgroup_parent=cgroup_parent(config))
    spareroom.use(paths.data_root)
    database = Database(paths.data_root / "state.db")
    stack.callback(database.close)
    meta = MetaRepository(database)
    events = EventBus(clock)
    containers = Containers(ContainerRepository(database))
    containers.load()
    workers = WorkerPool(python=sys.executable)
    stack.push_async_callback(workers.stop)
    parts = _image_parts(config, stack, paths, database, workers, containers, events)
    images, snapshots = parts.images, parts.snapshots
    published = ContainerEvents(events)
    kernel = await _network(config, stack, database, containers, clock, paths)
    lean = LeanProcesses(config, keeper_process)
    keeper, supervisor = lean.keeper, lean.supervisor
    background, logs = Background(), ContainerLogs(paths)
    volumes = VolumeStore(VolumeRepository(database), LocalVolumes(paths.data_root, workers), clock)
    volumes.load()
    users = UserNamespaces(maps, supervisor, containers)
    mounts = ContainerMounts(containers, volumes, images, snapshots, events, background, users, os.path.realpath(paths.data_root))
    mounts.restore()
    runner = Runner(
        containers,
        snapshots,
        supervisor,
        keeper,
        kernel.places,
        mounts,
        published,
        background,
        logs,
        clock,
        paths,
        _launches(config),
        users,
    )
    control = Control(containers, published, runner.layout, paths)
    execs = ExecService(containers, supervisor, published, background, paths)
    health = HealthMonitor(containers, execs, published, clock)
    stack.push_async_callback(health.close)
    attach = AttachService(containers, keeper, supervisor, logs, published, paths)
    shipping = LogShipping(containers, keeper, logs, paths)
    stack.push_async_callback(shipping.close)
    trees = Trees(snapshots, workers, mounts, runner.own_mounts)
    filler = VolumeFiller(trees, volumes)
    service = ContainerService(
        containers, runner, control, images, snapshots, published, logs, clock, _defaults(config), mounts, filler.fill, health
    )
    sampler = Sampler(containers, runner.layout, paths, clock)
    stack.push_async_callback(sampler.close)
    volume_service = VolumeService(volumes, events, background)

    async def started(container: Container) -> None:
        await attach.started(container)
        await shipping.begin(container)
        health.begin(container)

    def ended(container: Container) -> None:
        health.end(container)
        execs.container_ended(container)

    runner.hooks = RunHooks(
        started=started,
        ended=ended,
        auto_remove=service.auto_remove,
        quiesce=trees.quiesce,
        give_to_user=filler.give_to_user,
        discarded=images.collect,
    )
    spool = BuildSpool(paths.data_root / "build", snapshots.empty, workers, background)
    cached, directories = BuildCacheRepository(database), CacheDirectories(paths.data_root / "build" / "mounts")
    images.hidden = cached.hidden
    entries = CacheEntries(parts.store, lambda: {item.image_id for item in containers}, cached, directories, workers)
    steps = StepContainers(service, runner, control, attach)
    builds = BuildService(
        BuildParts(
            images=images, spool=spool, bases=Bases(images, parts.pulls), copies=Copies(images, snapshots, workers, spool.empty),
            containers=steps, trees=trees, directories=directories,
            cached=cached, registries=parts.registries, clock=clock, background=background,
            pruning=BuildCachePruning(images, parts.store, snapshots, cached, directories, entries, workers, clock), entries=entries,
            sessions=BuildSessions(), events=events,
        )
    )  # fmt: skip
    process_events = ProcessEvents(containers, runner, execs, background, keeper, supervisor)
    readopter = Readopter(containers, keeper, supervisor, logs, execs)
    network = NetworkService(
        kernel.store, kernel.places, containers, kernel.rules, published, paths, clock, readopter.hold, kernel.defaults
    )  # fmt: skip
    restorer = Restorer(containers, runner, control, background, process_events, readopter, health, shipping)
    await lean.open(process_events, lambda: background.spawn(readopter.readopt()), stack)
    shutdown = Shutdown(containers, service, control, background, keeper, supervisor, config.shutdown_timeout)
    await restorer.restore(partial(lean.renew, readopter.settled), None if config.live_restore else shutdown.stop_all)
    await kernel.places.resume()
    for line in images.repair([container.id for container in containers if container.state.status != "removing"]):
        log.warning("%s", line)
    background.spawn(volumes.local.empty_trash())
    for container_id in spool.left():
        if (container := containers.get(container_id)) is not None:
            await steps.remove_left(container)
    background.spawn(spool.repair())
    spareroom.keep(paths.data_root)
    system = SystemService(
        containers,
        images,
        snapshots,
        events,
        meta,
        _facts(config, maps is not None),
        lambda: [*network.warnings, *parts.registries.warnings()],
    )
    services = Services(
        containers=service,
        stats=StatsService(containers, sampler),
        execs=execs,
        attach=attach,
        files=FileService(containers, trees, published.publish),
        commits=CommitService(containers, images, control, published, trees, clock),
        bootstraps=parts.bootstraps,
        builds=builds,
        pulls=parts.pulls,
        pushes=parts.pushes,
        logins=parts.logins,
        remotes=parts.remotes,
        imports=ImportService(images, parts.registries),
        image_mounts=parts.mounts,
        images=images,
        archives=parts.archives,
        networks=network,
        volumes=volume_service,
        system=system,
        disk_usage=DiskUsageService(
            images, service, volume_service, snapshots, paths, entries, [parts.registries.partials.disk_usage, parts.bootstraps.disk_usage]
        ),
        checks=_checks(parts, database, containers, runner, NetworkCheck(kernel.store, kernel.places, containers, config.exec_root)),
    )

    def take_over(wanted: DaemonConfig) -> None:
        logging.getLogger().setLevel(log_level(wanted))
        parts.registries.settings = _registry_settings(wanted)
        system.facts = _facts(wanted, maps is not None)
        shutdown.seconds = wanted.shutdown_timeout

    metrics = EngineMetrics()
    server = ApiServer(App(services, metrics.observe if config.metrics_addr else None).resolve)
    if config.metrics_addr:
        metrics.watch(Watched(containers, events, health, watch, lambda: server.connections), await system.info())
    return EngineParts(server, shutdown, take_over, system.publish_reload, metrics)
