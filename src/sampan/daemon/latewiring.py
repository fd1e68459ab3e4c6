"""The parts that no container needs to be taken up or started: registries, archives, builds, checks. A quarter of sampand's modules.

They are loaded and made by the first request that is for one of them, or once sampand has time (serving.py).
"""

import msgspec

from sampan.content.partial import PartialBlobs
from sampan.daemon.parts import Base, ImageParts, NetworkParts, RunParts
from sampan.engine import buildplaces
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
from sampan.engine.disk_usage import DiskUsageService
from sampan.engine.files import FileService
from sampan.engine.image_archives import ImageArchives
from sampan.engine.imports import ImportService
from sampan.engine.login import LoginService
from sampan.engine.network_check import NetworkCheck
from sampan.engine.pull import PullService
from sampan.engine.push import PushService
from sampan.engine.registries import Registries
from sampan.engine.registrysettings import RegistrySettings
from sampan.engine.remote import RemoteService
from sampan.engine.sampling import Sampler
from sampan.engine.stats import StatsService
from sampan.findings import Finding
from sampan.state.blobs import BlobSourceRepository


class LateParts(msgspec.Struct, frozen=True):
    """The services of these parts, and what others ask of their parts."""

    registries: Registries
    bootstraps: BootstrapService
    pulls: PullService
    pushes: PushService
    logins: LoginService
    remotes: RemoteService
    imports: ImportService
    archives: ImageArchives
    files: FileService
    commits: CommitService
    stats: StatsService
    builds: BuildService
    disk_usage: DiskUsageService
    checks: CheckService


def wire_late(base: Base, images: ImageParts, network: NetworkParts, runs: RunParts, settings: RegistrySettings) -> LateParts:
    """Make them, and take away what a kill has left of builds and base images. Raises OSError."""
    paths, database, workers, containers, clock = base.paths, base.database, base.workers, base.containers, base.clock
    store, snapshots, published = images.store, images.snapshots, runs.runner.events
    registries = Registries(settings, PartialBlobs(paths.data_root), BlobSourceRepository(database), clock)
    bootstraps = BootstrapService(images.images, workers, paths.data_root / "bootstrap")
    pulls = PullService(images.images, store, snapshots, registries, unpackers=workers.parallel)
    sampler = Sampler(containers, runs.runner.layout, paths, clock)
    builder = _builder(base, images, runs, registries, pulls)
    caches = [registries.partials.disk_usage, bootstraps.disk_usage]
    made = LateParts(
        registries=registries,
        bootstraps=bootstraps,
        pulls=pulls,
        pushes=PushService(images.images, store, snapshots, workers, registries, paths.data_root / "tmp"),
        logins=LoginService(registries),
        remotes=RemoteService(registries),
        imports=ImportService(images.images, registries),
        archives=ImageArchives(images.images, store, snapshots, workers, paths.data_root / "tmp"),
        files=FileService(containers, runs.trees, published.publish),
        commits=CommitService(containers, images.images, runs.control, published, runs.trees, clock),
        stats=StatsService(containers, sampler),
        builds=builder.service,
        disk_usage=DiskUsageService(images.images, runs.service, runs.volume_service, snapshots, paths, builder.entries, caches),
        checks=_checks(base, images, network, runs, registries, bootstraps),
    )
    base.stack.push_async_callback(sampler.close)
    base.background.spawn(bootstraps.repair())
    builder.spool.repair()
    return made


class _BuilderParts(msgspec.Struct, frozen=True):
    """What has to do with builds."""

    service: BuildService
    spool: BuildSpool
    entries: CacheEntries


def _builder(base: Base, images: ImageParts, runs: RunParts, registries: Registries, pulls: PullService) -> _BuilderParts:
    root, containers, workers, cached = buildplaces.root(base.paths.data_root), base.containers, base.workers, images.cached
    spool = BuildSpool(root, images.snapshots.empty, workers, base.background)
    directories = CacheDirectories(root / buildplaces.MOUNTS)
    entries = CacheEntries(images.store, lambda: {item.image_id for item in containers}, cached, directories, workers)
    bases, copies = Bases(images.images, pulls), Copies(images.images, images.snapshots, workers, spool.empty)
    steps = StepContainers(runs.creator, runs.service, runs.runner, runs.control, runs.attach)
    pruning = BuildCachePruning(images.images, images.store, images.snapshots, cached, directories, entries, workers, base.clock)
    service = BuildService(
        BuildParts(
            images=images.images, spool=spool, bases=bases, copies=copies, containers=steps, trees=runs.trees, directories=directories,
            cached=cached, registries=registries, clock=base.clock, background=base.background, pruning=pruning, entries=entries,
            sessions=BuildSessions(), events=base.events,
        )
    )  # fmt: skip
    return _BuilderParts(service, spool, entries)


def _checks(
    base: Base, images: ImageParts, network: NetworkParts, runs: RunParts, registries: Registries, bootstraps: BootstrapService
) -> CheckService:
    containers = base.containers
    layers = LayerCheck(images.images, images.store, images.snapshots, containers)
    networks = NetworkCheck(network.store, network.places, containers, base.config.exec_root)

    def of_images() -> list[Finding]:
        images.mounts.restore()  # what was unmounted by others keeps layers until then
        return [*registries.partials.look(), *bootstraps.look()]

    looks = [plain_look(of_images), layers.look, ContainerCheck(containers, runs.runner).look, networks.look, database_look(base.database)]
    return CheckService(looks, layers)
