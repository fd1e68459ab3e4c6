"""The fields of `network ls`, `volume ls` and `system df`. Methods have the fields' names."""

from __future__ import annotations

import time

from sampan.cli.format.containers import labels, short_id
from sampan.cli.format.values import Methods
from sampan.units import human_duration, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NETWORK_HEADER = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
VOLUME_HEADER = {
    "Name": "VOLUME NAME",
    "Group": "GROUP",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Availability": "AVAILABILITY",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Status": "STATUS",
}
CHECK_HEADER = {
    "Kind": "KIND",
    "Subject": "SUBJECT",
    "Problem": "PROBLEM",
    "Remedy": "REMEDY",
    "Repairable": "REPAIRABLE",
    "Repaired": "REPAIRED",
}
DF_HEADER = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
CACHE_HEADER = {
    "ID": "CACHE ID",
    "Parent": "PARENT",
    "CacheType": "CACHE TYPE",
    "Size": "SIZE",
    "CreatedSince": "CREATED",
    "LastUsedSince": "LAST USED",
    "UsageCount": "USAGE",
    "InUse": "IN USE",
    "Shared": "SHARED",
    "Description": "DESCRIPTION",
}


def _bool(value: object) -> str:
    return "true" if value else "false"


class Network(Methods):
    """One row of network ls."""

    go_type = "*network.networkContext"
    METHODS = (*NETWORK_HEADER, "Label")

    def __init__(self, network: dict[str, Any], *, trunc: bool) -> None:
        self.n = network
        self.trunc = trunc

    def ID(self) -> str:
        full: str = self.n.get("Id") or ""
        return short_id(full) if self.trunc else full

    def Name(self) -> str:
        return self.n.get("Name") or ""

    def Driver(self) -> str:
        return self.n.get("Driver") or ""

    def Scope(self) -> str:
        return self.n.get("Scope") or ""

    def IPv4(self) -> str:
        return _bool(self.n.get("EnableIPv4"))

    def IPv6(self) -> str:
        return _bool(self.n.get("EnableIPv6"))

    def Internal(self) -> str:
        return _bool(self.n.get("Internal"))

    def Labels(self) -> str:
        return labels(self.n.get("Labels"))

    def Label(self, name: str) -> str:
        return str((self.n.get("Labels") or {}).get(name, ""))

    def CreatedAt(self) -> str:
        from sampan.cli.format.gotime import go_string

        return go_string(self.n.get("Created") or "0001-01-01T00:00:00Z")


class Volume(Methods):
    """One row of volume ls."""

    go_type = "*formatter.volumeContext"
    METHODS = (*VOLUME_HEADER, "Label")

    def __init__(self, volume: dict[str, Any]) -> None:
        self.v = volume

    def Name(self) -> str:
        return self.v.get("Name") or ""

    def Driver(self) -> str:
        return self.v.get("Driver") or ""

    def Scope(self) -> str:
        return self.v.get("Scope") or ""

    def Mountpoint(self) -> str:
        return self.v.get("Mountpoint") or ""

    def Labels(self) -> str:
        return labels(self.v.get("Labels"))

    def Label(self, name: str) -> str:
        return str((self.v.get("Labels") or {}).get(name, ""))

    def Links(self) -> str:
        usage = self.v.get("UsageData")
        return str(usage.get("RefCount", 0)) if usage else "N/A"

    def Size(self) -> str:
        usage = self.v.get("UsageData")
        return human_size(usage.get("Size", 0)) if usage else "N/A"

    def _spec(self) -> dict[str, Any] | None:
        cluster = self.v.get("ClusterVolume")
        return (cluster.get("Spec") or {}) if cluster else None

    def Group(self) -> str:
        spec = self._spec()
        return "N/A" if spec is None else spec.get("Group", "")

    def Availability(self) -> str:
        spec = self._spec()
        return "N/A" if spec is None else spec.get("Availability", "")

    def Status(self) -> str:
        cluster = self.v.get("ClusterVolume")
        if not cluster:
            return "N/A"
        if not (cluster.get("Info") or {}).get("VolumeID"):
            return "pending creation"
        count = len(cluster.get("PublishStatus") or ())
        return "created" if not count else "in use (1 node)" if count == 1 else f"in use ({count} nodes)"


