"""The only place, with latewiring.py, where the engine's objects meet: made by hand, in the order of the layers, closed in reverse."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING

import msgspec

from sampan.api.app import App
from sampan.api.server import ApiServer
from sampan.api.services import Services
from sampan.clock import SystemClock
from sampan.daemon import remapping, runtimes, spareroom, storageopts
from sampan.daemon.config import DaemonConfig, cgroup_parent, log_level, pool_sizes
from sampan.daemon.late import Late, stand_in
from sampan.daemon.leanprocesses import LeanProcesses
from sampan.daemon.loopwatch import LoopWatch
from sampan.daemon.metrics import EngineMetrics, Watched
from sampan.daemon.parts import Base, ImageParts, NetworkParts, RunParts
from sampan.daemon.processevents import ProcessEvents
from sampan.daemon.readopt import Readopter
from sampan.daemon.restore import Restorer
from sampan.daemon.shutdown import Shutdown
from sampan.digest import ImageId
from sampan.engine import buildplaces
from sampan.engine.attach import AttachService
from sampan.engine.background import Background
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerlogs import ContainerLogs
from sampan.engine.containermounts import ContainerMounts
from sampan.engine.containers import ContainerService
from sampan.engine.containerstore import Container, Containers
from sampan.engine.control import Control
from sampan.engine.creating import Creator
from sampan.engine.exec import ExecService
from sampan.engine.image_removal import ImageUser
from sampan.engine.imagemounts import ImageMounts
from sampan.engine.images import ImageService
from sampan.engine.launching import LaunchSettings
from sampan.engine.logcompression import LogCompression
from sampan.engine.logshipping import LogShipping
from sampan.engine.merging import ContainerDefaults
from sampan.engine.networkfiles import DnsDefaults
from sampan.engine.networks import NetworkDefaults, NetworkService, open_networks
from sampan.engine.networkstore import NetworkStore
from sampan.engine.paths import Paths
from sampan.engine.probing import HealthMonitor
from sampan.engine.registrysettings import RegistrySettings
from sampan.engine.runner import Runner
from sampan.engine.runs import RunHooks
from sampan.engine.runtimes import Runtimes
from sampan.engine.sandboxes import Sandboxes
from sampan.engine.system import SystemFacts, SystemService
from sampan.engine.trees import Trees
from sampan.engine.usernamespaces import UserNamespaces
from sampan.engine.volumefill import VolumeFiller
from sampan.engine.volumes import VolumeService
from sampan.errors import Conflict, SystemFailure
from sampan.events.bus import EventBus
from sampan.image.store import ImageStore
from sampan.network import bridge, firewall, ipam
from sampan.network.exposure import Exposure
from sampan.network.proxy import UserlandProxy, ipv6_is_usable
from sampan.network.rules import Rules
from sampan.proxies import Proxies
from sampan.runtime.cgroups import host_layout
from sampan.runtime.plan import UserMaps
from sampan.snapshot import probe
from sampan.snapshot.erofs import ErofsLayers
from sampan.snapshot.formats import LayerFormat
from sampan.snapshot.store import LayeredSnapshots
from sampan.spec.docker_api.container import Ulimit
from sampan.state.buildcache import BuildCacheRepository
from sampan.state.containers import ContainerRepository, MetaRepository
from sampan.state.database import Database
from sampan.state.networks import NetworkRepository
from sampan.state.volumes import VolumeRepository
from sampan.volume.local import LocalVolumes
from sampan.volume.store import VolumeStore
from sampan.worker.client import WorkerPool

if TYPE_CHECKING:
    from sampan.daemon.latewiring import LateParts

log = logging.getLogger(__name__)


class EngineParts(msgspec.Struct, frozen=True):
    """What main needs of the graph."""

    server: ApiServer
    shutdown: Shutdown
    take_over: Callable[[DaemonConfig], None]
    """Have a configuration's reloadable settings in force."""
    publish_reload: Callable[[Mapping[str, str]], None]
    metrics: EngineMetrics
    late: Callable[[], object]
    """Makes what is made when it is first asked for, if that was not yet."""


