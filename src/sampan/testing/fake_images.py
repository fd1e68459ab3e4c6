"""The part of the engine in memory that has to do with images: there is one, busybox."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence

from sampan.engine.buildoptions import BuildOptions, CacheLimits, StepFailed
from sampan.errors import InvalidArgument, NotFound, SystemFailure, Unauthorized
from sampan.filters import Filters
from sampan.reference import Reference
from sampan.spec.docker_api.auth import AuthConfig, LoginStatus
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
from sampan.spec.oci_layout import Platform
from sampan.streams import Duplex, Piece

IMAGE_ID = "sha256:" + "ab" * 32
CREATED = "2026-11-24T00:00:00.123456789Z"
CREATED_SECONDS = 1795478400


class FakeImages:
    """services.ImageService: one image, busybox."""

    def _check(self, name: str) -> None:
        if name not in ("busybox", "busybox:latest", IMAGE_ID):
            raise NotFound(f"No such image: {name}")

    async def list(self, *, all: bool, filters: Filters, shared_size: bool) -> Sequence[ImageSummary]:
        """See the Protocol."""
        del all, filters, shared_size
        return [ImageSummary(id=IMAGE_ID, repo_tags=["busybox:latest"], repo_digests=[], size=1234567, created=CREATED_SECONDS)]

    async def inspect(self, name: str, platform: Platform | None = None) -> ImageInspect:
        """See the Protocol."""
        self._check(name)
        return ImageInspect(id=IMAGE_ID, repo_tags=["busybox:latest"], repo_digests=[], created=CREATED, size=1234567)

    async def history(self, name: str, platform: Platform | None = None) -> Sequence[ImageHistoryItem]:
        """See the Protocol."""
        self._check(name)
        return []

    async def import_(
        self, source: AsyncIterable[bytes], *, repo: str, tag: str, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[Mapping[str, object]]:
        """See the Protocol: counts the bytes."""
        del repo, tag, message, changes, platform
        total = 0
        async for piece in source:
            total += len(piece)
        yield {"status": f"{total} bytes"}

    async def tag(self, name: str, repo: str, tag: str) -> None:
        """See the Protocol."""
        del repo, tag
        self._check(name)

    async def remove(self, name: str, *, force: bool, prune: bool, platform: Platform | None = None) -> Sequence[ImageDeleteItem]:
        """See the Protocol: says so, but keeps it."""
        del force, prune, platform
        self._check(name)
        return [ImageDeleteItem(untagged=name)]

    async def prune(self, filters: Filters) -> ImagesPruneReport:
        """See the Protocol."""
        del filters
        return ImagesPruneReport()


class FakeArchives:
    """services.ImageArchives: what was loaded last is what is saved."""

    def __init__(self) -> None:
        self.archive = b""

    async def load(self, source: AsyncIterable[bytes], *, quiet: bool, platform: Platform | None) -> AsyncIterator[Mapping[str, object]]:
        """See the Protocol: an empty archive is a bad one."""
        del platform
        self.archive = b"".join([piece async for piece in source])
        if not self.archive:
            raise InvalidArgument("unexpected EOF")
        if not quiet:
            yield {"status": "Loading layer", "progressDetail": {"current": 1, "total": 1}, "id": "0123456789ab"}
        yield {"stream": "Loaded image: busybox:latest\n"}

    def save(self, names: Sequence[str], platform: Platform | None) -> AsyncIterator[bytes]:
        """See the Protocol."""
        del platform
        for name in names:
            if name != "busybox":
                raise NotFound(f"No such image: {name}")
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield self.archive


class FakeBootstraps:
    """services.BootstrapService."""

    async def bootstrap(self, name: str, include: Sequence[str]) -> AsyncIterator[Mapping[str, object]]:
        """See the Protocol."""
        if name != "busybox":
            raise NotFound(f"no base image called {name}")
        yield {"status": "made busybox"}


class FakeBuilds:
    """services.BuildService: any context comes to the one image; a target `fails` exits with 4."""

    async def build(self, options: BuildOptions, source: AsyncIterable[bytes]) -> AsyncIterator[Sequence[Mapping[str, object]]]:
        """See the Protocol."""
        size = 0
        async for piece in source:
            size += len(piece)
        if not size:
            raise SystemFailure(f"Cannot locate specified Dockerfile: {options.dockerfile}")
        yield [{"stream": "Step 1/1 : FROM busybox"}, {"stream": "\n"}]
        if options.target == "fails":
            raise StepFailed("The command '/bin/sh -c exit 4' returned a non-zero code: 4", 4)
        yield [{"aux": {"ID": IMAGE_ID}}]

    async def export(self, name: str) -> AsyncIterator[Piece]:
        """See the Protocol."""
        del name
        yield bytes(1024)

    async def session(self, session_id: str, open_stream: Callable[[], Awaitable[Duplex]]) -> None:
        """See the Protocol."""
        if not session_id:
            raise InvalidArgument("invalid session ID ''")
        stream = await open_stream()
        while await stream.recv():
            pass

    async def prune(self, *, everything: bool, limits: CacheLimits, filters: Filters) -> BuildPruneReport:
        """See the Protocol."""
        del everything, limits, filters
        return BuildPruneReport()


class FakePushes:
    """services.PushService: has docker.io/library/busybox only."""

    async def push(
        self, reference: Reference, *, platform: Platform | None, credentials: AuthConfig, verify: bool = True
    ) -> AsyncIterator[Mapping[str, object]]:
        """See the Protocol."""
        del platform, credentials, verify
        yield {"status": f"The push refers to repository [{reference.name}]"}
        if reference.familiar_name != "busybox":
            raise SystemFailure(f"An image does not exist locally with the tag: {reference.familiar_name}")
        yield {"status": f"{reference.tag}: digest: sha256:{'0' * 64} size: 1"}


class FakeImports:
    """services.ImportService: says where it would import from."""

    async def import_from(
        self, source: str, *, repo: str, tag: str, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[Mapping[str, object]]:
        """See the Protocol."""
        del repo, tag, message, changes, platform
        yield {"status": f"Downloading from {source}"}


class FakeRemotes:
    """services.RemoteService: there is no such image anywhere."""

    async def inspect(self, reference: Reference, credentials: AuthConfig) -> DistributionInspect:
        """See the Protocol."""
        del credentials
        raise NotFound(f"manifest for {reference.familiar} not found: manifest unknown")

    async def search(self, term: str, *, limit: int, filters: Filters, credentials: AuthConfig) -> Sequence[SearchResult]:
        """See the Protocol."""
        del limit, filters, credentials
        return [SearchResult(name=term)]


class FakeLogins:
    """services.LoginService: the password is `good`."""

    async def login(self, credentials: AuthConfig) -> LoginStatus:
        """See the Protocol."""
        if credentials.password != "good":
            raise Unauthorized('Get "https://registry.example/v2/": unauthorized: incorrect username or password')
        return LoginStatus(status="Login Succeeded")


class FakePulls:
    """services.PullService: knows docker.io/library/busybox."""

    async def pull(
        self, reference: Reference, *, platform: str, credentials: AuthConfig, verify: bool = True
    ) -> AsyncIterator[Mapping[str, object]]:
        """See the Protocol."""
        del platform, credentials, verify
        if reference.familiar_name != "busybox":
            raise NotFound(f"manifest for {reference.familiar} not found: manifest unknown")
        yield {"status": f"Pulling from {reference.path}", "id": reference.tag}


class FakeImageMounts:
    """services.ImageMountService."""

    def __init__(self) -> None:
        self.targets: set[str] = set()

    async def mount(self, name: str, target: str) -> None:
        """See the Protocol."""
        del name
        self.targets.add(target)

    def umount(self, target: str) -> None:
        """See the Protocol."""
        if target not in self.targets:
            raise NotFound(f"no image is mounted on {target}")
        self.targets.remove(target)
