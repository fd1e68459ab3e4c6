"""kill -9 before each single change of the file system: what was acknowledged is there, and nothing is half there.

A child pushes two images, moves a tag, deletes a manifest and a tag. It dies before its first change; the next child before its second; and
so on, until one lives. Python's audit events tell of each change.
"""

import asyncio
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from sampan.registry import documents, paths
from sampan.registry.errors import RegistryError
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import Gate
from sampan.registry.store import Blobs, Manifests, digest_of
from sampan.registry.uploads import Uploads
from tests.support.registryserver import manifest_of

CHANGES = frozenset(("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"))
NAME = "team/app"
CONFIG, OLD_LAYER, NEW_LAYER = b"{}", b"old layer", b"new layer"
OLD, NEW = manifest_of(CONFIG, OLD_LAYER), manifest_of(CONFIG, NEW_LAYER)


async def scenario(root: Path, told: int) -> None:
    """told: a descriptor that gets a line for each thing acknowledged."""
    storage, gate = FileSystem(root), Gate()
    blobs, manifests, uploads = Blobs(storage, gate), Manifests(storage, gate), Uploads(storage.uploads, lifetime=60)

    async def push_blob(content: bytes) -> None:
        async def pieces():  # type: ignore[no-untyped-def]
            yield content

        upload = await uploads.begin(NAME)
        await upload.write(pieces(), 0)
        digest = digest_of(content)
        await blobs.add(NAME, digest, await uploads.finish(upload, digest))
        await uploads.forget(upload)
        os.write(told, f"blob {digest}\n".encode())

    async def push(layer: bytes, manifest: bytes, *tags: str) -> None:
        for content in (CONFIG, layer):
            await push_blob(content)
        await manifests.put(NAME, digest_of(manifest), tags, manifest, documents.read(manifest))
        for tag in tags:
            os.write(told, f"tag {tag} {digest_of(manifest)}\n".encode())

    await push(OLD_LAYER, OLD, "latest", "old")
    await push(NEW_LAYER, NEW, "latest")
    os.write(told, b"deleting\n")
    await manifests.delete(NAME, digest_of(OLD))
    await manifests.delete_tag(NAME, "latest")
    os.write(told, b"end\n")


def child(root: Path, told: int, die_at: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in CHANGES or (event == "open" and arguments[1] is None and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
            count += 1
            if count == die_at:
                os._exit(9)

    sys.addaudithook(hook)
    asyncio.run(scenario(root, told))


async def check(root: Path, lines: list[str]) -> None:
    storage, gate = FileSystem(root), Gate()
    blobs, manifests = Blobs(storage, gate), Manifests(storage, gate)
    Uploads(storage.uploads, lifetime=60)
    assert not os.listdir(root / paths.TEMPORARY)
    for digest, _ in await storage.blobs():  # content is what it is called
        assert digest_of(await storage.read(paths.blob(digest))) == digest
    for digest in await manifests.revisions(NAME):  # a manifest that is shown has all it names
        for blob, size in documents.read((await manifests.get(NAME, digest)).body).blobs:
            stored = await blobs.open(NAME, blob)
            assert stored.size == size
            stored.close()
    for tag in await storage.names(paths.tags(NAME)):
        await manifests.get(NAME, tag)
    told: dict[str, str] = {}
    for line in lines:
        words = line.split()
        if words[0] == "blob":
            (await blobs.open(NAME, words[1])).close()  # type: ignore[arg-type]
        elif words[0] == "tag":
            told[words[1]] = words[2]
    if "deleting" in lines:
        return
    for tag, digest in told.items():
        found = await manifests.resolve(NAME, tag)
        assert found == digest or (tag == "latest" and found == digest_of(NEW))


async def after_all(root: Path) -> None:
    manifests = Manifests(FileSystem(root), Gate())
    assert await manifests.tags(NAME) == []
    assert await manifests.revisions(NAME) == [digest_of(NEW)]
    with pytest.raises(RegistryError):
        await manifests.get(NAME, "old")


def main(base: Path) -> None:
    """In a process of its own: it forks."""
    for die_at in range(1, 500):
        root = base / str(die_at)
        root.mkdir()
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                child(root, writer, die_at)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writer)
        with open(reader, encoding="ascii") as file:
            lines = file.read().splitlines()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, 9), code
        try:
            asyncio.run(check(root, lines))
        except BaseException:
            print(f"died at change {die_at} after {lines}", file=sys.stderr)
            raise
        if code == 0:
            assert lines[-1] == "end"
            asyncio.run(after_all(root))
            print(f"{die_at} instants")
            return
    raise AssertionError("it never ends")


def test_a_kill_at_each_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path; from tests.unit.registry.test_crash import main; main(Path({str(tmp_path)!r}))"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 60
