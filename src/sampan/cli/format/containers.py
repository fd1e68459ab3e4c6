"""The fields of `sampan ps` (formatter.ContainerContext). Methods have the fields' names."""

from __future__ import annotations

import time

from sampan.cli.format.table import ellipsis
from sampan.cli.format.values import Methods, Ptr, Shown
from sampan.quoting import go_quote
from sampan.units import human_duration, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}
TABLE = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
RAW = (
    "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\n"
    "status: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n"
)


def layout(source: str, *, quiet: bool, size: bool) -> str:
    """The template of a --format (formatter.NewContainerFormat)."""
    if source in ("", "table"):
        return "{{.ID}}" if quiet else TABLE + ("\\t{{.Size}}" if size else "")
    if source == "raw":
        return "container_id: {{.ID}}" if quiet else RAW + ("size: {{.Size}}\\n" if size else "")
    return "{{.ID}}" if quiet else source


def short_id(text: str) -> str:
    """The first 12 characters of an ID without its algorithm (stringid.TruncateID)."""
    return text[text.find(":") + 1 :][:12]


def familiar(image: str) -> str:
    """An image as users write it: without docker.io/library/, without a digest; what is no reference stays."""
    if "@" not in image and not image.startswith(("docker.io/", "index.docker.io/", "library/")):
        return image
    from sampan.errors import InvalidArgument
    from sampan.reference import parse

    try:
        reference = parse(image)
    except InvalidArgument:
        return image
    return reference.familiar_name + (f":{reference.tag}" if reference.tag else "")


def labels(table: dict[str, str] | None, *, ordered: bool = True) -> str:
    """Labels as `k=v,k2=v2`."""
    pairs = [f"{key}={value}" for key, value in (table or {}).items()]
    return ",".join(sorted(pairs) if ordered else pairs)


class Container(Methods):
    """One row of ps."""

    go_type = "*formatter.ContainerContext"
    METHODS = (*HEADER, "Label")

    def __init__(self, summary: dict[str, Any], *, trunc: bool) -> None:
        self.c = summary
        self.trunc = trunc
        self.used: set[str] = set()

    def ID(self) -> str:
        full: str = self.c.get("Id") or ""
        return short_id(full) if self.trunc else full

    def Names(self) -> str:
        names = [name[1:] for name in self.c.get("Names") or ()]
        if self.trunc:
            own = [name for name in names if "/" not in name]
            names = own[:1] or names
        return ",".join(names)

    def Image(self) -> str:
        image: str = self.c.get("Image") or ""
        if not image:
            return "<no image>"
        if not self.trunc:
            return image
        short = short_id(self.c.get("ImageID") or "")
        return short if short == short_id(image) else familiar(image)

    def Command(self) -> str:
        command = self.c.get("Command") or ""
        return go_quote(ellipsis(command, 20) if self.trunc else command)

    def CreatedAt(self) -> str:
        from sampan.cli.format.gotime import local

        return local(self.c.get("Created") or 0)

    def RunningFor(self) -> str:
        return human_duration(time.time_ns() - (self.c.get("Created") or 0) * 10**9) + " ago"

    def Platform(self) -> Any:
        platform = (self.c.get("ImageManifestDescriptor") or {}).get("platform")
        if not platform:
            return Ptr("*formatter.Platform", None)
        from sampan.cli.format import schema

        parts = [platform.get("os") or "unknown", platform.get("architecture", ""), platform.get("variant", "")]
        if platform.get("os.version"):
            parts[0] += f"({platform['os.version']})"
        known = schema.decode("v1.Platform", platform)
        return Shown(known.schema, known.fields, "/".join(part for part in parts if part))

    def Ports(self) -> str:
        return ports(self.c.get("Ports") or [])

    def State(self) -> str:
        return self.c.get("State") or ""

    def Status(self) -> str:
        return self.c.get("Status") or ""

    def Size(self) -> str:
        self.used.add("Size")
        root = self.c.get("SizeRootFs") or 0
        written = human_size(self.c.get("SizeRw") or 0, 3)
        return f"{written} (virtual {human_size(root, 3)})" if root > 0 else written

    def Labels(self) -> str:
        return labels(self.c.get("Labels"))

    def Label(self, name: str) -> str:
        return str((self.c.get("Labels") or {}).get(name, ""))

    def Mounts(self) -> str:
        names = [mount.get("Name") or mount.get("Source") or "" for mount in self.c.get("Mounts") or ()]
        return ",".join(ellipsis(name, 15) if self.trunc else name for name in names)

    def LocalVolumes(self) -> str:
        return str(sum(mount.get("Driver") == "local" for mount in self.c.get("Mounts") or ()))

    def Networks(self) -> str:
        return ",".join((self.c.get("NetworkSettings") or {}).get("Networks") or {})


def _joined(ip: str, port: str) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def ports(table: list[dict[str, Any]]) -> str:
    """Ports as ps shows them, runs of neighbours as ranges (formatter.DisplayablePorts)."""
    groups: dict[str, list[int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    key = ("PrivatePort", 0), ("IP", ""), ("PublicPort", 0), ("Type", "")
    for port in sorted(table, key=lambda one: tuple(one.get(name) or default for name, default in key)):
        private, ip, kind = port.get("PrivatePort") or 0, port.get("IP") or "", port.get("Type") or ""
        public = port.get("PublicPort") or 0
        if ip and public != private:
            mapped.append(f"{_joined(ip, str(public))}->{private}/{kind}")
            continue
        name = f"{ip}/{kind}" if ip else kind
        group = groups.get(name)
        if group is None:
            groups[name] = [private, private]
        elif private == group[1] + 1:
            group[1] = private
        else:
            done.append(_group(name, group))
            groups[name] = [private, private]
    done += [_group(name, group) for name, group in groups.items()]
    return ", ".join(done + mapped)


def _group(name: str, group: list[int]) -> str:
    ip, _, kind = name.rpartition("/")
    text = str(group[0]) if group[0] == group[1] else f"{group[0]}-{group[1]}"
    return f"{_joined(ip, text)}->{text}/{kind}" if ip else f"{text}/{kind}"
