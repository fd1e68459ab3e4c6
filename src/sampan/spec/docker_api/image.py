"""Images (moby api/types/image; API v1.51; the Config is OCI image-spec config.md plus docker's extensions)."""

from typing import Any

import msgspec

from sampan.spec.docker_api.base import Body, EmptySet, StrSlice, always
from sampan.spec.docker_api.container import HealthConfig
from sampan.spec.docker_api.inspect import GraphDriverData
from sampan.spec.oci_layout import Descriptor, Platform


class ImageConfig(Body, frozen=True, kw_only=True):
    """An image's defaults for containers (from API 1.50 on without the fields that only containers have)."""

    user: str = always("")
    exposed_ports: EmptySet | None = None
    env: list[str] | None = always(None)
    entrypoint: StrSlice | None = always(None)
    cmd: StrSlice | None = always(None)
    volumes: EmptySet | None = always(None)
    working_dir: str = always("")
    labels: dict[str, str] | None = always(None)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: HealthConfig | None = None
    on_build: list[str] | None = always(None)
    shell: StrSlice | None = None


class RootFS(Body, frozen=True, kw_only=True):
    """The layers' diff IDs, bottom first."""

    type: str = always("layers")
    layers: list[str] | None = None


class ImageMetadata(Body, frozen=True, kw_only=True):
    """When the image was last tagged here."""

    last_tag_time: str = always("0001-01-01T00:00:00Z")


class ImageInspect(Body, frozen=True, kw_only=True):
    """GET /images/{name}/json. size in bytes; created in RFC 3339."""

    id: str
    repo_tags: list[str]
    repo_digests: list[str]
    parent: str = always("")
    comment: str = always("")
    created: str = ""
    docker_version: str = always("")
    author: str = always("")
    config: ImageConfig | None = always(None)
    architecture: str = always("")
    variant: str = ""
    os: str = always("linux")
    os_version: str = ""
    size: int = always(0)
    virtual_size: int = 0
    graph_driver: GraphDriverData = always(GraphDriverData())
    root_fs: RootFS = always(RootFS())
    metadata: ImageMetadata = always(ImageMetadata())
    descriptor: dict[str, Any] | None = None


class ImageSummary(Body, frozen=True, kw_only=True):
    """One entry of GET /images/json. created in Unix seconds, sizes in bytes; -1 = not worked out."""

    containers: int = always(-1)
    created: int = always(0)
    id: str
    labels: dict[str, str] | None = always(None)
    parent_id: str = always("")
    descriptor: dict[str, Any] | None = None
    repo_digests: list[str] | None
    repo_tags: list[str] | None
    shared_size: int = always(-1)
    size: int = always(0)
    virtual_size: int = 0


class ImageDeleteItem(Body, frozen=True, kw_only=True):
    """One thing a removal did: a name taken off, or an object deleted."""

    untagged: str = ""
    deleted: str = ""


class ImageHistoryItem(Body, frozen=True, kw_only=True):
    """One line of `docker history`; created in Unix seconds."""

    comment: str = always("")
    created: int = always(0)
    created_by: str = always("")
    id: str = always("<missing>")
    size: int = always(0)
    tags: list[str] | None = always(None)


class ImagesPruneReport(Body, frozen=True, kw_only=True):
    """POST /images/prune."""

    images_deleted: list[ImageDeleteItem] | None = always(None)
    space_reclaimed: int = always(0)


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an index knows of an image (moby api/types/registry/search.go)."""

    star_count: int = 0
    is_official: bool = False
    name: str = ""
    is_automated: bool = False
    description: str = ""


class BuildPruneReport(Body, frozen=True, kw_only=True):
    """POST /build/prune."""

    caches_deleted: list[str] | None = always(None)
    space_reclaimed: int = always(0)


class DistributionInspect(Body, frozen=True, kw_only=True):
    """What a registry has by a name."""

    descriptor: Descriptor
    platforms: list[Platform]
