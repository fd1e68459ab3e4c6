"""The fields of `sampan images` and `sampan history` (formatter.imageContext, image.historyContext). Methods have the fields' names."""

from __future__ import annotations

import time

from sampan.cli.format.containers import short_id
from sampan.cli.format.table import ellipsis
from sampan.cli.format.values import Methods
from sampan.units import human_duration, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

HEADER = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
_RAW = "repository: {{ .Repository }}\ntag: {{.Tag}}\n%simage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
_YEAR_2000 = 946684800


def layout(source: str, *, quiet: bool, digests: bool) -> str:
    """The template of a --format (formatter.NewImageFormat)."""
    if source == "table":
        if quiet:
            return "{{.ID}}"
        return "table {{.Repository}}\t{{.Tag}}\t" + ("{{.Digest}}\t" if digests else "") + "{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    if source == "raw":
        return "image_id: {{.ID}}" if quiet else _RAW % ("digest: {{.Digest}}\n" if digests else "")
    if source.startswith("table") and digests and "{{.Digest}}" not in source:
        return source + "\t{{.Digest}}"
    return source


def _split(reference: str) -> tuple[str, str, str] | None:
    """Familiar name, tag and digest of a reference; None if it is none."""
    if "@" not in reference and not reference.startswith(("docker.io/", "index.docker.io/", "library/")) and reference.islower():
        name, colon, tag = reference.rpartition(":")
        if colon and "/" not in tag and name.replace("/", "").replace("-", "").replace("_", "").replace(".", "").replace(":", "").isalnum():
            return name, tag, ""
    from sampan.errors import InvalidArgument
    from sampan.reference import parse

    try:
        parsed = parse(reference)
    except InvalidArgument:
        return None
    return parsed.familiar_name, parsed.tag or "", str(parsed.digest or "")


def is_dangling(image: dict[str, Any]) -> bool:
    """Whether an image has neither tags nor digests."""
    tags, digests = image.get("RepoTags") or [], image.get("RepoDigests") or []
    return (not tags and not digests) or (tags == ["<none>:<none>"] and digests == ["<none>@<none>"])


def rows(images: Iterable[dict[str, Any]], template: str, *, trunc: bool, digests: bool) -> list[Image]:
    """One row for every name of every image."""
    wants_digest = digests or "{{.Digest}}" in template
    out: list[Image] = []
    for image in images:
        if is_dangling(image):
            out.append(Image(image, "<none>", "<none>", "<none>", trunc=trunc))
            continue
        by_tag: dict[str, list[str]] = {}
        by_digest: dict[str, list[str]] = {}
        for text in image.get("RepoTags") or ():
            parts = _split(text)
            if parts and parts[1]:
                by_tag.setdefault(parts[0], []).append(parts[1])
        for text in image.get("RepoDigests") or ():
            parts = _split(text)
            if parts and parts[2]:
                by_digest.setdefault(parts[0], []).append(parts[2])
        for repository, tags in by_tag.items():
            known = by_digest.pop(repository, []) if wants_digest else by_digest.pop(repository, []) and []
            out += [Image(image, repository, tag, digest, trunc=trunc) for tag in tags for digest in known or ["<none>"]]
        for repository, known in by_digest.items():
            out += [Image(image, repository, "<none>", digest, trunc=trunc) for digest in (known if digests else [""])]
    return out


class Image(Methods):
    """One row of images."""

    go_type = "*formatter.imageContext"
    METHODS = tuple(HEADER)

    def __init__(self, summary: dict[str, Any], repository: str, tag: str, digest: str, *, trunc: bool) -> None:
        self.i = summary
        self.repository, self.tag, self.digest = repository, tag, digest
        self.trunc = trunc

    def ID(self) -> str:
        full: str = self.i.get("Id") or ""
        return short_id(full) if self.trunc else full

    def Repository(self) -> str:
        return self.repository

    def Tag(self) -> str:
        return self.tag

    def Digest(self) -> str:
        return self.digest

    def CreatedSince(self) -> str:
        return human_duration(time.time_ns() - (self.i.get("Created") or 0) * 10**9) + " ago"

    def CreatedAt(self) -> str:
        from sampan.cli.format.gotime import local

        return local(self.i.get("Created") or 0)

    def Size(self) -> str:
        return human_size(self.i.get("Size") or 0, 3)

    def Containers(self) -> str:
        count = self.i.get("Containers", 0)
        return "N/A" if count == -1 else str(count)

    def VirtualSize(self) -> str:
        return human_size(self.i.get("Size") or 0)

    def SharedSize(self) -> str:
        shared = self.i.get("SharedSize", 0)
        return "N/A" if shared == -1 else human_size(shared)

    def UniqueSize(self) -> str:
        size, shared = self.i.get("Size", 0), self.i.get("SharedSize", 0)
        return "N/A" if -1 in (size, shared) else human_size(size - shared)


HISTORY_HEADER = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}


class History(Methods):
    """One row of history."""

    go_type = "*image.historyContext"
    METHODS = tuple(HISTORY_HEADER)

    def __init__(self, item: dict[str, Any], *, trunc: bool, human: bool) -> None:
        self.h = item
        self.trunc = trunc
        self.human = human

    def ID(self) -> str:
        full: str = self.h.get("Id") or ""
        return short_id(full) if self.trunc else full

    def CreatedAt(self) -> str:
        from sampan.cli.format.gotime import rfc3339

        return rfc3339(self.h.get("Created") or 0)

    def CreatedSince(self) -> str:
        if not self.human:
            return self.CreatedAt()
        created = self.h.get("Created") or 0
        return "N/A" if created <= _YEAR_2000 else human_duration(time.time_ns() - created * 10**9) + " ago"

    def CreatedBy(self) -> str:
        text = (self.h.get("CreatedBy") or "").replace("\t", " ")
        return ellipsis(text, 45) if self.trunc else text

    def Size(self) -> str:
        size = self.h.get("Size") or 0
        return human_size(size, 3) if self.human else str(size)

    def Comment(self) -> str:
        return self.h.get("Comment") or ""
