"""What the routes ask of the engine: one Protocol for each group of use cases. The wiring puts engine objects in; tests put fakes in.

Names given as `ref` are what the client wrote; services resolve them by docker's rules (full ID, exact name with or without `/`, unique ID
prefix). Failures are sampan.errors kinds with docker's words. Every coroutine may be cancelled when the client goes away.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from sampan.engine.buildoptions import BuildOptions, CacheLimits
from sampan.engine.commitoptions import CommitOptions
from sampan.engine.streamtypes import AttachOptions, LogOptions, LogStream
from sampan.filters import Filters
from sampan.reference import Reference
from sampan.spec.docker_api.auth import AuthConfig, LoginStatus
from sampan.spec.docker_api.container import (
    Config,
    CreateRequest,
    CreateResponse,
    ExecCreateRequest,
    ExecInspect,
    ExecStartRequest,
    PathChange,
    PathStat,
    PruneReport,
    TopResponse,
    UpdateRequest,
    UpdateResponse,
    WaitResponse,
)
from sampan.spec.docker_api.image import (
    BuildPruneReport,
    DistributionInspect,
    ImageDeleteItem,
    ImageHistoryItem,
    ImageInspect,
    ImagesPruneReport,
    ImageSummary,
    SearchResult,
)
from sampan.spec.docker_api.inspect import ContainerInspect, ContainerSummary
from sampan.spec.docker_api.network import EndpointSettings, NetworkCreate, NetworkCreated, NetworkInspect, NetworksPruned
from sampan.spec.docker_api.stats import Stats
from sampan.spec.docker_api.system import CheckReport, DiskUsage, EventMessage, PingInfo, SystemInfo, SystemVersion
from sampan.spec.docker_api.volume import Volume, VolumeListResponse, VolumesPruneReport
from sampan.spec.oci_layout import Platform
from sampan.streams import Duplex, OpenStream, Piece

"""`await open_stream(multiplexed)`: call once the request is known to be valid. Sends the 101 (or 200) head and returns the raw connection.

multiplexed says whether the output will carry 8-byte frame headers (no tty); it chooses the Content-Type. Until this is called an
exception becomes an ordinary HTTP error; afterwards the service owns the stream and tells errors within it.
"""


__all__ = ["AttachOptions", "BuildOptions", "CacheLimits", "CommitOptions", "LogOptions", "LogStream"]


class PendingWait(Protocol):
    """A wait that has begun: a later exit cannot be missed, so the head may be sent before result() is awaited."""

    async def result(self) -> WaitResponse:
        """The exit code. Cancelling it ends the wait."""


class ContainerService(Protocol):
    """Life of containers."""

    async def create(self, name: str, request: CreateRequest, platform: str) -> CreateResponse:
        """Make a container; name "" = a made-up one. NotFound: no such image. Conflict: name in use."""

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> Sequence[ContainerSummary]:
        """Containers, newest first; limit 0 = no limit, > 0 implies all. InvalidArgument: unknown filter."""

    def inspect(self, ref: str) -> ContainerInspect:
        """Everything about one container but its sizes. Not a coroutine: clients poll it."""

    async def inspect_with_sizes(self, ref: str) -> ContainerInspect:
        """The same with the sizes of its file systems."""

    async def start(self, ref: str) -> None:
        """Start. NotModified if it runs already."""

    async def stop(self, ref: str, *, timeout: int | None, signal: str) -> None:
        """Signal ("" = its own stop signal), wait timeout seconds (None = its own, -1 = for ever), kill. NotModified if stopped."""

    async def restart(self, ref: str, *, timeout: int | None, signal: str) -> None:
        """Stop and start."""

    async def kill(self, ref: str, signal: str) -> None:
        """Send a signal by name or number; "" = SIGKILL. Conflict if not running."""

    async def pause(self, ref: str, *, frozen: bool) -> None:
        """Freeze (True) or thaw (False)."""

    async def rename(self, ref: str, name: str) -> None:
        """Give another name."""

    async def update(self, ref: str, request: UpdateRequest) -> UpdateResponse:
        """Change limits, also of a running container, and the restart policy. Conflict: not of this container."""

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Delete. Conflict if running and not force."""

    async def wait(self, ref: str, condition: str) -> PendingWait:
        """Begin to wait: "" or not-running, next-exit, removed; anything else is InvalidArgument."""

    async def top(self, ref: str, ps_args: str) -> TopResponse:
        """Processes of a running container; ps_args as for ps(1), default -ef."""

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        """Set the terminal's size in characters."""

    async def prune(self, filters: Filters) -> PruneReport:
        """Remove all stopped containers that match."""


class StatsService(Protocol):
    """What containers use."""

    async def once(self, ref: str, *, one_shot: bool) -> Stats | None:
        """One document, with what was read a second before it; one_shot: at once and without. None: removed meanwhile."""

    def stream(self, ref: str, *, one_shot: bool) -> AsyncIterator[Stats]:
        """A document a second, empty ones while the container does not run, until it is removed. InvalidArgument for one_shot."""


