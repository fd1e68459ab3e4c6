"""Image archives for tests, in the forms that others write: docker's old and new one, OCI layouts. Layers and configs are real."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from sampan.archive import writer
from sampan.archive.reader import REGULAR, SYMLINK
from tests.support.engine import Engine

INDEX, MANIFEST = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    """`sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(*layers: bytes, **more: Any) -> bytes:
    """A config document for layers, bottom first, given as plain tars."""
    history = [{"created": "2020-01-02T03:04:05Z", "created_by": f"layer {number}"} for number in range(len(layers))]
    document = {
        "architecture": "amd64", "os": "linux", "created": "2020-01-02T03:04:05Z", "config": {"Cmd": ["sh"], "Env": ["A=<b>&c"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}, "history": history, **more,
    }  # fmt: skip
    return json.dumps(document).encode()


def base_layer(engine: Engine) -> bytes:
    """The bottom layer of an engine's busybox image: what is put upon it can run."""
    with tarfile.open(fileobj=io.BytesIO(engine.request("GET", "/images/busybox/get")[1])) as archive:
        (item,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        return archive.extractfile(item["Layers"][0]).read()  # type: ignore[union-attr]


def packed(files: Mapping[str, bytes | str]) -> bytes:
    """A tar of members by name, in their order; a str is a symlink's target."""
    pieces: list[bytes] = []
    for name, content in files.items():
        if isinstance(content, str):
            pieces.append(writer.header(name.encode(), SYMLINK, mode=0o777, link=content.encode()))
        else:
            pieces.append(writer.header(name.encode(), REGULAR, mode=0o644, size=len(content)) + content + writer.padding(len(content)))
    return b"".join(pieces) + writer.END


def docker_files(document: bytes, layers: Sequence[bytes], tags: Sequence[str] | None) -> dict[str, bytes | str]:
    """What `docker save` wrote up to version 24. A layer that comes twice is a symlink the second time."""
    files: dict[str, bytes | str] = {}
    names: list[str] = []
    first: dict[bytes, str] = {}
    for number, layer in enumerate(layers):
        directory = hashlib.sha256(f"{number}".encode() + layer).hexdigest()
        names.append(f"{directory}/layer.tar")
        files |= {f"{directory}/VERSION": b"1.0", f"{directory}/json": b"{}"}
        files[names[-1]] = f"../{first[layer]}/layer.tar" if layer in first else layer
        first.setdefault(layer, directory)
    name = digest(document).removeprefix("sha256:") + ".json"
    files[name] = document
    files["manifest.json"] = json.dumps([{"Config": name, "RepoTags": tags, "Layers": names}]).encode()
    return files


def blob(data: bytes) -> str:
    """The path of a blob in an OCI layout."""
    return "blobs/sha256/" + digest(data).removeprefix("sha256:")


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """An OCI descriptor."""
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def oci_manifest(document: bytes, blobs: Sequence[bytes]) -> bytes:
    """An image manifest; blobs are the layers as they are stored, compressed or not."""
    layers = [descriptor(data, "application/vnd.oci.image.layer.v1.tar") for data in blobs]
    top = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(document, "application/vnd.oci.image.config.v1+json")}
    return json.dumps({**top, "layers": layers}).encode()


def oci_index(*entries: dict[str, Any]) -> bytes:
    """An image index."""
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}).encode()


def oci_files(document: bytes, blobs: Sequence[bytes], **annotations: str) -> dict[str, bytes | str]:
    """An OCI layout with one image."""
    manifest = oci_manifest(document, blobs)
    files: dict[str, bytes | str] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files |= {blob(data): data for data in (*blobs, document, manifest)}
    files["index.json"] = oci_index(
        descriptor(manifest, MANIFEST, annotations={key.replace("_", "."): text for key, text in annotations.items()})
    )
    return files
