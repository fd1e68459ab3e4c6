"""Which requests are for a mirrored registry: by `?ns=`, by the prefix of the name, or because it is not here."""

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from sampan.content.partial import PartialBlobs
from sampan.distribution.transport import Transport
from sampan.proxies import Proxies
from sampan.registry.config import MirrorConfig
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import Gate
from sampan.registry.http import Request
from sampan.registry.mirror.cache import Cache
from sampan.registry.mirror.mirror import Mirror
from sampan.registry.mirror.tidy import drop_dangling_links
from sampan.registry.mirror.upstream import Place, Upstream
from sampan.registry.names import checked_digest, is_digest
from sampan.registry.parts import Parts
from sampan.registry.storages import secret_of
from sampan.registry.store import Blobs, Manifests
from sampan.version import ENGINE_VERSION

FALLING_BACK = frozenset(("manifest", "blob", "tags", "referrers"))
"""Routes that the default upstream is asked for."""
MIRRORED = FALLING_BACK | {"uploads", "upload"}
"""Routes of repositories, of mirrored ones too. Pages show only what is here."""


class Mirrors:
    """All upstreams. Made by open()."""

    def __init__(
        self, mirror: Mirror, upstreams: Mapping[str, Upstream], default: Upstream | None, tidy: Callable[[], Awaitable[None]]
    ) -> None:
        """tidy: takes away what is of no use any more; to be called now and then."""
        self.mirror = mirror
        self.tidy = tidy
        self._upstreams = upstreams
        self._default = default

    @classmethod
    async def open(cls, config: Mapping[str, MirrorConfig], root: Path, cache_bytes: int, stack: AsyncExitStack) -> "Mirrors":
        """root: of the registry; what is mirrored lies below it. stack: what has to be closed. Raises SystemFailure, OSError."""
        directory = root / "sampan/mirror"
        directory.mkdir(parents=True, exist_ok=True)
        storage, gate = FileSystem(directory), Gate()
        transport = await stack.enter_async_context(Transport(f"docker/{ENGINE_VERSION} sampan-registry", Proxies.of(os.environ, {})))
        passwords = {name: secret_of(one.password_file) if one.password_file else "" for name, one in config.items()}
        upstreams = {name: Upstream(name, one, transport, passwords[name]) for name, one in config.items()}
        cache = Cache(storage, cache_bytes)
        await cache.load()
        partials = PartialBlobs(directory, is_digest)
        mirror = Mirror(storage, Blobs(storage, gate), Manifests(storage, gate), partials, cache)

        async def tidy() -> None:
            partials.drop_old()
            await drop_dangling_links(storage, gate)

        stack.push_async_callback(mirror.close)
        return cls(mirror, upstreams, next((upstreams[name] for name, one in config.items() if one.default), None), tidy)

    def find(self, name: str, namespace: str) -> Place | None:
        """None: it is for us, as is what `?ns=` says of a registry that is not mirrored: somebody may have pushed its images here."""
        if namespace:
            upstream = self._upstreams.get(namespace)
            return Place(upstream, upstream.path_of(name), namespace) if upstream is not None else None
        for upstream in self._upstreams.values():
            if upstream.prefix and name.startswith(upstream.prefix + "/"):
                return Place(upstream, upstream.path_of(name.removeprefix(upstream.prefix + "/")), "")
        return None

    async def place_of(self, request: Request, parts: Parts) -> Place | None:
        """Where a request is for; None: it is for us. parts: ours."""
        if request.route not in MIRRORED:
            return None
        namespace = request.one("ns")
        place = self.find(request.name, namespace)
        if place is not None or namespace or self._default is None or not await _may_be_elsewhere(request, parts):
            return place
        return Place(self._default, self._default.path_of(request.name), "")


async def _may_be_elsewhere(request: Request, parts: Parts) -> bool:
    """Whether a request to read is for what is not here, and may be at the default upstream."""
    if request.method not in ("GET", "HEAD") or request.route not in FALLING_BACK or await parts.manifests.has_any(request.name):
        return False
    if request.route != "blob":
        return True
    # Whoever is about to push asks by HEAD what need not be sent: what another registry has is not here.
    if request.method == "HEAD" and request.user.may("push", request.name):
        return False
    return not await parts.blobs.has(request.name, checked_digest(request.variables["digest"]))