def _close_to_others(data_root: Path) -> None:
    """Nobody but root gets in, be it a directory that was there before us: containers leave set-user-ID files. Raises OSError."""
    data_root.mkdir(mode=0o710, parents=True, exist_ok=True)
    if os.stat(data_root).st_uid != os.geteuid():
        os.chown(data_root, os.geteuid(), os.getegid())
    if os.stat(data_root).st_mode & 0o7777 != 0o710:
        os.chmod(data_root, 0o710)


def _base(config: DaemonConfig, stack: AsyncExitStack) -> Base:
    """Raises SystemFailure, OSError."""
    clock = SystemClock()
    paths = Paths(data_root=Path(config.data_root), exec_root=Path(config.exec_root), cgroup_parent=cgroup_parent(config))
    spareroom.use(paths.data_root)
    _close_to_others(paths.data_root)
    database = Database(paths.data_root / "state.db")
    stack.callback(database.close)
    containers = Containers(ContainerRepository(database))
    containers.load()
    workers = WorkerPool(python=sys.executable)
    stack.push_async_callback(workers.stop)
    return Base(config, stack, paths, clock, database, EventBus(clock), containers, workers, Background())


async def _network_parts(base: Base) -> NetworkParts:
    """All networks up, with the rules before them, and the running containers' places taken again."""
    config, stack, database = base.config, base.stack, base.database
    rules = Rules(firewall.table_of(config.bridge, config.exec_root), forward=config.ip_forward)
    proxy = UserlandProxy(config.exec_root) if config.userland_proxy and ipv6_is_usable() else None
    exposure = Exposure(rules, proxy)
    store = NetworkStore(NetworkRepository(database), MetaRepository(database))
    dns = DnsDefaults(config.dns, config.dns_search, config.dns_opts, config.host_gateway_ips)
    places = Sandboxes(base.containers, store, exposure, dns, base.paths)
    if config.ip_forward:
        bridge.sysctl("net/ipv4/ip_forward", "1")
    pools = ipam.Pools(pool_sizes(config), seed=store.predefined_id("none"))
    stack.push_async_callback(rules.stop, remove=False)
    stack.push_async_callback(exposure.stop)
    stack.push_async_callback(places.stop)
    default = _default_bridge(config, rules, pools)
    now = base.clock.now_ns()
    for text in await open_networks(store, rules, default, config.exec_root, config.ip, now, filtered=config.iptables):
        log.warning("%s", text)
    await places.reconcile()
    return NetworkParts(store, rules, places, NetworkDefaults(pools, config.default_network_opts, config.ip))


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


def _snapshots(base: Base) -> LayeredSnapshots:
    """The snapshot store with the driver that works here, or that was asked for. Raises SystemFailure."""
    wanted = "overlay2" if base.config.storage_driver == "overlay" else base.config.storage_driver
    root = base.paths.data_root
    driver, status, missing = probe.choose(root, wanted)
    if missing and not wanted:
        log.info("storage driver overlay2: %s", missing)

    def more(empty: Path) -> list[LayerFormat]:
        return [ErofsLayers(root / "erofs", empty, base.workers, missing=missing)]

    snapshots = LayeredSnapshots(root, base.database, base.workers, driver=driver, more=more, status=status)
    if storageopts.default_size(base.config.storage_opts):
        try:
            snapshots.check_limits()
        except SystemFailure as error:
            raise SystemFailure(f"storage option overlay2.size is not supported: {error.message}") from None
    return snapshots


def _image_parts(base: Base) -> ImageParts:
    """Raises SystemFailure, OSError."""
    stack, paths, database = base.stack, base.paths, base.database
    snapshots = _snapshots(base)
    stack.push_async_callback(snapshots.close)

    def users_of(image: ImageId) -> list[ImageUser]:
        return [ImageUser(item.id, item.is_running) for item in base.containers if item.image_id == image]

    store = ImageStore(database)
    images = ImageService(store, snapshots, base.events, base.clock, in_use=users_of)
    stack.push_async_callback(images.settle)
    cached = BuildCacheRepository(database)
    images.hidden = cached.hidden
    mounts = ImageMounts(images, snapshots, paths.data_root)
    mounts.restore()
    return ImageParts(snapshots, images, store, cached, mounts)


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


