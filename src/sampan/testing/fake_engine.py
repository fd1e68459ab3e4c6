"""An engine in memory behind the API's Protocols: containers are table rows, and every process is `cat`.

Attach and exec echo stdin to stdout until stdin ends; then the process exits with code 0.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import msgspec

from sampan.api.services import AttachOptions, CommitOptions, LogOptions, LogStream, Services
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotModified
from sampan.filters import Filters
from sampan.ids import new_id
from sampan.spec.docker_api.container import (
    Config,
    CreateRequest,
    CreateResponse,
    ExecCreateRequest,
    ExecInspect,
    ExecProcessConfig,
    ExecStartRequest,
    HostConfig,
    PathChange,
    PathStat,
    PruneReport,
    TopResponse,
    UpdateRequest,
    UpdateResponse,
    WaitResponse,
)
from sampan.spec.docker_api.inspect import ContainerInspect, ContainerStateShown, ContainerSummary
from sampan.spec.docker_api.network import EndpointSettings, NetworkCreate, NetworkCreated, NetworkInspect, NetworkSettings, NetworksPruned
from sampan.spec.docker_api.stats import CpuStats, CpuUsage, Stats
from sampan.spec.docker_api.system import (
    CheckFinding,
    CheckReport,
    ComponentVersion,
    DiskUsage,
    EventActor,
    EventMessage,
    PingInfo,
    PlatformName,
    PluginsInfo,
    Runtime,
    SystemInfo,
    SystemVersion,
)
from sampan.spec.docker_api.volume import Volume, VolumeListResponse, VolumesPruneReport
from sampan.streams import Duplex, OpenStream
from sampan.testing.fake_images import (
    CREATED,
    CREATED_SECONDS,
    IMAGE_ID,
    FakeArchives,
    FakeBootstraps,
    FakeBuilds,
    FakeImageMounts,
    FakeImages,
    FakeImports,
    FakeLogins,
    FakePulls,
    FakePushes,
    FakeRemotes,
)
from sampan.version import API_VERSION, ENGINE_VERSION, MIN_API_VERSION


class FakeContainer:
    """One row."""

    def __init__(self, name: str, request: CreateRequest) -> None:
        self.id = new_id()
        self.name = name
        self.request = request
        self.status = "created"
        self.ended = asyncio.Event()
        self.output = b""


class FakeContainers:
    """services.ContainerService."""

    def __init__(self) -> None:
        self.rows: dict[str, FakeContainer] = {}
        self.images = {"busybox"}

    def find(self, ref: str) -> FakeContainer:
        """Docker's rules: full ID, name, unique prefix."""
        name = ref.removeprefix("/")
        for row in self.rows.values():
            if ref == row.id or name == row.name:
                return row
        matching = [row for row in self.rows.values() if row.id.startswith(ref)]
        if len(matching) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
        if not matching:
            raise NotFound(f"No such container: {ref}")
        return matching[0]

    def running(self, ref: str) -> FakeContainer:
        """A container that runs. Raises Conflict."""
        row = self.find(ref)
        if row.status != "running":
            raise Conflict(f"container {row.id} is not running")
        return row

    async def create(self, name: str, request: CreateRequest, platform: str) -> CreateResponse:
        """See the Protocol."""
        del platform
        if request.image.removesuffix(":latest") not in self.images:
            raise NotFound(f"No such image: {request.image}")
        for row in self.rows.values():
            if row.name == name:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{row.id}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                )
        row = FakeContainer(name or f"made_up_{len(self.rows)}", request)
        self.rows[row.id] = row
        return CreateResponse(id=row.id, warnings=[])

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> Sequence[ContainerSummary]:
        """See the Protocol; of the filters only name."""
        del size
        rows = [row for row in self.rows.values() if all or limit > 0 or row.status == "running"]
        if "name" in filters:
            rows = [row for row in rows if any(value in row.name for value in filters["name"])]
        rows.reverse()
        return [self._summary(row) for row in (rows[:limit] if limit > 0 else rows)]

    @staticmethod
    def _summary(row: FakeContainer) -> ContainerSummary:
        return ContainerSummary(
            id=row.id, names=[f"/{row.name}"], image=row.request.image, image_id=IMAGE_ID, command="cat", created=CREATED_SECONDS, ports=[],
            labels=row.request.labels or {}, state=row.status, status="Up 1 second" if row.status == "running" else "Created", mounts=[],
        )  # fmt: skip

    async def inspect_with_sizes(self, ref: str) -> ContainerInspect:
        """See the Protocol."""
        return msgspec.structs.replace(self.inspect(ref), size_rw=0, size_root_fs=0)

    def inspect(self, ref: str) -> ContainerInspect:
        """See the Protocol."""
        row = self.find(ref)
        state = ContainerStateShown(status=row.status, running=row.status == "running", pid=1 if row.status == "running" else 0)
        return ContainerInspect(
            id=row.id, created=CREATED, path="cat", args=[], state=state, image=IMAGE_ID, name=f"/{row.name}",
            host_config=row.request.host_config or HostConfig(), mounts=[], config=row.request, network_settings=NetworkSettings(),
        )  # fmt: skip

    async def start(self, ref: str) -> None:
        """See the Protocol."""
        row = self.find(ref)
        if row.status == "running":
            raise NotModified("already running")
        row.status = "running"
        row.ended.clear()

    async def stop(self, ref: str, *, timeout: int | None, signal: str) -> None:
        """See the Protocol."""
        del timeout, signal
        row = self.find(ref)
        if row.status != "running":
            raise NotModified("not running")
        self.end(row)

    def end(self, row: FakeContainer) -> None:
        """The process exits."""
        row.status = "exited"
        row.ended.set()

    async def restart(self, ref: str, *, timeout: int | None, signal: str) -> None:
        """See the Protocol."""
        del timeout, signal
        self.find(ref).status = "running"

    async def kill(self, ref: str, signal: str) -> None:
        """See the Protocol."""
        del signal
        self.end(self.running(ref))

    async def pause(self, ref: str, *, frozen: bool) -> None:
        """See the Protocol."""
        del frozen
        self.running(ref)

    async def rename(self, ref: str, name: str) -> None:
        """See the Protocol."""
        self.find(ref).name = name

    async def update(self, ref: str, request: UpdateRequest) -> UpdateResponse:
        """See the Protocol."""
        del request
        self.find(ref)
        return UpdateResponse()

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """See the Protocol."""
        del volumes, link
        row = self.find(ref)
        if row.status == "running" and not force:
            raise Conflict(
                f'cannot remove container "{row.name}": container is running: stop the container before removing or force remove'
            )
        row.ended.set()
        del self.rows[row.id]

    async def wait(self, ref: str, condition: str) -> "FakeWait":
        """See the Protocol."""
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        row = self.find(ref)
        return FakeWait(row, at_once=row.status != "running" and condition in ("", "not-running"))

    async def top(self, ref: str, ps_args: str) -> TopResponse:
        """See the Protocol."""
        del ps_args
        self.running(ref)
        return TopResponse(titles=["PID", "CMD"], processes=[["1", "cat"]])

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        """See the Protocol."""
        del height, width
        self.running(ref)

    async def prune(self, filters: Filters) -> PruneReport:
        """See the Protocol."""
        del filters
        gone = [row.id for row in self.rows.values() if row.status != "running"]
        for container_id in gone:
            del self.rows[container_id]
        return PruneReport(containers_deleted=gone or None)


