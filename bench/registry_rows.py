"""Rows about registries: an image pulled from one on loopback, and pushed to an empty one."""

import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar

from bench.rows import Row, seconds
from bench.target import require
from tests.support.realregistry import RealRegistry

LAYERS, FILES, NOISE = 8, 500, 20 << 10
IMAGES = 200
_DOCKER = "application/vnd.docker."
_MANIFEST = _DOCKER + "distribution.manifest.v2+json"
AUTH: Mapping[str, str] = {"X-Registry-Auth": "e30="}
"""`{}`: nobody in particular"""


def digest_of(data: bytes) -> str:
    """`sha256:<hex>`"""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@cache
def layer(number: int) -> bytes:
    """A layer of 20 MB in 500 files, half of it noise and half of it lines that compress well."""
    source = random.Random(number)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for index in range(FILES):
            data = source.randbytes(NOISE) + (b"layer %d file %d\n" % (number, index) * 2000)[:NOISE]
            info = tarfile.TarInfo(f"layer{number}/d{index % 20}/f{index}")
            info.size, info.mode, info.mtime = len(data), 0o644, 1_600_000_000
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@cache
def blobs() -> tuple[bytes, ...]:
    """The layers as `gzip -6` has them."""
    return tuple(gzip.compress(layer(number), 6, mtime=0) for number in range(LAYERS))


@cache
def document() -> bytes:
    """The image's config."""
    diff_ids = [digest_of(layer(number)) for number in range(LAYERS)]
    history = [{"created_by": f"layer {number}"} for number in range(LAYERS)]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    shown = {"architecture": "amd64", "os": "linux", "config": {}, "history": history, "rootfs": rootfs}
    return json.dumps(shown).encode()


class Registry:
    """apt's docker-registry where an engine reaches it by 127.0.0.1, its storage in our hands."""

    def __init__(self, netns: str) -> None:
        """netns: the engine's network namespace (ip-netns(8)); "": the host's."""
        self._directory = Path(tempfile.mkdtemp(prefix="sampan-bench-registry-", dir="/var/tmp"))
        self._data = self._directory / "data/docker/registry/v2"
        self._process = RealRegistry(self._directory, netns=netns)
        self.host = self._process.host

    def fill(self, repository: str, tag: str) -> None:
        """Put the image there, as the registry itself would (distribution registry/storage/paths.go)."""
        place = self._data / "repositories" / repository
        for data in (document(), *blobs()):
            self._blob(data)
            self._link(place / "_layers", digest_of(data))
        entries = [{"mediaType": _DOCKER + "image.rootfs.diff.tar.gzip", "size": len(one), "digest": digest_of(one)} for one in blobs()]
        config = {"mediaType": _DOCKER + "container.image.v1+json", "size": len(document()), "digest": digest_of(document())}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": entries}).encode()
        self._blob(manifest)
        self._link(place / "_manifests/revisions", digest_of(manifest))
        self._link(place / "_manifests/tags" / tag / "index", digest_of(manifest))
        current = place / "_manifests/tags" / tag / "current"
        current.mkdir(parents=True)
        (current / "link").write_text(digest_of(manifest))

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._data / "blobs/sha256" / name[:2] / name

    def _blob(self, data: bytes) -> None:
        place = self._path(digest_of(data))
        place.mkdir(parents=True, exist_ok=True)
        (place / "data").write_bytes(data)

    @staticmethod
    def _link(place: Path, digest: str) -> None:
        place = place / digest.replace(":", "/")
        place.mkdir(parents=True)
        (place / "link").write_text(digest)

    def layers(self, repository: str, tag: str) -> list[bytes]:
        """The plain layers of an image that was pushed."""
        link = self._data / "repositories" / repository / "_manifests/tags" / tag / "current/link"
        manifest = json.loads((self._path(link.read_text()) / "data").read_bytes())
        return [gzip.decompress((self._path(item["digest"]) / "data").read_bytes()) for item in manifest["layers"]]

    def wipe(self) -> None:
        """Forget all it has."""
        shutil.rmtree(self._data, ignore_errors=True)

    def close(self) -> None:
        """End it."""
        self._process.close()
        shutil.rmtree(self._directory)


class PullPush(Row):
    """An image of 160 MB, 8 gzip layers and 4,000 files: from a registry on loopback, and to another one, which is empty."""

    goals: ClassVar[dict[str, float]] = {"pull_160MB": 0.45, "push_160MB": 0.3}

    def prepare(self) -> None:
        self.source, self.sink = Registry(self.target.netns), Registry(self.target.netns)
        self.source.fill("eight", "v1")

    def sample(self) -> dict[str, float]:
        call, label = self.target.call, self.target.label
        name, pushed = f"{self.source.host}/eight", f"{self.sink.host}/{label}"
        self.sink.wipe()
        pull, said = seconds(lambda: call("POST", f"/images/create?fromImage={name}&tag=v1", headers=AUTH, raw=True))
        require(b"Downloaded newer image" in said, said[-200:])
        diff_ids = [digest_of(layer(number)) for number in range(LAYERS)]
        require(call("GET", f"/images/{name}:v1/json")["RootFS"]["Layers"] == diff_ids, "layers differ")
        call("POST", f"/images/{name}:v1/tag?repo={pushed}&tag=v1", raw=True)
        push, said = seconds(lambda: call("POST", f"/images/{pushed}/push?tag=v1", headers=AUTH, raw=True))
        require(b"digest: sha256:" in said, said[-200:])
        require(self.sink.layers(label, "v1") == [layer(number) for number in range(LAYERS)], "pushed layers differ")
        for one in (pushed, name):
            call("DELETE", f"/images/{one}:v1")
        return {"pull_160MB": pull, "push_160MB": push}

    def close(self) -> None:
        self.source.close()
        self.sink.close()


class ImageList(Row):
    """The list of 200 images."""

    goals: ClassVar[dict[str, float]] = {"image_list_200": 0.5}

    def prepare(self) -> None:
        self.names = [f"{self.target.label}-list{number}" for number in range(IMAGES)]
        for number, name in enumerate(self.names):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                info = tarfile.TarInfo("f")
                info.size = 8
                tar.addfile(info, io.BytesIO(b"%08d" % number))
            self.target.call("POST", f"/images/create?fromSrc=-&repo={name}&tag=latest", buffer.getvalue(), raw=True)

    def sample(self) -> dict[str, float]:
        took, shown = seconds(self.target.call, "GET", "/images/json", times=5)
        tags = {tag for item in shown for tag in item["RepoTags"] or ()}
        require({f"{name}:latest" for name in self.names} <= tags, "images missing in the list")
        return {"image_list_200": took}

    def close(self) -> None:
        for name in self.names:
            self.target.call("DELETE", f"/images/{name}:latest", ok=(200, 404))


ROWS: tuple[type[Row], ...] = (PullPush, ImageList)
