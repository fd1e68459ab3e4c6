"""Images in the words of docker's API: list, inspect and history bodies. Pure."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice

import msgspec

from sampan.clock import rfc3339nano
from sampan.digest import ChainId
from sampan.image.store import Image
from sampan.reference import Reference
from sampan.spec.docker_api import image as body
from sampan.spec.docker_api.container import HealthConfig
from sampan.spec.docker_api.inspect import GraphDriverData

LayerSize = Callable[[ChainId], int]
"""Bytes of one layer's own files."""


def created_ns(image: Image) -> int:
    """When the image was made, ns since the epoch; 0 = not said or not a time."""
    return _nanoseconds(image.config.created)


def _nanoseconds(stamp: str | None) -> int:
    try:
        moment = datetime.fromisoformat(stamp or "")
    except ValueError:
        return 0
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    digits = (stamp or "").partition(".")[2]
    fraction = "".join(digits[: next((i for i, c in enumerate(digits) if not c.isdecimal()), len(digits))])[:9].ljust(9, "0")
    return max(0, int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + int(fraction or 0))


def total_size(image: Image, layer_size: LayerSize) -> int:
    """docker's SIZE: sum of all layers' file sizes, bytes."""
    return sum(map(layer_size, image.chain))


def split_references(references: list[Reference]) -> tuple[list[str], list[str]]:
    """(RepoTags, RepoDigests) in familiar form."""
    tags = [reference.familiar for reference in references if reference.digest is None]
    return tags, [reference.familiar for reference in references if reference.digest is not None]


def summary(image: Image, references: list[Reference], size: int, *, containers: int, shared_size: int) -> body.ImageSummary:
    """One entry of the list."""
    tags, digests = split_references(references)
    return body.ImageSummary(
        id=image.id,
        parent_id=image.parent,
        repo_tags=tags,
        repo_digests=digests,
        created=created_ns(image) // 1_000_000_000,
        size=size,
        shared_size=shared_size,
        labels=image.config.config.labels if image.config.config is not None else None,
        containers=containers,
    )


def _config(image: Image) -> body.ImageConfig:
    config = image.config.config
    if config is None:
        return body.ImageConfig()
    health = config.healthcheck
    return body.ImageConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=config.labels,
        stop_signal=config.stop_signal,
        args_escaped=config.args_escaped,
        on_build=config.on_build,
        shell=config.shell,
        healthcheck=None if health is None else HealthConfig(**msgspec.structs.asdict(health)),
    )


def inspect(image: Image, references: list[Reference], size: int, driver: GraphDriverData) -> body.ImageInspect:
    """The inspect body."""
    tags, digests = split_references(references)
    config = image.config
    history = config.history or []
    return body.ImageInspect(
        id=image.id,
        repo_tags=tags,
        repo_digests=digests,
        parent=image.parent,
        comment=history[-1].comment if history else "",
        created=config.created or "",
        docker_version=config.docker_version,
        author=config.author,
        config=_config(image),
        architecture=config.architecture,
        variant=config.variant,
        os=config.os,
        os_version=config.os_version,
        size=size,
        graph_driver=driver,
        root_fs=body.RootFS(layers=config.rootfs.diff_ids or None),
        metadata=body.ImageMetadata(last_tag_time=rfc3339nano(image.last_tagged)),
    )


def history(image: Image, lineage: Iterable[tuple[str, list[Reference]]], layer_size: LayerSize) -> list[body.ImageHistoryItem]:
    """Layers, newest first. lineage: ID and names of the image, its parent and so on, which the newest steps carry in turn."""
    items: list[body.ImageHistoryItem] = []
    layers = iter(image.chain)
    for entry in image.config.history or []:
        # the layers are one for each entry that is not empty: checked when the image came in
        size = 0 if entry.empty_layer else layer_size(next(layers))
        items.append(
            body.ImageHistoryItem(
                comment=entry.comment, created=_nanoseconds(entry.created) // 1_000_000_000, created_by=entry.created_by, size=size
            )
        )
    items.reverse()
    for position, (image_id, references) in enumerate(islice(lineage, len(items))):
        items[position] = msgspec.structs.replace(items[position], id=image_id, tags=split_references(references)[0] or None)
    return items