class FakeWait:
    """services.PendingWait."""

    def __init__(self, row: FakeContainer, *, at_once: bool) -> None:
        self._row = row
        self._at_once = at_once

    async def result(self) -> WaitResponse:
        """See the Protocol."""
        if not self._at_once:
            await self._row.ended.wait()
        return WaitResponse(status_code=0)


async def echo(duplex: Duplex, *, framed: bool) -> bytes:
    """What the fake process does with its streams; returns all it wrote."""
    total = b""
    while data := await duplex.recv():
        await duplex.send(b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data if framed else data)
        if len(total) < 65536:
            total += data
    await duplex.send_eof()
    return total


class FakeAttach:
    """services.AttachService."""

    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers

    async def attach(self, ref: str, options: AttachOptions, open_stream: OpenStream) -> None:
        """See the Protocol."""
        row = self._containers.find(ref)
        duplex = await open_stream(not row.request.tty)
        if options.stdin:
            row.output += await echo(duplex, framed=not row.request.tty)
            self._containers.end(row)
        else:
            await asyncio.wait(
                [asyncio.ensure_future(duplex.wait_closed()), asyncio.ensure_future(row.ended.wait())], return_when="FIRST_COMPLETED"
            )

    async def logs(self, ref: str, options: LogOptions) -> LogStream:
        """See the Protocol."""
        row = self._containers.find(ref)

        async def chunks() -> AsyncIterator[bytes]:
            if row.output:
                yield b"\x01\0\0\0" + len(row.output).to_bytes(4, "big") + row.output
            if options.follow and row.status == "running":
                await row.ended.wait()

        return LogStream(multiplexed=not row.request.tty, chunks=chunks())


