"""Groups of parts of the engine, as wiring hands them on."""

from contextlib import AsyncExitStack

import msgspec

from sampan.clock import Clock
from sampan.daemon.config import DaemonConfig
from sampan.engine.attach import AttachService
from sampan.engine.background import Background
from sampan.engine.containers import ContainerService
from sampan.engine.containerstore import Containers
from sampan.engine.control import Control
from sampan.engine.creating import Creator
from sampan.engine.exec import ExecService
from sampan.engine.imagemounts import ImageMounts
from sampan.engine.images import ImageService
from sampan.engine.logcompression import LogCompression
from sampan.engine.logshipping import LogShipping
from sampan.engine.networks import NetworkDefaults
from sampan.engine.networkstore import NetworkStore
from sampan.engine.paths import Paths
from sampan.engine.probing import HealthMonitor
from sampan.engine.runner import Runner
from sampan.engine.sandboxes import Sandboxes
from sampan.engine.trees import Trees
from sampan.engine.volumes import VolumeService
from sampan.events.bus import EventBus
from sampan.image.store import ImageStore
from sampan.network.rules import Rules
from sampan.snapshot.store import LayeredSnapshots
from sampan.state.buildcache import BuildCacheRepository
from sampan.state.database import Database
from sampan.volume.store import VolumeStore
from sampan.worker.client import WorkerPool


class Base(msgspec.Struct, frozen=True):
    """What all others stand on."""

    config: DaemonConfig
    stack: AsyncExitStack
    paths: Paths
    clock: Clock
    database: Database
    events: EventBus
    containers: Containers
    workers: WorkerPool
    background: Background


class NetworkParts(msgspec.Struct, frozen=True):
    """What makes networks out of the host's kernel."""

    store: NetworkStore
    rules: Rules
    places: Sandboxes
    defaults: NetworkDefaults


class ImageParts(msgspec.Struct, frozen=True):
    """What containers need of images, on one snapshot store."""

    snapshots: LayeredSnapshots
    images: ImageService
    store: ImageStore
    cached: BuildCacheRepository
    mounts: ImageMounts


class RunParts(msgspec.Struct, frozen=True):
    """What has to do with containers and their runs."""

    creator: Creator
    service: ContainerService
    runner: Runner
    control: Control
    execs: ExecService
    attach: AttachService
    health: HealthMonitor
    shipping: LogShipping
    compression: LogCompression
    trees: Trees
    volumes: VolumeStore
    volume_service: VolumeService