class Cache(Methods):
    """One row of the build cache in system df -v."""

    go_type = "*formatter.buildCacheContext"
    METHODS = tuple(CACHE_HEADER)

    def __init__(self, record: dict[str, Any], *, trunc: bool) -> None:
        self.r = record
        self.trunc = trunc

    def ID(self) -> str:
        name: str = self.r.get("ID") or ""
        name = short_id(name) if self.trunc else name
        return name + "*" if self.r.get("InUse") else name

    def Parent(self) -> str:
        name = ",".join(self.r.get(" Parents") or self.r.get("Parents") or ()) or self.r.get("Parent") or ""
        return short_id(name) if self.trunc else name

    def CacheType(self) -> str:
        return self.r.get("Type") or ""

    def Size(self) -> str:
        return human_size(self.r.get("Size") or 0, 3)

    def CreatedSince(self) -> str:
        return self._since("CreatedAt")

    def LastUsedSince(self) -> str:
        return self._since("LastUsedAt")

    def _since(self, key: str) -> str:
        text = self.r.get(key)
        if not text:
            return ""
        import datetime

        then = datetime.datetime.fromisoformat(text[:19] + "+00:00").timestamp()
        return human_duration(int((time.time() - then) * 10**9)) + " ago"

    def UsageCount(self) -> str:
        return str(self.r.get("UsageCount") or 0)

    def InUse(self) -> str:
        return _bool(self.r.get("InUse"))

    def Shared(self) -> str:
        return _bool(self.r.get("Shared"))

    def Description(self) -> str:
        return self.r.get("Description") or ""


class Finding(Methods):
    """One row of system check."""

    go_type = "*formatter.checkContext"
    METHODS = tuple(CHECK_HEADER)

    def __init__(self, finding: dict[str, Any]) -> None:
        self.f = finding

    def Kind(self) -> str:
        return self.f.get("Kind") or ""

    def Subject(self) -> str:
        return self.f.get("Subject") or ""

    def Problem(self) -> str:
        return self.f.get("Problem") or ""

    def Remedy(self) -> str:
        return self.f.get("Remedy") or ""

    def Repairable(self) -> str:
        return _bool(self.f.get("Repairable"))

    def Repaired(self) -> str:
        return _bool(self.f.get("Repaired"))


class Usage(Methods):
    """One row of system df."""

    METHODS = tuple(DF_HEADER)

    def __init__(self, kind: str, count: int, active: int, size: int, reclaimable: int, *, percent: bool = True) -> None:
        self.go_type = f"*formatter.diskUsage{kind.split()[-1].replace('Cache', 'Builder')}Context"
        self.kind = kind
        self.count, self.active, self.size, self.reclaimable, self.percent = count, active, size, reclaimable, percent

    def Type(self) -> str:
        return self.kind

    def TotalCount(self) -> str:
        return str(self.count)

    def Active(self) -> str:
        return str(self.active)

    def Size(self) -> str:
        return human_size(self.size)

    def Reclaimable(self) -> str:
        text = human_size(self.reclaimable)
        if self.percent and self.size > 0:
            share = int(self.reclaimable * 100 / self.size)  # Go's division of integers cuts towards zero
            return f"{text} ({share}%)"
        return text


def usages(df: dict[str, Any]) -> list[Usage]:
    """The rows of system df from the API's answer."""
    images, containers = df.get("Images") or [], df.get("Containers") or []
    volumes, cache = df.get("Volumes") or [], df.get("BuildCache") or []
    total = df.get("LayersSize") or 0
    used = sum(
        image.get("Size", 0) - image.get("SharedSize", 0)
        for image in images
        if image.get("Containers", 0) != 0 and -1 not in (image.get("Size", 0), image.get("SharedSize", 0))
    )
    active = [one for one in containers if one.get("State") in ("running", "paused", "restarting")]
    written = sum(one.get("SizeRw") or 0 for one in containers)
    sizes = [((one.get("UsageData") or {}).get("RefCount", 0), (one.get("UsageData") or {}).get("Size", 0)) for one in volumes]
    known = [(count, size) for count, size in sizes if size != -1]
    built = sum(one.get("Size") or 0 for one in cache if not one.get("Shared"))
    in_use = sum(one.get("Size") or 0 for one in cache if one.get("InUse") and not one.get("Shared"))
    return [
        Usage("Images", len(images), sum(image.get("Containers", 0) > 0 for image in images), total, total - used),
        Usage("Containers", len(containers), len(active), written, written - sum(one.get("SizeRw") or 0 for one in active)),
        Usage(
            "Local Volumes",
            len(volumes),
            sum(count > 0 for count, _ in sizes),
            sum(size for _, size in known),
            sum(size for count, size in known if count == 0),
        ),
        Usage("Build Cache", len(cache), sum(bool(one.get("InUse")) for one in cache), built, built - in_use, percent=False),
    ]