class FakeStats:
    """services.StatsService: a counter that rises by one from document to document."""

    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers

    def _document(self, row: FakeContainer, at: int) -> Stats:
        stats = [CpuStats(cpu_usage=CpuUsage(total_usage=number)) for number in (at, at - 1)]
        return Stats(name=f"/{row.name}", id=row.id, cpu_stats=stats[0], precpu_stats=stats[1])

    async def once(self, ref: str, *, one_shot: bool) -> Stats | None:
        """See the Protocol."""
        return self._document(self._containers.find(ref), 1 if one_shot else 2)

    def stream(self, ref: str, *, one_shot: bool) -> AsyncIterator[Stats]:
        """See the Protocol."""
        row = self._containers.find(ref)
        if one_shot:
            raise InvalidArgument("cannot have stream=true and one-shot=true")
        return self._documents(row)

    async def _documents(self, row: FakeContainer) -> AsyncIterator[Stats]:
        for at in range(1, 4):
            yield self._document(row, at)


class FakeExecs:
    """services.ExecService."""

    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers
        self.rows: dict[str, tuple[str, ExecCreateRequest, int | None]] = {}

    async def create(self, ref: str, request: ExecCreateRequest) -> str:
        """See the Protocol."""
        row = self._containers.running(ref)
        exec_id = new_id()
        self.rows[exec_id] = (row.id, request, None)
        return exec_id

    def _find(self, exec_id: str) -> tuple[str, ExecCreateRequest, int | None]:
        if exec_id not in self.rows:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self.rows[exec_id]

    async def start(self, exec_id: str, request: ExecStartRequest, open_stream: OpenStream) -> None:
        """See the Protocol."""
        container, wanted, _ = self._find(exec_id)
        if not request.detach:
            await echo(await open_stream(not wanted.tty), framed=not wanted.tty)
        self.rows[exec_id] = (container, wanted, 0)

    async def inspect(self, exec_id: str) -> ExecInspect:
        """See the Protocol."""
        container, wanted, code = self._find(exec_id)
        process = ExecProcessConfig(tty=wanted.tty, entrypoint="cat", arguments=[])
        return ExecInspect(
            id=exec_id, running=code is None, exit_code=code, process_config=process, open_stdin=wanted.attach_stdin, open_stderr=True,
            open_stdout=True, can_remove=False, container_id=container, detach_keys="", pid=0,
        )  # fmt: skip

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        """See the Protocol."""
        del height, width
        self._find(exec_id)


