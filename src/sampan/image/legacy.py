"""Image archives of docker before 1.10: a directory for each image with `json` and `layer.tar`, and `repositories` for the names. Pure.

    <64 hex>/json       the image's config in its first form: id, parent (of another directory), config, container_config
    <64 hex>/layer.tar  what it changes of its parent
    repositories        {name: {tag: id}}

Its images get a config document of today's form, byte for byte as dockerd 28 makes it, so that they have the same ID.
Sources: moby image/tarexport/load.go legacyLoad, image/v1/imagev1.go.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from sampan.archive.spool import Member
from sampan.errors import InvalidArgument
from sampan.image.archives import DOCUMENT_MAX, IMAGES_MAX, NAMES_MAX, Archive
from sampan.image.store import Image
from sampan.reference import InvalidReference, Reference, parse
from sampan.spec.oci_documents import decode

DEPTH_MAX: Final = 127
"""Layers of one image: docker's limit."""
_WHAT = "invalid archive: an image's json"
_NEVER = "0001-01-01T00:00:00Z"
_DROPPED = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")
_RAW_SINCE = (1, 8, 3)
"""The docker that made documents which are kept as they are; those of older ones are written again, field by field."""
_V1_FIELDS = ("comment", "docker_version", "author", "architecture", "variant", "os")
_CONFIG_FIELDS: tuple[tuple[str, Any], ...] = (
    ("Hostname", ""), ("Domainname", ""), ("User", ""), ("AttachStdin", False), ("AttachStdout", False), ("AttachStderr", False),
    ("ExposedPorts", ...), ("Tty", False), ("OpenStdin", False), ("StdinOnce", False), ("Env", None), ("Cmd", None), ("Healthcheck", ...),
    ("ArgsEscaped", ...), ("Image", ""), ("Volumes", None), ("WorkingDir", ""), ("Entrypoint", None), ("NetworkDisabled", ...),
    ("MacAddress", ...), ("OnBuild", None), ("Labels", None), ("StopSignal", ...), ("StopTimeout", ...), ("Shell", ...),
)  # fmt: skip
"""Fields of docker's Config in its order, with what stands for an absent one; ... is left out."""


class LegacyImage(NamedTuple):
    """One directory of the archive."""

    old_id: str
    document: bytes
    parent: str
    """Another's old_id, or empty."""
    layer: Member


class _Head(msgspec.Struct):
    parent: str | None = None
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    docker_version: str | None = None
    container_config: Any = None


def is_legacy(archive: Archive) -> bool:
    """Whether it is in this form, and in no newer one too."""
    return archive.has("repositories") and not archive.has("manifest.json") and not archive.has("index.json")


def images(archive: Archive) -> Iterator[LegacyImage]:
    """Its images, parents before children. Raises InvalidArgument."""
    directories = archive.directories()
    if len(directories) > IMAGES_MAX:
        raise InvalidArgument(f"invalid archive: more than {IMAGES_MAX} images")
    every = {name: _read(archive, name) for name in directories}
    given: set[str] = set()
    for name in sorted(every):
        line: list[str] = []
        while name and name not in given:
            if name not in every:
                raise InvalidArgument(f"invalid archive: {name}/json: no such file or directory")
            if name in line:
                raise InvalidArgument(f"invalid archive: image {name} is its own ancestor")
            line.append(name)
            name = every[name].parent
        given.update(line)
        yield from (every[one] for one in reversed(line))


def _read(archive: Archive, name: str) -> LegacyImage:
    document = archive.document(f"{name}/json")
    archive.charge(document)  # each, links to one as well: each is read again
    head = decode(document, _Head, _WHAT)
    return LegacyImage(name, document, head.parent or "", archive.find(f"{name}/layer.tar"))


def names(archive: Archive, known: Collection[str]) -> list[tuple[Reference, str]]:
    """The names in `repositories`, each with the old ID of its image. known: all old IDs. Raises InvalidArgument."""
    found: list[tuple[Reference, str]] = []
    for name, tags in archive.decode("repositories", dict[str, dict[str, str]]).items():
        for tag, old_id in tags.items():
            if old_id not in known:
                raise InvalidArgument(f"invalid target ID: {old_id}")
            if len(found) == NAMES_MAX:
                raise InvalidArgument(f"invalid archive: repositories has more than {NAMES_MAX} names")
            # apart: together `name@sha256` and 64 digits would be a digest, and the image what others have pinned by it
            repository = parse(name)
            if repository.tag is not None or repository.digest is not None:
                raise InvalidReference(f"invalid repository name ({name})")
            found.append((repository.with_tag(tag), old_id))
    return found


def document(legacy: LegacyImage, parent: Image | None, diff_id: str) -> bytes:
    """The config document of an image whose layer has that diffID. Raises InvalidArgument."""
    if parent is not None and len(parent.chain) >= DEPTH_MAX:
        raise InvalidArgument("max depth exceeded")
    head = decode(legacy.document, _Head, _WHAT)
    fields = decode(legacy.document, dict[str, msgspec.Raw], _WHAT)
    if _version(head.docker_version or "") < _RAW_SINCE:
        fields = _written_again(legacy.document)
    below = {} if parent is None else decode(parent.document, dict[str, Any], _WHAT)
    diff_ids = [*below.get("rootfs", {}).get("diff_ids", ()), diff_id]
    history = [*below.get("history", ()), _step(head)]
    for name in _DROPPED:
        fields.pop(name, None)
    fields["rootfs"] = _raw({"type": "layers", "diff_ids": diff_ids})
    fields["history"] = _raw(history)
    made = b",".join(msgspec.json.encode(key) + b":" + bytes(fields[key]) for key in sorted(fields))
    made = _as_go_escapes(msgspec.json.format(b"{" + made + b"}", indent=-1))
    if len(made) > DOCUMENT_MAX:
        raise InvalidArgument(f"invalid archive: an image's config is too large: {len(made)} bytes, at most {DOCUMENT_MAX}")
    return made


def _version(text: str) -> tuple[int, ...]:
    parts = text.split("-")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() and len(part) < 9 for part in parts) else ()


def _step(head: _Head) -> dict[str, str]:
    command = head.container_config.get("Cmd") if isinstance(head.container_config, dict) else None
    words = command if isinstance(command, list) else []
    step = {"created": head.created or _NEVER, "created_by": " ".join(map(str, words)), "author": head.author, "comment": head.comment}
    return {key: text for key, text in step.items() if text}


def _written_again(document: bytes) -> dict[str, msgspec.Raw]:
    old = decode(document, dict[str, Any], _WHAT)
    new: dict[str, Any] = {key: old[key] for key in _V1_FIELDS if old.get(key)}
    new["created"] = old.get("created") or _NEVER
    if old.get("container"):
        new["container"] = old["container"]
    new["container_config"] = _config(old.get("container_config"))
    if old.get("config") is not None:
        new["config"] = _config(old["config"])
    return {key: _raw(value) for key, value in new.items()}


def _config(old: Any) -> dict[str, Any]:
    given = old if isinstance(old, dict) else {}
    new: dict[str, Any] = {}
    for key, absent in _CONFIG_FIELDS:
        value = given.get(key)
        if value is not None and (value or absent is not ...):
            new[key] = value
        elif absent is not ...:
            new[key] = absent
    return new


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _as_go_escapes(document: bytes) -> bytes:
    """These bytes are only ever inside of strings."""
    for byte in b"&<>":
        document = document.replace(bytes((byte,)), b"\\u%04x" % byte)
    return document.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")
