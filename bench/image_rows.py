"""Rows about images as archives: load, save, removal."""

import hashlib
import io
import json
import random
import tarfile
from functools import cache
from typing import ClassVar

from bench.rows import Row, seconds
from bench.target import require

LAYERS, FILES, LAYER_BYTES = 8, 500, 20_000_000


@cache
def layer(number: int) -> bytes:
    """A layer of 20 MB in 500 files, neither empty nor compressible."""
    source = random.Random(number)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for index in range(FILES):
            info = tarfile.TarInfo(f"layer{number}/d{index % 20}/f{index}")
            info.size, info.mode, info.mtime = LAYER_BYTES // FILES, 0o644, 1_600_000_000
            tar.addfile(info, io.BytesIO(source.randbytes(info.size)))
    return buffer.getvalue()


@cache
def archive(name: str) -> bytes:
    """A docker-archive of eight such layers."""
    layers = [layer(number) for number in range(LAYERS)]
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs, "history": []}).encode()
    files = {f"{number}/layer.tar": data for number, data in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(files)}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in {**files, "config.json": config, "manifest.json": json.dumps(manifest).encode()}.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class LoadSave(Row):
    """A docker-archive of 160 MB, 8 layers, 4,000 files: in, out, and gone again."""

    goals: ClassVar[dict[str, float]] = {"load": 0.35, "save": 0.4, "image_rm_8": 0.1}

    def prepare(self) -> None:
        self.name = f"{self.target.label}-eight:latest"
        self.archive = archive(self.name)

    def sample(self) -> dict[str, float]:
        load, said = seconds(lambda: self.target.call("POST", "/images/load?quiet=1", self.archive, raw=True))
        require(f"Loaded image: {self.name}".encode() in said, said)
        save, saved = seconds(lambda: self.target.call("GET", f"/images/{self.name}/get", raw=True))
        self.check(saved)
        remove, gone = seconds(self.target.call, "DELETE", f"/images/{self.name}")
        require(sum("Deleted" in item for item in gone) == LAYERS + 1, gone)
        return {"load": load, "save": save, "image_rm_8": remove}

    def check(self, saved: bytes) -> None:
        """The layers that came out are those that went in."""
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            (entry,) = json.load(tar.extractfile("manifest.json") or io.BytesIO())
            require(entry["RepoTags"] == [self.name], entry)
            for number, path in enumerate(entry["Layers"]):
                member = tar.extractfile(path)
                require(member is not None and member.read() == layer(number), f"layer {number} differs")


ROWS: tuple[type[Row], ...] = (LoadSave,)
