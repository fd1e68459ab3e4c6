"""What a registry has, without pulling it: docker's `GET /distribution/{name}/json` (moby api/server/router/distribution), and search."""

from collections.abc import Sequence

from sampan.distribution.registry import CONFIG_MAX, Manifest, Repository
from sampan.engine.registries import Registries
from sampan.engine.search import search
from sampan.filters import Filters
from sampan.reference import Reference
from sampan.spec import oci_layout
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.docker_api.image import DistributionInspect, SearchResult
from sampan.spec.oci_documents import decode
from sampan.spec.oci_layout import Descriptor, Platform


class RemoteService:
    """Asks registries about images."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    async def inspect(self, reference: Reference, credentials: AuthConfig) -> DistributionInspect:
        """The manifest or index that a tag or digest means, and for which platforms. Raises NotFound, InvalidArgument, SystemFailure."""

        async def ask(repository: Repository) -> DistributionInspect:
            found = await repository.manifest(reference.digest or reference.tag or "")
            descriptor = Descriptor(found.media_type, found.digest, len(found.body))
            return DistributionInspect(descriptor=descriptor, platforms=await _platforms(repository, found))

        async with self._registries.transport() as transport:
            _, found = await self._registries.first(transport, reference, credentials, ask)
        return found

    async def search(self, term: str, *, limit: int, filters: Filters, credentials: AuthConfig) -> Sequence[SearchResult]:
        """Images by a word. See engine.search."""
        return await search(self._registries, term, limit=limit, filters=filters, credentials=credentials)


async def _platforms(repository: Repository, found: Manifest) -> list[Platform]:
    what = "the registry's manifest cannot be read"
    if found.media_type in (oci_layout.INDEX, oci_layout.DOCKER_INDEX):
        entries = decode(found.body, oci_layout.Index, what).manifests or []
        return [entry.platform for entry in entries if entry.platform is not None]
    manifest = decode(found.body, oci_layout.Manifest, what)
    return [decode(await repository.document(manifest.config, CONFIG_MAX), Platform, what)]
