"""docker load and docker save: every form of archive, and what comes out again."""

import asyncio
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.archive.writer import END
from sampan.digest import ImageId
from sampan.errors import EngineError, InvalidArgument, NotFound, SystemFailure
from sampan.image import archives
from sampan.spec.oci_layout import Platform
from tests.integration.images.support import Images, pieces, run
from tests.support.imagetars import INDEX, blob, config, descriptor, digest, docker_files, oci_files, oci_index, oci_manifest, packed
from tests.support.tars import tar

pytestmark = pytest.mark.root

LOW = tar(("d", "etc"), ("f", "etc/low", "low"), ("l", "link", "etc/low"), ("h", "hard", "etc/low"), ("p", "fifo"))
TOP = tar(("f", "etc/.wh.low", ""), ("f", "top", "x" * 100_000), ("f", "name with ünïcode", "y"))
DOCUMENT = config(LOW, TOP)
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def members(archive: bytes) -> dict[str, bytes]:
    """A saved archive's files."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {item.name: opened.extractfile(item).read() for item in opened if item.isfile()}  # type: ignore[union-attr]


def left_behind(root: Path) -> list[str]:
    """Whatever of layers and spool files is on disk."""
    return [str(path) for place in ("overlay/l", "overlay/r", "tmp") for path in (root / place).iterdir()]


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
@pytest.mark.parametrize("form", ["docker", "oci"])
def test_load_takes_every_form_and_compression(root: Path, form: str, compress: Callable[[bytes], bytes]) -> None:
    async def body(images: Images) -> None:
        if form == "docker":
            files = docker_files(DOCUMENT, [LOW, TOP], ["g/loaded:1", "registry.example:5000/other:latest"])
        else:
            files = oci_files(DOCUMENT, [LOW, TOP], io_containerd_image_name="docker.io/g/loaded:1")
        said = await images.load_archive(compress(packed(files)))
        assert said[0] == "Loaded image: g/loaded:1"
        image = images.store.find("g/loaded:1")
        assert image.id == digest(DOCUMENT)
        assert image.document == DOCUMENT
        shown = await images.service.inspect("g/loaded:1")
        assert shown.size == len("low" * 2) - 3 + len("etc/low") + 100_001
        if form == "docker":
            assert said[1:] == ["Loaded image: registry.example:5000/other:latest"]
            assert images.store.find("registry.example:5000/other").id == image.id

    run(root, body)


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_layers_inside_may_be_compressed(root: Path, compress: Callable[[bytes], bytes]) -> None:
    async def body(images: Images) -> None:
        blobs = [compress(LOW), compress(TOP)]
        assert await images.load_archive(packed(oci_files(DOCUMENT, blobs))) == [f"Loaded image ID: {digest(DOCUMENT)}"]
        saved = members(await images.save(digest(DOCUMENT)))
        assert saved[blob(LOW)] == LOW
        assert saved[blob(TOP)] == TOP

    run(root, body)


def test_what_is_saved_is_what_was_loaded_byte_for_byte(root: Path) -> None:
    async def body(images: Images) -> None:
        await images.load_archive(packed(docker_files(DOCUMENT, [LOW, TOP], ["busybox:g", "registry.example/a/b:v1"])))
        archive = await images.save("busybox:g", "registry.example/a/b:v1")
        saved = members(archive)
        manifest_name = json.loads(saved["index.json"])["manifests"][0]["digest"].replace("sha256:", "blobs/sha256/")
        assert set(saved) == {
            blob(LOW),
            blob(TOP),
            blob(DOCUMENT),
            manifest_name,
            "index.json",
            "manifest.json",
            "oci-layout",
            "repositories",
        }
        for name, content in saved.items():
            if name.startswith("blobs/"):
                assert name == blob(content)
        assert saved["oci-layout"] == b'{"imageLayoutVersion": "1.0.0"}'
        top = hashlib.sha256(TOP).hexdigest()
        assert json.loads(saved["repositories"]) == {"busybox": {"g": top}, "registry.example/a/b": {"v1": top}}
        (item,) = json.loads(saved["manifest.json"])
        assert item["Config"] == blob(DOCUMENT)
        assert item["RepoTags"] == ["busybox:g", "registry.example/a/b:v1"]
        assert item["Layers"] == [blob(LOW), blob(TOP)]
        assert item["LayerSources"][digest(LOW)] == descriptor(LOW, "application/vnd.oci.image.layer.v1.tar")
        annotations = [entry["annotations"] for entry in json.loads(saved["index.json"])["manifests"]]
        assert annotations == [
            {"io.containerd.image.name": "docker.io/library/busybox:g", "org.opencontainers.image.ref.name": "g"},
            {"io.containerd.image.name": "registry.example/a/b:v1", "org.opencontainers.image.ref.name": "v1"},
        ]
        # the same bytes each time, also after a journey through a removal and a load of what was saved
        assert await images.save("busybox:g", "registry.example/a/b:v1") == archive
        await images.service.remove(digest(DOCUMENT), force=True, prune=True)
        assert left_behind(root) == []
        await images.load_archive(archive)
        assert await images.save("busybox:g", "registry.example/a/b:v1") == archive

    run(root, body)


def test_documents_are_read_beside_the_event_loop(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    real = archives.plan

    def plan(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*args)

    monkeypatch.setattr(archives, "plan", plan)

    async def body(images: Images) -> None:
        await images.load_archive(packed(docker_files(config(tar(("f", "a"))), [tar(("f", "a"))], ["a:1"])))
        assert threads[0] is not threading.current_thread()

    run(root, body)


def test_members_of_one_name_are_unpacked_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        keys: list[str] = []
        real = images.snapshots.unpack

        async def unpack(key: str, archive: int) -> Any:
            keys.append(key)
            return await real(key, archive)

        monkeypatch.setattr(images.snapshots, "unpack", unpack)
        again = packed({"x/layer.tar": LOW}).removesuffix(END)
        await images.load_archive(again * 50 + packed(docker_files(config(TOP), [TOP], ["a:1"])))
        assert len(keys) == 2

    run(root, body)


def test_save_by_id_has_no_tags(root: Path) -> None:
    async def body(images: Images) -> None:
        await images.load_archive(packed(docker_files(DOCUMENT, [LOW, TOP], ["busybox:g"])))
        for name in (digest(DOCUMENT), digest(DOCUMENT)[7:], digest(DOCUMENT)[7:19]):
            saved = members(await images.save(name))
            assert json.loads(saved["manifest.json"])[0]["RepoTags"] is None
            assert "repositories" not in saved
            assert "annotations" not in json.loads(saved["index.json"])["manifests"][0]
        both = members(await images.save(digest(DOCUMENT)[7:19], "busybox:g"))
        assert json.loads(both["manifest.json"])[0]["RepoTags"] == ["busybox:g"]
        # a repository alone is all its tags
        await images.service.tag("busybox:g", "busybox", "h")
        assert json.loads(members(await images.save("busybox"))["manifest.json"])[0]["RepoTags"] == ["busybox:g", "busybox:h"]

    run(root, body)


def test_several_images_share_layers(root: Path) -> None:
    async def body(images: Images) -> None:
        other = config(LOW)
        first, second = docker_files(DOCUMENT, [LOW, TOP], ["one:1"]), docker_files(other, [LOW], ["two:1", "two:2"])
        manifest = json.loads(first.pop("manifest.json")) + json.loads(second.pop("manifest.json"))
        archive = packed({**first, **second, "manifest.json": json.dumps(manifest).encode()})
        assert await images.load_archive(archive) == ["Loaded image: one:1", "Loaded image: two:1", "Loaded image: two:2"]
        assert len(images.snapshots.layers()) == 2
        saved = members(await images.save("one", "two"))
        assert [item["RepoTags"] for item in json.loads(saved["manifest.json"])] == [["one:1"], ["two:1", "two:2"]]
        assert sum(name.startswith("blobs/") for name in saved) == 6
        await images.service.remove("one:1", force=False, prune=True)
        assert len(images.snapshots.layers()) == 1

    run(root, body)


def test_a_layer_that_comes_twice_may_be_a_symlink_to_itself(root: Path) -> None:
    async def body(images: Images) -> None:
        document = config(LOW, TOP, LOW)
        files = docker_files(document, [LOW, TOP, LOW], ["twice:1"])
        assert any(isinstance(content, str) for content in files.values())
        assert await images.load_archive(packed(files)) == ["Loaded image: twice:1"]
        assert len(images.snapshots.layers()) == 3
        assert images.store.find("twice:1").id == digest(document)

    run(root, body)


def test_a_name_moves_from_the_image_that_had_it(root: Path) -> None:
    async def body(images: Images) -> None:
        other = config(LOW)
        await images.load_archive(packed(docker_files(other, [LOW], ["moving:1"])))
        said = await images.load_archive(packed(docker_files(DOCUMENT, [LOW, TOP], ["moving:1"])))
        assert said == [
            f"The image moving:1 already exists, renaming the old one with ID {digest(other)} to empty string",
            "Loaded image: moving:1",
        ]
        assert images.store.references(ImageId(digest(other))) == []
        assert images.store.find("moving:1").id == digest(DOCUMENT)

    run(root, body)


def test_progress_names_each_layer(root: Path) -> None:
    async def body(images: Images) -> None:
        archive = packed(docker_files(DOCUMENT, [LOW, TOP], ["shown:1"]))
        lines = [line async for line in images.archives.load(pieces(archive), quiet=False, platform=None)]
        layers = [line for line in lines if "progressDetail" in line]
        done = [line for line in layers if str(line["progress"]).startswith("[" + "=" * 50)]
        assert [line["id"] for line in done] == [digest(LOW)[7:19], digest(TOP)[7:19]]
        assert all(line["status"] == "Loading layer" for line in done)
        assert str(done[1]["progress"]).endswith(">]  103.4kB/103.4kB"), done[1]
        # what is there already is not loaded again
        assert [line async for line in images.archives.load(pieces(archive), quiet=False, platform=None)] == [
            {"stream": "Loaded image: shown:1\n"}
        ]

    run(root, body)


def test_an_index_gives_the_image_for_the_platform(root: Path) -> None:
    async def body(images: Images) -> None:
        amd, arm = config(LOW), config(LOW, TOP, architecture="arm64", variant="v8")
        manifests = [oci_manifest(amd, [LOW]), oci_manifest(arm, [LOW, TOP])]
        inner = oci_index(
            descriptor(manifests[0], "application/vnd.oci.image.manifest.v1+json", platform={"os": "linux", "architecture": "amd64"}),
            descriptor(
                manifests[1],
                "application/vnd.oci.image.manifest.v1+json",
                platform={"os": "linux", "architecture": "arm64", "variant": "v8"},
            ),
        )
        index = oci_index(descriptor(inner, INDEX, annotations={"org.opencontainers.image.ref.name": "many:1"}))
        archive = packed({blob(data): data for data in (LOW, TOP, amd, arm, *manifests, inner)} | {"index.json": index})
        own = os.uname().machine
        said = await images.load_archive(archive, platform=Platform("arm64", "linux"))
        assert said == ["Loaded image: many:1"]
        assert images.store.find("many:1").id == digest(arm)
        with pytest.raises(SystemFailure, match="no suitable export target found for platform linux/amd64"):
            await images.save("many:1", platform=Platform("amd64", "linux"))
        assert json.loads(members(await images.save("many:1", platform=Platform("arm64", "linux", "v8")))["manifest.json"])
        with pytest.raises(InvalidArgument, match="no image for the platform linux/s390x in the archive"):
            await images.load_archive(archive, platform=Platform("s390x", "linux"))
        if own == "x86_64":
            await images.load_archive(archive)
            assert images.store.find("many:1").id == digest(amd)

    run(root, body)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "No such image: nope"),
        ("nope:tag", "reference does not exist"),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
        ("UPPER", r"invalid reference format: repository name \(library/UPPER\) must be lowercase"),
        ("", "invalid reference format"),
    ],
)
def test_saving_what_is_not_there(root: Path, name: str, message: str) -> None:
    async def body(images: Images) -> None:
        await images.load_archive(packed(docker_files(DOCUMENT, [LOW, TOP], ["busybox:g"])))
        with pytest.raises(EngineError, match=f"^{message}$"):
            images.archives.save(["busybox:g", name], None)

    run(root, body)


def test_an_image_removed_while_it_is_saved_is_saved_whole(root: Path) -> None:
    async def body(images: Images) -> None:
        big = tar(*(("f", f"file{number}", os.urandom(300_000).hex()) for number in range(10)))
        document = config(LOW, big)
        await images.load_archive(packed(docker_files(document, [LOW, big], ["busybox:g"])))
        expected = await images.save("busybox:g")
        saving = images.archives.save(["busybox:g"], None)
        got = [bytes(await anext(saving))]
        await images.service.remove("busybox:g", force=False, prune=True)
        with pytest.raises(NotFound):
            images.store.find("busybox:g")
        got += [bytes(piece) async for piece in saving]
        assert b"".join(got) == expected
        assert images.snapshots.layers() == []
        await images.service.settle()
        assert left_behind(root) == []

    run(root, body)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(root: Path) -> None:
    async def body(images: Images) -> None:
        archive = packed(docker_files(DOCUMENT, [LOW, TOP], ["busybox:g"]))

        async def half() -> AsyncIterator[bytes]:
            yield archive[: len(archive) - 20_000]
            raise ConnectionResetError("the client is gone")

        with pytest.raises(ConnectionResetError):
            async for _ in images.archives.load(half(), quiet=True, platform=None):
                pass

        async def stuck() -> AsyncIterator[bytes]:
            yield archive[: len(archive) - 20_000]
            await asyncio.get_running_loop().create_future()

        async def load() -> None:
            async for _ in images.archives.load(stuck(), quiet=True, platform=None):
                pass

        task = asyncio.ensure_future(load())
        while not any((root / "overlay/l").iterdir()):  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await images.service.settle()
        assert images.snapshots.layers() == []
        assert images.snapshots.keys() == []
        assert left_behind(root) == []
        assert await images.load_archive(archive) == ["Loaded image: busybox:g"]

    run(root, body)


def test_two_loads_of_one_archive_at_once(root: Path) -> None:
    async def body(images: Images) -> None:
        archive = packed(docker_files(DOCUMENT, [LOW, TOP], ["busybox:g"]))
        assert await asyncio.gather(*(images.load_archive(archive) for _ in range(4))) == [["Loaded image: busybox:g"]] * 4
        assert len(images.snapshots.layers()) == 2
        await images.service.settle()
        assert len(list((root / "overlay/l").iterdir())) == 2

    run(root, body)