def _defaults(config: DaemonConfig, cgroup_version: int) -> ContainerDefaults:
    """On cgroup v1 a privileged container sees all of the host's cgroups, whatever others see (moby adaptContainerSettings)."""
    cgroupns_mode = config.default_cgroupns_mode or ("private" if cgroup_version == 2 else "host")
    return ContainerDefaults(
        log_driver=config.log_driver,
        log_opts=dict(config.log_opts),
        shm_size=config.default_shm_size,
        ipc_mode=config.default_ipc_mode,
        cgroupns_mode=cgroupns_mode,
        privileged_cgroupns_mode=cgroupns_mode if cgroup_version == 2 else "host",
        ulimits=[Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in config.default_ulimits.values()],
        init=config.init,
        no_new_privileges=config.no_new_privileges,
        timezone=config.default_timezone,
        storage_size=storageopts.default_size(config.storage_opts),
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
        runtimes=runtimes.shown(config.runtimes),
        default_runtime=config.default_runtime or "runc",
        userns_remap=userns,
        filtered=config.iptables,
    )


def _run_parts(
    base: Base, images: ImageParts, network: NetworkParts, lean: LeanProcesses, maps: UserMaps | None, metrics: EngineMetrics
) -> RunParts:
    """Raises SystemFailure, OSError."""
    containers, paths, clock, background = base.containers, base.paths, base.clock, base.background
    keeper, supervisor, snapshots = lean.keeper, lean.supervisor, images.snapshots
    published, logs = ContainerEvents(base.events), ContainerLogs(paths)
    volumes = VolumeStore(VolumeRepository(base.database), LocalVolumes(paths.data_root, base.workers), clock)
    volumes.load()
    userns = UserNamespaces(maps, supervisor, containers)
    root = os.path.realpath(paths.data_root)
    mounts = ContainerMounts(containers, volumes, images.images, snapshots, base.events, background, userns, root)
    mounts.restore()
    settings = LaunchSettings(base.config.cpu_rt_period, base.config.cpu_rt_runtime, base.config.cdi_spec_dirs)
    oci = Runtimes(runtimes.settings(base.config.runtimes, base.config.default_runtime), paths)
    runner = Runner(
        containers, snapshots, supervisor, keeper, network.places, mounts, published, background, logs, clock, paths, settings, userns, oci
    )
    control = Control(containers, published, runner.layout, paths)
    execs = ExecService(containers, supervisor, published, background, paths, oci)
    health = HealthMonitor(containers, execs, published, clock)
    base.stack.push_async_callback(health.close)
    attach = AttachService(containers, keeper, supervisor, logs, published, paths)
    shipping = LogShipping(containers, keeper, logs, paths)
    base.stack.push_async_callback(shipping.close)
    compression = LogCompression(keeper, logs)
    base.stack.push_async_callback(compression.close)
    trees = Trees(snapshots, base.workers, mounts, runner.own_mounts)
    filler = VolumeFiller(trees, volumes, userns)
    creator = Creator(runner, images.images, filler, _defaults(base.config, host_layout().version))
    service = ContainerService(creator, runner, control, images.images, health)

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
        leave=compression.leave,
        give_to_user=filler.give_to_user,
        discarded=images.images.collect,
        network_took=metrics.network_took,
    )
    volume_service = VolumeService(volumes, base.events, background)
    return RunParts(creator, service, runner, control, execs, attach, health, shipping, compression, trees, volumes, volume_service)


async def _repair(base: Base, images: ImageParts, runs: RunParts) -> None:
    """Take up or away what a former sampand has left half done."""
    for line in images.images.repair([container.id for container in base.containers if container.state.status != "removing"]):
        log.warning("%s", line)
    base.background.spawn(runs.volumes.local.empty_trash())
    for container in base.containers:
        runs.compression.look(container)
    for container_id in buildplaces.containers(buildplaces.root(base.paths.data_root)):
        if base.containers.get(container_id) is not None:
            with suppress(Conflict):
                await runs.service.remove(container_id, force=True, volumes=True, link=False)