class FakeFiles:
    """services.FileService: what is put into a directory comes out of it, byte for byte."""

    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers
        self.put: dict[str, bytes] = {}

    async def stat_path(self, ref: str, path: str) -> PathStat:
        """See the Protocol."""
        self._containers.find(ref)
        if path not in self.put:
            raise NotFound(f"Could not find the file {path} in container {ref}")
        return PathStat(name=path.rpartition("/")[2], size=len(self.put[path]), mode=0o755 | 1 << 31, mtime=CREATED, link_target="")

    async def archive(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """See the Protocol."""
        return await self.stat_path(ref, path), self._pieces(self.put[path])

    @staticmethod
    async def _pieces(data: bytes) -> AsyncIterator[bytes]:
        yield data

    async def extract(self, ref: str, path: str, source: AsyncIterable[bytes], *, replace: bool, as_user: bool) -> None:
        """See the Protocol."""
        del replace, as_user
        self._containers.find(ref)
        self.put[path] = b"".join([piece async for piece in source])

    async def changes(self, ref: str) -> Sequence[PathChange]:
        """See the Protocol."""
        self._containers.find(ref)
        return [PathChange(path=path, kind=1) for path in sorted(self.put)]

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """See the Protocol."""
        self._containers.find(ref)
        return self._pieces(b"".join(self.put.values()))


class FakeCommits:
    """services.CommitService: every image is the one."""

    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers

    async def commit(self, ref: str, options: CommitOptions, config: Config | None) -> str:
        """See the Protocol."""
        del options, config
        self._containers.find(ref)
        return IMAGE_ID


class FakeNetworks:
    """services.NetworkService: the three that are always there."""

    def __init__(self) -> None:
        self.rows = [NetworkInspect(name=name, id=new_id(), driver=driver) for name, driver in
                     (("bridge", "bridge"), ("host", "host"), ("none", "null"))]  # fmt: skip

    async def list(self, filters: Filters) -> Sequence[NetworkInspect]:
        """See the Protocol."""
        del filters
        return self.rows

    async def inspect(self, ref: str) -> NetworkInspect:
        """See the Protocol."""
        for row in self.rows:
            if ref in (row.name, row.id):
                return row
        raise NotFound(f"network {ref} not found")

    async def create(self, body: NetworkCreate) -> NetworkCreated:
        """See the Protocol."""
        self.rows = [*self.rows, NetworkInspect(name=body.name, id=f"{len(self.rows):064x}", driver=body.driver or "bridge")]
        return NetworkCreated(id=self.rows[-1].id)

    async def remove(self, ref: str) -> None:
        """See the Protocol."""
        found = await self.inspect(ref)
        if found.name in ("bridge", "host", "none"):
            raise Forbidden(f"{found.name} is a pre-defined network and cannot be removed")
        self.rows = [row for row in self.rows if row is not found]

    async def prune(self, filters: Filters) -> NetworksPruned:
        """See the Protocol."""
        del filters
        return NetworksPruned()

    async def connect(self, ref: str, container_ref: str, settings: EndpointSettings) -> None:
        """See the Protocol."""
        del container_ref, settings
        await self.inspect(ref)

    async def disconnect(self, ref: str, container_ref: str, *, force: bool) -> None:
        """See the Protocol."""
        del container_ref, force
        await self.inspect(ref)


class FakeVolumes:
    """services.VolumeService: names in a table."""

    def __init__(self) -> None:
        self.rows: dict[str, Volume] = {}

    async def create(self, name: str, *, driver: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> Volume:
        """See the Protocol."""
        del driver
        name = name or "0" * 64
        kept = dict(options) if options else None
        return self.rows.setdefault(name, Volume(name=name, created_at=CREATED, labels=dict(labels) if labels else None, options=kept))

    async def list(self, filters: Filters) -> VolumeListResponse:
        """See the Protocol."""
        del filters
        return VolumeListResponse(volumes=list(self.rows.values()))

    def inspect(self, name: str) -> Volume:
        """See the Protocol."""
        if name not in self.rows:
            raise NotFound(f"get {name}: no such volume")
        return self.rows[name]

    async def remove(self, name: str, *, force: bool) -> None:
        """See the Protocol."""
        if not force:
            self.inspect(name)
        self.rows.pop(name, None)

    async def prune(self, filters: Filters) -> VolumesPruneReport:
        """See the Protocol."""
        deleted = list(self.rows) if filters.get("all") else []
        self.rows = {name: row for name, row in self.rows.items() if name not in deleted}
        return VolumesPruneReport(volumes_deleted=deleted)


class FakeDiskUsage:
    """services.DiskUsageService: nothing takes space."""

    async def usage(self, kinds: Collection[str]) -> DiskUsage:
        """See the Protocol."""

        def shown(kind: str) -> list[Any] | None:
            return [] if kind in kinds else None

        return DiskUsage(
            images=shown("image"), containers=shown("container"), volumes=shown("volume"), build_cache=shown("build-cache")
        )  # fmt: skip


class FakeChecks:
    """services.CheckService: a stray directory until it is repaired."""

    def __init__(self) -> None:
        self.repaired = False

    async def check(self, *, repair: bool, deep: bool) -> CheckReport:
        """See the Protocol."""
        found = CheckFinding(
            kind="file", subject="/x", problem="is of no container", remedy="remove it", repairable=True, repaired=repair
        )  # fmt: skip
        findings = [] if self.repaired else [found]
        self.repaired = self.repaired or repair
        return CheckReport(findings=findings, layers_read=int(deep))


class FakeSystem:
    """services.SystemService. publish() feeds the events' readers."""

    def __init__(self) -> None:
        self.queues: set[asyncio.Queue[EventMessage]] = set()

    def publish(self, action: str, container_id: str) -> None:
        """Send a container event to all readers."""
        actor = EventActor(id=container_id, attributes={"name": "x"})
        for queue in self.queues:
            queue.put_nowait(EventMessage(type="container", action=action, actor=actor, time=1, time_nano=1_000_000_000))

    def ping(self) -> PingInfo:
        """See the Protocol."""
        return PingInfo()

    async def version(self) -> SystemVersion:
        """See the Protocol."""
        details = {
            "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "Os": "linux", "Arch": "amd64", "GitCommit": "",
            "GoVersion": "none",
            "KernelVersion": "6.0", "BuildTime": CREATED, "Experimental": "false",
        }  # fmt: skip
        component = ComponentVersion(name="Engine", version=ENGINE_VERSION, details=details)
        return SystemVersion(
            platform=PlatformName(name="Sampan fake"), components=[component], version=ENGINE_VERSION, api_version=API_VERSION,
            min_api_version=MIN_API_VERSION, kernel_version="6.0", build_time=CREATED,
        )  # fmt: skip

    async def info(self) -> SystemInfo:
        """See the Protocol."""
        return SystemInfo(
            id="fake", driver="overlay2", driver_status=[("Backing Filesystem", "none")], system_time=CREATED, logging_driver="local",
            plugins=PluginsInfo(volume=["local"], network=["bridge", "host", "null"], log=["local"]), kernel_version="6.0",
            operating_system="none", ncpu=1, mem_total=1 << 30, docker_root_dir="/none", name="fake", server_version=ENGINE_VERSION,
            runtimes={"sampan": Runtime(path="sampan")}, security_options=["name=seccomp,profile=builtin"],
        )  # fmt: skip

    async def events(self, *, since: int, until: int, filters: Filters) -> AsyncIterator[EventMessage]:
        """See the Protocol."""
        del since, filters
        if until:
            return
        queue: asyncio.Queue[EventMessage] = asyncio.Queue()
        self.queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.queues.discard(queue)


class FakeEngine(msgspec.Struct, frozen=True):
    """All the fakes, typed as what they are, and the Services made of them."""

    containers: FakeContainers
    system: FakeSystem
    services: Services


def fake_engine() -> FakeEngine:
    """A fresh engine with one image and no containers. Call in a running loop."""
    containers, system = FakeContainers(), FakeSystem()
    services = Services(
        containers=containers, stats=FakeStats(containers), execs=FakeExecs(containers), attach=FakeAttach(containers),
        files=FakeFiles(containers), commits=FakeCommits(containers),
        bootstraps=FakeBootstraps(), builds=FakeBuilds(), pulls=FakePulls(), pushes=FakePushes(), logins=FakeLogins(),
        remotes=FakeRemotes(), imports=FakeImports(), image_mounts=FakeImageMounts(),
        images=FakeImages(),
        archives=FakeArchives(), networks=FakeNetworks(), volumes=FakeVolumes(),
        disk_usage=FakeDiskUsage(),
        checks=FakeChecks(),
        system=system,
    )  # fmt: skip
    return FakeEngine(containers=containers, system=system, services=services)
