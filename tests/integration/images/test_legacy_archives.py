"""docker load of archives as docker wrote them before 1.10. The IDs are what dockerd 28.5.2 gave the images of the same archives."""

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import EngineError, SystemFailure
from sampan.image.store import image_of
from tests.integration.images.support import Images, pieces, run
from tests.support.imagetars import config, packed
from tests.support.tars import tar

pytestmark = pytest.mark.root

LOW_ID, TOP_ID = "11" * 32, "22" * 32
LOW, TOP = tar(("d", "etc"), ("f", "etc/a", "one")), tar(("f", "etc/b", "two"))


def head(identifier: str, second: int, command: str, cmd: list[str], **more: Any) -> dict[str, Any]:
    """An image's json."""
    return {
        "id": identifier,
        "created": f"2015-01-02T03:04:0{second}Z",
        "container_config": {"Cmd": ["/bin/sh", "-c", command]},
        "config": {"Cmd": cmd, "Env": ["A=b"]},
        "architecture": "amd64",
        "os": "linux",
        "Size": 3,
        **more,
    }


def low(**more: Any) -> dict[str, Any]:
    """The lower image."""
    return head(LOW_ID, 5, "#(nop) ADD x", ["sh"], **more)


def top(**more: Any) -> dict[str, Any]:
    """The upper image."""
    return head(TOP_ID, 6, "#(nop) ADD y", ["sh", "-l"], **{"parent": LOW_ID, "author": "me", **more})


def legacy(*heads: dict[str, Any], names: object, **replaced: bytes | str | None) -> bytes:
    """An archive of the two images; replaced: a member's content by its name, None to leave it out."""
    files: dict[str, bytes | str] = {"repositories": json.dumps(names).encode()}
    for document, layer in zip(heads, (LOW, TOP), strict=False):
        name = document["id"]
        files |= {f"{name}/VERSION": b"1.0", f"{name}/json": json.dumps(document).encode(), f"{name}/layer.tar": layer}
    files |= {name: content for name, content in replaced.items() if content is not None}
    return packed({name: content for name, content in files.items() if replaced.get(name, b"") is not None})


NAMED = {"legacy": {"v1": TOP_ID}, "registry.example:5000/low": {"latest": LOW_ID}}
OLDEST = legacy(low(), top(), names=NAMED)
LATE = legacy(
    head(LOW_ID, 5, "#(nop) ADD x && <y>", ["sh"], docker_version="1.9.0"),
    top(docker_version="1.9.0", throwaway=True, comment="hé"),
    names=NAMED,
)


@pytest.mark.parametrize(
    ("archive", "low_id", "top_id"),
    [
        pytest.param(OLDEST, "be1a271f1bc73a9639fa797d97d124f35fa0a7e37756448024a2737ee0e88435",
                     "196cf7444e88edfb08529d8b5ab1487ff496f057966abfdbc00bf62cc5bb8042", id="before 1.8.3"),
        pytest.param(LATE, "57c41b32ef993dbf3d5e75aec4b79dfe793179658a723a08165daa222cfb0f4a",
                     "6a227aa69501d7d5d8d8da7cd35d3a4152e948892d104467487e79546c77e1ee", id="1.9"),
    ],
)  # fmt: skip
def test_the_images_are_dockerds(root: Path, archive: bytes, low_id: str, top_id: str) -> None:
    async def body(images: Images) -> None:
        assert await images.load_archive(archive) == []  # dockerd says nothing either
        found = images.store.find("legacy:v1")
        assert (found.id, found.parent) == (f"sha256:{top_id}", f"sha256:{low_id}")
        assert images.store.find("registry.example:5000/low").id == f"sha256:{low_id}"
        shown = await images.service.inspect("legacy:v1")
        assert (shown.size, shown.author, shown.created) == (6, "me", "2015-01-02T03:04:06Z")
        assert [step.created_by for step in await images.service.history("legacy:v1")] == [
            "/bin/sh -c #(nop) ADD y",
            "/bin/sh -c #(nop) ADD x" + (" && <y>" if archive is LATE else ""),
        ]
        saved = await images.save("legacy:v1")
        assert LOW in saved
        assert TOP in saved
        # once more: the same images, the name comes from another one
        await images.service.tag("registry.example:5000/low", "legacy", "v1")
        low_now = f"The image legacy:v1 already exists, renaming the old one with ID sha256:{low_id} to empty string"
        assert await images.load_archive(archive) == [low_now]
        assert len(images.store.all()) == len(images.snapshots.layers()) == 2
        assert images.snapshots.keys() == []

    run(root, body)


def test_progress_names_the_old_ids(root: Path) -> None:
    async def body(images: Images) -> None:
        said = await images.load_archive(OLDEST, quiet=False)
        assert [identifier in line and "Loading layer" in line for identifier, line in zip(("1" * 12, "2" * 12), said, strict=True)]

    run(root, body)