def _services(images: ImageParts, runs: RunParts, late: "Late[LateParts]", networks: NetworkService, system: SystemService) -> Services:
    """All of the API's."""
    return Services(
        containers=runs.service,
        execs=runs.execs,
        attach=runs.attach,
        image_mounts=images.mounts,
        images=images.images,
        networks=networks,
        volumes=runs.volume_service,
        system=system,
        stats=stand_in(lambda: late().stats),
        files=stand_in(lambda: late().files),
        commits=stand_in(lambda: late().commits),
        bootstraps=stand_in(lambda: late().bootstraps),
        builds=stand_in(lambda: late().builds),
        pulls=stand_in(lambda: late().pulls),
        pushes=stand_in(lambda: late().pushes),
        logins=stand_in(lambda: late().logins),
        remotes=stand_in(lambda: late().remotes),
        imports=stand_in(lambda: late().imports),
        archives=stand_in(lambda: late().archives),
        disk_usage=stand_in(lambda: late().disk_usage),
        checks=stand_in(lambda: late().checks),
    )


async def wire(config: DaemonConfig, stack: AsyncExitStack, watch: LoopWatch, keeper_process: Popen[bytes] | None = None) -> EngineParts:
    """Make every part; stack closes them. watch: shown in metrics. keeper_process: the keeper that is coming up, if it is ours.

    Raises EngineError, OSError when a part cannot be had.
    """
    maps = remapping.maps_of(config.userns_remap)
    base = _base(config, stack)
    containers, background, paths = base.containers, base.background, base.paths
    images = _image_parts(base)
    network = await _network_parts(base)
    lean = LeanProcesses(config, keeper_process)
    metrics = EngineMetrics()
    runs = _run_parts(base, images, network, lean, maps, metrics)
    current = config

    def make_late() -> "LateParts":
        from sampan.daemon.latewiring import wire_late  # not needed to start: see there

        return wire_late(base, images, network, runs, _registry_settings(current))

    late = Late(make_late)
    images.images.spare = lambda: late().registries.partials.drop_idle()
    images.images.spare_all = lambda: late().bootstraps.drop_cache()
    process_events = ProcessEvents(containers, runs.runner, runs.execs, background, lean.keeper, lean.supervisor, runs.compression.look)
    readopter = Readopter(containers, lean.keeper, lean.supervisor, runs.runner.logs, runs.execs, runs.runner.is_over)
    networks = NetworkService(
        network.store, network.places, containers, network.rules, runs.runner.events, paths, base.clock, readopter.hold, network.defaults
    )
    restorer = Restorer(containers, runs.runner, runs.control, background, process_events, readopter, runs.health, runs.shipping)
    await lean.open(process_events, lambda: background.spawn(readopter.readopt()), stack)
    shutdown = Shutdown(containers, runs.service, background, lean.keeper, lean.supervisor, config.shutdown_timeout)
    await restorer.restore(partial(lean.renew, readopter.settled), None if config.live_restore else shutdown.stop_all)
    await network.places.resume()
    await _repair(base, images, runs)
    spareroom.keep(paths.data_root)
    system = SystemService(
        containers,
        images.images,
        images.snapshots,
        base.events,
        MetaRepository(base.database),
        _facts(config, maps is not None),
        lambda: [*networks.warnings, *(late.made.registries.warnings() if late.made is not None else ())],
    )
    services = _services(images, runs, late, networks, system)

    def take_over(wanted: DaemonConfig) -> None:
        logging.getLogger().setLevel(log_level(wanted))
        nonlocal current
        current = wanted
        if late.made is not None:
            late.made.registries.settings = _registry_settings(wanted)
        system.facts = _facts(wanted, maps is not None)
        shutdown.seconds = wanted.shutdown_timeout
        runs.runner.runtimes.settings = runtimes.settings(wanted.runtimes, wanted.default_runtime)

    server = ApiServer(App(services, metrics.observe if config.metrics_addr else None).resolve)
    if config.metrics_addr:
        metrics.watch(
            Watched(containers, base.events, runs.health, stand_in(lambda: late().builds), watch, lambda: server.connections),
            await system.info(),
        )
    return EngineParts(server, shutdown, take_over, system.publish_reload, metrics, late)
