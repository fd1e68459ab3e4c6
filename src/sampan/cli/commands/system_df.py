"""sampan system df."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format import containers, images, objects
from sampan.cli.format.formatter import FORMAT_HELP, parse, render
from sampan.cli.format.values import GoList, GoMap
from sampan.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Show docker disk usage",
    max_args=0,
    aliases=("system df",),
    flags=(
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("verbose", "v", "bool", False, "Show detailed information on space usage"),
    ),
)
_RAW = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n"
_IMAGES = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"
_CONTAINERS = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
_VOLUMES = "table {{.Name}}\t{{.Links}}\t{{.Size}}"
_CACHE = "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}"


def run(ctx: Context, args: Parsed) -> int:
    """Print what the daemon says about disk usage."""
    df = ctx.client.request("GET", "/system/df").json()
    source = args.str("format") or "table"
    if args.bool("verbose"):
        sys.stdout.write(_verbose(df, source))
        return 0
    if source == "table":
        source = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
    sys.stdout.write(render(_RAW if source == "raw" else source, objects.usages(df), objects.Usage, objects.DF_HEADER))
    return 0


def _verbose(df: dict[str, Any], source: str) -> str:
    trunc = source.startswith("table")
    image_rows = []
    for image in df.get("Images") or ():
        named = [row for row in images.rows([image], "", trunc=trunc, digests=False) if row.Tag() != "<none>"]
        image_rows.append(
            images.Image(image, named[0].Repository(), named[0].Tag(), "", trunc=trunc)
            if named
            else images.Image(image, "<none>", "<none>", "", trunc=trunc)
        )
    container_rows = [containers.Container({**one, "SizeRootFs": 0}, trunc=trunc) for one in df.get("Containers") or ()]
    volume_rows = [objects.Volume(one) for one in df.get("Volumes") or ()]
    cache = sorted(df.get("BuildCache") or (), key=lambda one: (one.get("LastUsedAt") or "", one.get("ID") or ""))
    cache_rows = [objects.Cache(one, trunc=trunc) for one in cache]
    if source != "table":
        text = "{{json .}}" if source == "json" else source.removeprefix("table")
        data = GoMap(
            "*formatter.diskUsageContext",
            {
                "Images": GoList("[]*formatter.imageContext", list(image_rows)),
                "Containers": GoList("[]*formatter.ContainerContext", list(container_rows)),
                "Volumes": GoList("[]*formatter.volumeContext", list(volume_rows)),
                "BuildCache": GoList("[]*formatter.buildCacheContext", list(cache_rows)),
            },
        )
        if text == "{{json .}}":
            from sampan.cli.format import gojson

            return "{" + ",".join(f'"{key}":{gojson.dumps(data[key])}' for key in data) + "}"
        result: str = parse(text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")).execute(data)
        return result
    built = human_size(sum(one.get("Size") or 0 for one in cache if not one.get("Shared")))
    return (
        "Images space usage:\n\n"
        + render(_IMAGES, image_rows, images.Image, images.HEADER)
        + "\nContainers space usage:\n\n"
        + render(_CONTAINERS, container_rows, containers.Container, containers.HEADER)
        + "\nLocal Volumes space usage:\n\n"
        + render(_VOLUMES, volume_rows, objects.Volume, objects.VOLUME_HEADER)
        + f"\nBuild cache usage: {built}\n\n"
        + render(_CACHE, cache_rows, objects.Cache, objects.CACHE_HEADER)
    )