def test_a_prune_meanwhile(root: Path) -> None:
    """Images of such an archive get their names last: until then they are what prune takes."""

    async def body(images: Images) -> None:
        pruned = 0
        async for _ in images.archives.load(pieces(OLDEST), quiet=False, platform=None):
            pruned += len((await images.service.prune({})).images_deleted or ())
        assert pruned > 0
        chain = images.service.resolve("legacy:v1").chain
        assert [images.snapshots.layer(name) is not None for name in chain] == [True, True]
        assert {name.familiar for image in images.store.all() for name in images.store.references(image.id)} == {
            "legacy:v1", "registry.example:5000/low:latest",
        }  # fmt: skip
        with pytest.raises(SystemFailure, match="was removed meanwhile"):
            images.service.add(image_of(config(b"nowhere")), {}, names=())

    run(root, body)


def test_a_layer_may_be_a_symlink_to_another_ones(root: Path) -> None:
    async def body(images: Images) -> None:
        await images.load_archive(legacy(low(), top(), names=NAMED, **{f"{TOP_ID}/layer.tar": f"../{LOW_ID}/layer.tar"}))
        assert len(images.store.find("legacy:v1").chain) == 2

    run(root, body)


def test_without_architecture_and_config(root: Path) -> None:
    async def body(images: Images) -> None:
        bare = {key: value for key, value in low().items() if key in ("id", "created")}
        await images.load_archive(legacy(bare, names={"bare": {"v1": LOW_ID}}))
        assert (await images.service.inspect("bare:v1")).architecture == ""

    run(root, body)


def deep() -> bytes:
    """An image of 128 layers."""
    files: dict[str, bytes | str] = {"repositories": b"{}"}
    for number in range(128):
        document = {"id": f"{number:03}", "created": "2015-01-02T03:04:05Z", "parent": f"{number - 1:03}" if number else ""}
        files |= {f"{number:03}/json": json.dumps(document).encode(), f"{number:03}/layer.tar": LOW}
    return packed(files)


@pytest.mark.parametrize(
    ("archive", "message", "loaded"),
    [
        pytest.param(legacy(low(), top(), names={"x": {"v1": "33" * 32}}), f"^invalid target ID: {'33' * 32}$", 2, id="no such image"),
        pytest.param(legacy(low(), top(), names={"../x": {"v1": TOP_ID}}), "invalid reference format", 2, id="name"),
        pytest.param(legacy(low(), top(), names={"x:1": {"v1": TOP_ID}}), r"invalid repository name \(x:1\)", 2, id="name with a tag"),
        pytest.param(legacy(low(), top(), names={"x": {"v1@sha256:" + "a" * 64: TOP_ID}}), "invalid tag format", 2, id="tag with a digest"),
        pytest.param(legacy(low(), top(), names={"x@sha256": {"a" * 64: TOP_ID}}), "invalid reference format", 2, id="digest of both"),
        pytest.param(legacy(low(), top(), names=["x"]), "invalid archive: repositories: ", 2, id="no names"),
        pytest.param(legacy(low(parent=TOP_ID), top(), names=NAMED), "is its own ancestor", 0, id="ring"),
        pytest.param(legacy(low(parent="44" * 32), names={}), f"{'44' * 32}/json: no such file or directory", 0, id="no parent"),
        pytest.param(legacy(low(), top(), names=NAMED, **{f"{LOW_ID}/json": None}), "json: no such file or directory", 0, id="no json"),
        pytest.param(
            legacy(low(), names=NAMED, **{f"{LOW_ID}/json": b"[" * 100_000}), "invalid archive: an image's json", 0, id="bad json"
        ),
        pytest.param(legacy(low(), names=NAMED, **{f"{LOW_ID}/json": b"[1]"}), "invalid archive: an image's json", 0, id="list"),
        pytest.param(legacy(low(), names=NAMED, **{f"{LOW_ID}/layer.tar": "../../etc/passwd"}), "no such file", 0, id="layer out"),
        pytest.param(legacy(low(), names=NAMED, **{f"{LOW_ID}/layer.tar": tar(("f", "../x", ""))}), "breakout", 0, id="layer"),
        pytest.param(legacy(low(os="windows"), names=NAMED), "cannot load windows image on linux", 0, id="windows"),
        pytest.param(deep(), "^max depth exceeded$", 127, id="depth"),
    ],
)
def test_refused(root: Path, archive: bytes, message: str, loaded: int) -> None:
    """What was whole before the error stays, as in dockerd."""

    async def body(images: Images) -> None:
        with pytest.raises(EngineError, match=message) as caught:
            await images.load_archive(archive)
        assert "\n" not in caught.value.message
        await images.service.settle()
        assert len(images.store.all()) == len(images.snapshots.layers()) == loaded
        assert images.snapshots.keys() == []

    run(root, body)
