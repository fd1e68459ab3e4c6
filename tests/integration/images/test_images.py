"""The image service: import, names, removal and its refusals in docker's words (recorded from dockerd 28.5)."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sampan.engine.image_removal import ImageUser
from sampan.errors import Conflict, EngineError, InvalidArgument, NotFound, SystemFailure
from sampan.ids import short_id
from sampan.image import platforms
from sampan.image.store import image_of
from sampan.reference import parse
from sampan.spec.oci_image import History, encode_config
from sampan.spec.oci_layout import Platform
from tests.integration.images.support import Images, run
from tests.support.tars import tar

pytestmark = pytest.mark.root

ARCHIVE = tar(("f", "file", "content"), ("l", "link", "file"))
CONTAINER = "c" * 64


def test_import_list_inspect_history(root: Path) -> None:
    async def body(images: Images) -> None:
        image_id = await images.load(gzip.compress(ARCHIVE), "imtest", "1", 'CMD ["sh"]', "ENV A=b", "LABEL x=y")
        shown = await images.service.inspect("imtest:1")
        assert shown == await images.service.inspect(image_id) == await images.service.inspect(image_id[7:15])
        assert (shown.id, shown.repo_tags, shown.size, shown.comment) == (image_id, ["imtest:1"], 11, "why")
        assert shown.config is not None
        assert (shown.config.cmd, shown.config.env, shown.config.labels) == (["sh"], ["A=b"], {"x": "y"})
        [entry] = await images.service.list(all=False, filters={}, shared_size=True)
        assert (entry.id, entry.repo_tags, entry.size, entry.shared_size, entry.containers) == (image_id, ["imtest:1"], 11, 0, 0)
        [layer] = await images.service.history("imtest:1")
        assert (layer.id, layer.tags, layer.size, layer.comment) == (image_id, ["imtest:1"], 11, "why")
        assert [event.action for event in images.events._history] == ["tag", "import"]

    run(root, body)


def test_the_body_of_inspect_has_dockers_names(root: Path) -> None:
    async def body(images: Images) -> None:
        await images.load(ARCHIVE, "x")
        shown = msgspec.to_builtins(await images.service.inspect("x"))
        for field in (
            "Id",
            "RepoTags",
            "RepoDigests",
            "Created",
            "Architecture",
            "Os",
            "Size",
            "GraphDriver",
            "RootFS",
            "Metadata",
            "Config",
        ):
            assert field in shown

    run(root, body)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "No such image: nope:latest"),
        ("nope:1", "No such image: nope:1"),
        ("a" * 64, "No such image: sha256:" + "a" * 64),
        ("r.example/x", "No such image: r.example/x:latest"),
    ],
)
def test_no_such_image(root: Path, name: str, message: str) -> None:
    async def body(images: Images) -> None:
        with pytest.raises(NotFound) as caught:
            images.service.resolve(name)
        assert caught.value.message == message

    run(root, body)


def test_names_move_and_images_dangle(root: Path) -> None:
    async def body(images: Images) -> None:
        first = await images.load(ARCHIVE, "x")
        second = await images.load(tar(("f", "other", "1")), "x")
        assert images.service.resolve("x").id == second
        dangling = await images.service.list(all=False, filters={"dangling": ["true"]}, shared_size=False)
        assert [(entry.id, entry.repo_tags) for entry in dangling] == [(first, [])]
        report = await images.service.prune({})
        assert report.images_deleted is not None
        assert report.images_deleted[0].deleted == first
        assert report.space_reclaimed == 11

    run(root, body)


def test_prune_all_takes_every_repository_of_an_image(root: Path) -> None:
    async def body(images: Images) -> None:
        image = images.service.resolve(await images.load(ARCHIVE, "a", "1"))
        await images.service.tag("a:1", "b", "1")
        for repository in "ab":
            images.store.add_digest(image, parse(f"{repository}@sha256:{'d' * 64}"))
        report = await images.service.prune({"dangling": ["false"]})
        assert [item.untagged or item.deleted for item in report.images_deleted or ()] == [
            "a:1", f"a@sha256:{'d' * 64}", "b:1", f"b@sha256:{'d' * 64}", image.id, image.chain_id,
        ]  # fmt: skip

    run(root, body)


def test_a_layer_of_a_child_and_its_parent_goes_once(root: Path) -> None:
    async def body(images: Images) -> None:
        parent = images.service.resolve(await images.load(ARCHIVE))
        child = images.store.add(image_of(parent.document + b" "), now=1, parent=parent.id, names=[parse("child:1")])
        items = await images.service.remove("child:1", force=False, prune=True)
        assert [item.untagged or item.deleted for item in items] == ["child:1", child.id, parent.id, parent.chain_id]

    run(root, body)


def test_history_tells_of_the_parents_that_are_here(root: Path) -> None:
    async def body(images: Images) -> None:
        step = History(created_by="step", empty_layer=True)
        image = images.service.resolve(await images.load(ARCHIVE, "x", "1"))
        ids = [image.id]
        for name in ((), (parse("x:3"), parse("y:3"))):
            config = msgspec.structs.replace(image.config, history=[*(image.config.history or ()), step])
            image = images.store.add(image_of(encode_config(config)), now=1, parent=image.id, names=name)
            ids.append(image.id)
        shown = [(item.id, item.tags) for item in await images.service.history("x:3")]
        assert shown == [(ids[2], ["x:3", "y:3"]), (ids[1], None), (ids[0], ["x:1"])]
        images.store.delete(images.service.resolve(ids[1]))
        assert [item.id for item in await images.service.history("x:3")] == [ids[2], "<missing>", "<missing>"]

    run(root, body)


def test_a_parent_is_not_dangling(root: Path) -> None:
    async def body(images: Images) -> None:
        parent = images.service.resolve(await images.load(ARCHIVE))
        images.store.add_digest(parent, parse(f"a@sha256:{'d' * 64}"))
        child = images.store.add(image_of(parent.document + b" "), now=1, parent=parent.id, names=[parse("child:1")])
        dangling = {"dangling": ["true"]}
        assert await images.service.list(all=True, filters=dangling, shared_size=False) == []
        assert (await images.service.prune(dangling)).images_deleted is None
        [entry, _] = await images.service.list(all=True, filters={"dangling": ["false"]}, shared_size=False)
        assert entry.repo_digests == [f"a@sha256:{'d' * 64}"]
        await images.service.remove(child.id, force=False, prune=False)
        [entry] = await images.service.list(all=False, filters=dangling, shared_size=False)
        assert entry.id == parent.id

    run(root, body)


def test_a_trash_that_cannot_be_emptied_is_told_of_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(images: Images) -> None:
        async def fails() -> None:
            raise SystemFailure("x: Operation not permitted")

        monkeypatch.setattr(images.snapshots, "empty_trash", fails)
        for _ in range(2):
            images.service.clean_up()
            await images.service.settle()
        assert [record.getMessage() for record in caplog.records] == [
            "what was removed still takes space on the disk: x: Operation not permitted"
        ]

    run(root, body)


def test_removal_takes_names_off_first(root: Path) -> None:
    async def body(images: Images) -> None:
        image_id = await images.load(ARCHIVE, "x", "1")
        await images.service.tag("x:1", "other", "")
        with pytest.raises(
            Conflict, match=rf"^conflict: unable to delete {short_id(image_id)} \(must be forced\) - image is referenced in multiple"
        ):
            await images.service.remove(image_id, force=False, prune=True)
        items = await images.service.remove("x:1", force=False, prune=True)
        assert [(item.untagged, item.deleted) for item in items] == [("x:1", "")]
        items = await images.service.remove("other", force=False, prune=True)
        chain = images.snapshots.layers()
        assert [item.untagged or item.deleted for item in items][:2] == ["other:latest", image_id]
        assert len(items) == 3
        assert chain == []
        await images.service.settle()
        assert list((root / "overlay/l").iterdir()) == list((root / "overlay/trash").iterdir()) == []

    run(root, body)


@pytest.mark.parametrize(
    ("by_id", "force", "running", "message"),
    [
        (
            False,
            False,
            False,
            'conflict: unable to remove repository reference "x" (must force) - container {c} is using its referenced image {i}',
        ),
        (True, False, False, "conflict: unable to delete {i} (must be forced) - image is being used by stopped container {c}"),
        (True, True, True, "conflict: unable to delete {i} (cannot be forced) - image is being used by running container {c}"),
        (True, False, True, "conflict: unable to delete {i} (cannot be forced) - image is being used by running container {c}"),
    ],
)
def test_an_image_in_use_stays(root: Path, by_id: bool, force: bool, running: bool, message: str) -> None:
    async def body(images: Images) -> None:
        image_id = await images.load(ARCHIVE, "x")
        image = images.service.resolve("x")
        images.users[image.id] = [ImageUser(CONTAINER, running)]
        with pytest.raises(Conflict) as caught:
            await images.service.remove(image_id if by_id else "x", force=force, prune=True)
        assert caught.value.message == message.format(c=CONTAINER[:12], i=short_id(image_id))
        assert images.service.resolve("x").id == image_id

    run(root, body)


def test_a_layer_under_a_container_outlives_its_image(root: Path) -> None:
    async def body(images: Images) -> None:
        await images.load(ARCHIVE, "x")
        image = images.service.resolve("x")
        images.snapshots.prepare(CONTAINER, image.chain_id)
        images.users[image.id] = [ImageUser(CONTAINER, False)]
        items = await images.service.remove("x", force=True, prune=True)
        assert [item.untagged or item.deleted for item in items] == ["x:latest", image.id]
        (await images.snapshots.mounts(CONTAINER)).close()
        images.snapshots.remove(CONTAINER)
        images.service.collect()
        assert images.snapshots.layers() == []

    run(root, body)


@pytest.mark.parametrize(
    ("archive", "repo", "change", "message"),
    [
        (b"garbage" * 100, "x", "", "archive/tar: invalid tar header"),
        (ARCHIVE, "Bad", "", "invalid reference format: repository name (library/Bad) must be lowercase"),
        (ARCHIVE, "x", "FROM y", "FROM is not a valid change command"),
    ],
)
def test_a_refused_import_leaves_nothing(root: Path, archive: bytes, repo: str, change: str, message: str) -> None:
    async def body(images: Images) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await images.load(archive, repo, "", *filter(None, (change,)))
        assert caught.value.message == message
        assert images.service.count == 0
        await images.service.settle()
        assert list((root / "overlay/l").iterdir()) == list((root / "overlay/trash").iterdir()) == []

    run(root, body)


def test_a_client_that_leaves_in_the_middle(root: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield ARCHIVE  # a whole archive, but the request was longer
        raise ConnectionError("gone")

    async def body(images: Images) -> None:
        with pytest.raises(ConnectionError):
            async for _ in images.service.import_(broken(), repo="x", tag="", message="", changes=[], platform=""):
                pass
        assert images.service.count == 0
        assert images.snapshots.keys() == []

    run(root, body)


def test_imports_at_the_same_time(root: Path) -> None:
    async def body(images: Images) -> None:
        archives = [tar(("f", "file", str(number) * 10_000)) for number in range(6)] * 2
        ids = await asyncio.gather(*(images.load(archive, f"x{number}") for number, archive in enumerate(archives)))
        assert len(images.snapshots.layers()) == 6
        assert images.service.count == len(set(ids)) == 12  # each has a time of its own

    run(root, body)


def test_busybox_is_the_same_each_time(root: Path) -> None:
    async def body(images: Images) -> None:
        ids = [[line async for line in images.service.bootstrap("busybox")][-1]["status"] for _ in range(2)]
        assert ids[0] == ids[1] == images.service.resolve("busybox").id
        config = images.service.resolve("busybox").config.config
        assert config is not None
        assert config.cmd == ["sh"]
        assert (config.env or [""])[0].startswith("PATH=/usr/local/sbin:")
        assert "busybox-static=" in (config.labels or {})["sampan.package"]
        lower = Path(images.snapshots.layer_details(str(images.service.resolve("busybox").chain_id)).data["UpperDir"])
        assert (lower / "bin/sh").samefile(lower / "bin/busybox")
        assert (lower / "tmp").stat().st_mode & 0o7777 == 0o1777
        with pytest.raises(EngineError, match="cannot bootstrap 'debian'"):
            async for _ in images.service.bootstrap("debian"):
                pass

    run(root, body)


def test_everything_is_there_after_a_restart(root: Path) -> None:
    before: list[bytes] = []

    async def first(images: Images) -> None:
        await images.load(ARCHIVE, "x", "1")
        await images.service.tag("x:1", "y", "2")
        before.append(msgspec.json.encode(await images.service.inspect("x:1")))

    async def second(images: Images) -> None:
        assert images.service.repair([]) == []
        assert msgspec.json.encode(await images.service.inspect("y:2")) == before[0]

    run(root, first)
    run(root, second)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"reference": ["a*"]}, []),  # path.Match: a star stops at a slash
        ({"reference": ["a/*"]}, ["a/b:1"]),
        ({"reference": ["*:2"]}, ["c:2"]),
        ({"label": ["k=v"]}, ["c:2"]),
        ({"since": ["a/b:1"]}, ["c:2"]),
        ({"before": ["c:2"]}, ["a/b:1"]),
        ({"until": ["1h"]}, []),
        ({"dangling": ["false"]}, ["c:2", "a/b:1"]),
    ],
)
def test_filters(root: Path, filters: dict[str, list[str]], expected: list[str]) -> None:
    async def body(images: Images) -> None:
        await images.load(ARCHIVE, "a/b", "1")
        await images.load(tar(("f", "other", "1")), "c", "2", "LABEL k=v")
        shown = await images.service.list(all=False, filters=filters, shared_size=False)
        assert [name for entry in shown for name in entry.repo_tags] == expected

    run(root, body)


@pytest.mark.parametrize("filters", [{"nope": ["1"]}, {"label!": ["k"]}, {"dangling": ["maybe"]}, {"until": ["yesterday"]}])
def test_bad_filters(root: Path, filters: dict[str, list[str]]) -> None:
    async def body(images: Images) -> None:
        with pytest.raises(InvalidArgument):
            await images.service.list(all=False, filters=filters, shared_size=False)

    run(root, body)


def test_refusals_in_dockers_words(root: Path) -> None:
    async def body(images: Images) -> None:
        await images.load(ARCHIVE, "x", "1")
        with pytest.raises(InvalidArgument, match=r"invalid filter 'dangling=\[maybe\]'"):
            await images.service.list(all=False, filters={"dangling": ["maybe"]}, shared_size=False)
        for name in ("sha256", "docker.io/library/sha256"):
            with pytest.raises(InvalidArgument, match="refusing to create an ambiguous tag using digest algorithm as name"):
                await images.service.tag("x:1", name, "abc")
        await images.service.tag("x:1", "y/sha256", "abc")
        assert (await images.service.inspect("y/sha256:abc")).id == images.service.resolve("x:1").id
        ours = platforms.own()
        other = Platform(architecture="riscv64", os="linux")
        words = (
            rf"image with reference x:1 was found but its platform \(linux/{ours.architecture}.*\) "
            r"does not match the specified platform \(linux/riscv64\)"
        )
        for ask in (images.service.inspect, images.service.history):
            assert await ask("x:1", ours)
            with pytest.raises(NotFound, match=words):
                await ask("x:1", other)
        with pytest.raises(NotFound, match=words):
            await images.service.remove("x:1", force=True, prune=True, platform=other)
        removed = await images.service.remove("x:1", force=False, prune=True, platform=ours)
        assert [item.untagged for item in removed] == ["x:1"]

    run(root, body)