class ExecService(Protocol):
    """Further processes in running containers."""

    async def create(self, ref: str, request: ExecCreateRequest) -> str:
        """Prepare an exec; the answer is its ID. Conflict if the container does not run or is paused."""

    async def start(self, exec_id: str, request: ExecStartRequest, open_stream: OpenStream) -> None:
        """Run it. Detach: return once it runs, never calling open_stream. Else stream until it ends (or the client detaches).

        Docker has sent its 101 before the process is started, so a failure to start goes into the stream, with exit code 126 or 127.
        """

    async def inspect(self, exec_id: str) -> ExecInspect:
        """State and exit code."""

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        """Set the terminal's size in characters."""


class AttachService(Protocol):
    """Streams of containers."""

    async def attach(self, ref: str, options: AttachOptions, open_stream: OpenStream) -> None:
        """Attach until the container's streams end or the client leaves or detaches. Conflict: paused, restarting."""

    async def logs(self, ref: str, options: LogOptions) -> LogStream:
        """Stored output, multiplexed in docker's frames unless the container has a tty."""


class ImageService(Protocol):
    """Images in the local store."""

    async def list(self, *, all: bool, filters: Filters, shared_size: bool) -> Sequence[ImageSummary]:
        """Images, newest first."""

    async def inspect(self, name: str, platform: Platform | None) -> ImageInspect:
        """One image by reference, ID or ID prefix. NotFound: `No such image: name`, or it is of another platform."""

    async def history(self, name: str, platform: Platform | None) -> Sequence[ImageHistoryItem]:
        """Layers, newest first."""

    def import_(
        self, source: AsyncIterable[bytes], *, repo: str, tag: str, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[Mapping[str, object]]:
        """Make an image of one tar. Yields docker's progress objects; a failure before the first becomes an HTTP error."""

    async def tag(self, name: str, repo: str, tag: str) -> None:
        """Give another name."""

    async def remove(self, name: str, *, force: bool, prune: bool, platform: Platform | None) -> Sequence[ImageDeleteItem]:
        """Take a name off, and delete what nothing else uses."""

    async def prune(self, filters: Filters) -> ImagesPruneReport:
        """Delete what no container uses; dangling=true (the default) keeps named images."""


class ImageArchives(Protocol):
    """Images as archives."""

    def load(self, source: AsyncIterable[bytes], *, quiet: bool, platform: Platform | None) -> AsyncIterator[Mapping[str, object]]:
        """Load the images of an archive. Yields docker's progress objects and what was loaded."""

    def save(self, names: Sequence[str], platform: Platform | None) -> AsyncIterator[Piece]:
        """The archive of some images. NotFound at once; an error in the middle means that the archive is not whole."""


class FileService(Protocol):
    """Containers' files."""

    async def stat_path(self, ref: str, path: str) -> PathStat:
        """What is at a path in a container, a symlink not followed. NotFound: `Could not find the file x in container c`."""

    async def archive(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[Piece]]:
        """What is at a path, and all of it as a tar stream."""

    async def extract(self, ref: str, path: str, source: AsyncIterable[bytes], *, replace: bool, as_user: bool) -> None:
        """Extract a tar stream into a directory. replace=False: no directory becomes anything else, or the reverse; as_user: all of it
        is to belong to the container's user. InvalidArgument: a bad archive, a read-only target.
        """

    async def changes(self, ref: str) -> Sequence[PathChange]:
        """How the container's files differ from its image's, by path."""

    async def export(self, ref: str) -> AsyncIterator[Piece]:
        """The container's root file system as a tar stream, mounts left out."""


class BuildService(Protocol):
    """Images of Dockerfiles."""

    def build(self, options: BuildOptions, source: AsyncIterable[bytes]) -> AsyncIterator[Sequence[Mapping[str, object]]]:
        """Build an image of a context (a tar, compressed or not). Yields docker's progress objects, some at a time.

        A RUN that fails: StepFailed.
        """

    def export(self, name: str) -> AsyncIterator[Piece]:
        """An image's whole root file system as a tar stream. Raises NotFound, with the first piece."""

    async def session(self, session_id: str, open_stream: Callable[[], Awaitable[Duplex]]) -> None:
        """What a client's builds may ask it for, until it ends the stream. InvalidArgument, Conflict: no stream is opened."""

    async def prune(self, *, everything: bool, limits: CacheLimits, filters: Filters) -> BuildPruneReport:
        """Drop what of the build cache nothing else uses, as far as limits say; all of it with everything."""


class BootstrapService(Protocol):
    """Base images without a registry."""

    def bootstrap(self, name: str, include: Sequence[str]) -> AsyncIterator[Mapping[str, object]]:
        """Make a base image of the distribution's packages (`busybox`, `debian:bookworm`), further packages included. Yields progress
        objects as import_ does.
        """


class PullService(Protocol):
    """Images from registries."""

    def pull(
        self, reference: Reference, *, platform: str, credentials: AuthConfig, verify: bool = True
    ) -> AsyncIterator[Mapping[str, object]]:
        """Pull an image by tag or digest, or every tag of a repository when the reference has neither. Yields docker's progress objects.

        verify: whether the registry must be who it says (its certificate).
        """


class PushService(Protocol):
    """Images to registries."""

    def push(
        self, reference: Reference, *, platform: Platform | None, credentials: AuthConfig, verify: bool = True
    ) -> AsyncIterator[Mapping[str, object]]:
        """Push an image by its tag, or every tag of a repository when the reference has none. Yields docker's progress objects.

        verify: whether the registry must be who it says (its certificate).
        """


class LoginService(Protocol):
    """Credentials for registries."""

    async def login(self, credentials: AuthConfig) -> LoginStatus:
        """Try them at `serveraddress`. Raises Unauthorized: the registry does not take them."""


class RemoteService(Protocol):
    """What registries have."""

    async def inspect(self, reference: Reference, credentials: AuthConfig) -> DistributionInspect:
        """The manifest or index that a tag or digest means, without pulling it."""

    async def search(self, term: str, *, limit: int, filters: Filters, credentials: AuthConfig) -> Sequence[SearchResult]:
        """Images by a word, of Docker Hub or of the registry that stands before it."""


class ImportService(Protocol):
    """Images of archives that are elsewhere."""

    def import_from(
        self, source: str, *, repo: str, tag: str, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[Mapping[str, object]]:
        """Make an image of the tar at a URL. Yields docker's progress objects; a failure before the first becomes an HTTP error."""


class ImageMountService(Protocol):
    """Images shown on the host."""

    async def mount(self, name: str, target: str) -> None:
        """Show an image read-only at a directory of the host."""

    def umount(self, target: str) -> None:
        """Take it off again. NotFound: nothing of ours is there. Conflict: in use."""


class CommitService(Protocol):
    """Images of containers."""

    async def commit(self, ref: str, options: CommitOptions, config: Config | None) -> str:
        """Make an image of what a container changed; the answer is its ID. config: given by the client instead of the container's own."""


class NetworkService(Protocol):
    """Networks that exist."""

    async def list(self, filters: Filters) -> Sequence[NetworkInspect]:
        """All networks; bridge, host and none always. Containers is left empty."""

    async def inspect(self, ref: str) -> NetworkInspect:
        """One network by ID, name or ID prefix, containers included. NotFound: `network x not found`."""

    async def create(self, body: NetworkCreate) -> NetworkCreated:
        """Make one. Conflict, Forbidden, InvalidArgument, NotFound (driver) in docker's words."""

    async def remove(self, ref: str) -> None:
        """Remove one. Forbidden: predefined, or a running container is on it."""

    async def prune(self, filters: Filters) -> NetworksPruned:
        """Remove those that no container is on."""

    async def connect(self, ref: str, container_ref: str, settings: EndpointSettings) -> None:
        """Put a container on it."""

    async def disconnect(self, ref: str, container_ref: str, *, force: bool) -> None:
        """Take a container off it. force: one that does not exist is no error."""


class VolumeService(Protocol):
    """Volumes."""

    async def create(self, name: str, *, driver: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> Volume:
        """Make a volume; "" makes up a name. One of the name that is there is the answer, unless other options are asked for: Conflict."""

    async def list(self, filters: Filters) -> VolumeListResponse:
        """Volumes by name. InvalidArgument: unknown filter."""

    def inspect(self, name: str) -> Volume:
        """One volume. NotFound: `get x: no such volume`."""

    async def remove(self, name: str, *, force: bool) -> None:
        """Delete. Conflict: `remove x: volume is in use - [ID]`; force: an unknown one is no error."""

    async def prune(self, filters: Filters) -> VolumesPruneReport:
        """Remove anonymous volumes that no container refers to, with the filter all=true named ones too."""


class SystemService(Protocol):
    """The engine as a whole."""

    def ping(self) -> PingInfo:
        """State for ping's headers. Must not wait for anything."""

    async def version(self) -> SystemVersion:
        """Versions of the parts."""

    async def info(self) -> SystemInfo:
        """Counts, limits, drivers."""

    def events(self, *, since: int, until: int, filters: Filters) -> AsyncIterator[EventMessage]:
        """Past events from since on, then live ones up to until (both in nanoseconds; 0 = none). The iterator subscribes before it
        first waits."""


class DiskUsageService(Protocol):
    """What takes space on the disk."""

    async def usage(self, kinds: Collection[str]) -> DiskUsage:
        """Bytes on disk, of some of image, container, volume and build-cache."""


class CheckService(Protocol):
    """Whether what the engine has on the host fits together."""

    async def check(self, *, repair: bool, deep: bool) -> CheckReport:
        """What is wrong. repair: mend what is certain; deep: read every layer to its end as well."""


class Services(msgspec.Struct, frozen=True):
    """Everything the routes need."""

    containers: ContainerService
    stats: StatsService
    execs: ExecService
    attach: AttachService
    files: FileService
    commits: CommitService
    bootstraps: BootstrapService
    builds: BuildService
    pulls: PullService
    pushes: PushService
    logins: LoginService
    remotes: RemoteService
    imports: ImportService
    image_mounts: ImageMountService
    images: ImageService
    archives: ImageArchives
    networks: NetworkService
    volumes: VolumeService
    system: SystemService
    disk_usage: DiskUsageService
    checks: CheckService
