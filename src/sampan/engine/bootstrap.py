"""sampan image bootstrap: base images without a registry, out of the host's and the distribution's packages."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sampan.archive.trees import measure_tree, remove_path
from sampan.engine.images import ImageService
from sampan.engine.progress import Progress
from sampan.errors import SystemFailure
from sampan.findings import Finding
from sampan.image import debian
from sampan.reference import parse
from sampan.snapshot.api import Unpacked
from sampan.worker.client import WorkerPool

_TOOLS = {"mmdebstrap": "mmdebstrap", "setpriv": "util-linux", "unshare": "util-linux", "apt-get": "apt"}
_LAST_LINES = 12
_INSIDE = ("I: running --", "I: running special hook", "I: skipping", "I: reading sources.list", "I: finding correct")
"""What mmdebstrap says of our own way of running it."""


class BootstrapService:
    """See api/services.py for the contract."""

    def __init__(self, images: ImageService, workers: WorkerPool, root: Path) -> None:
        """root: for the packages fetched (`cache/`), and trees that are being made."""
        self._images = images
        self._workers = workers
        self._root = root
        self._busy = asyncio.Lock()

    async def repair(self) -> None:
        """Remove trees that were never finished. Nothing runs in them: it ended with the engine that had begun it."""
        async with self._busy:
            for path in self._trees():
                await asyncio.to_thread(_remove, path)

    def look(self) -> list[Finding]:
        """Trees that were never finished."""
        trees = [] if self._busy.locked() else self._trees()
        return [Finding("file", str(tree), "is a base image that was never finished", "remove it", self.repair) for tree in trees]

    def _trees(self) -> list[Path]:
        return list(self._root.glob("tree-*"))

    def disk_usage(self) -> int:
        """Bytes on disk of packages that were fetched, and of what is being made. Any thread."""
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return measure_tree(fd)[2]
        finally:
            os.close(fd)

    async def drop_cache(self) -> int:
        """Remove the packages that were fetched, unless they are in use. Returns the bytes that this freed."""
        if self._busy.locked():
            return 0
        async with self._busy:
            before = await asyncio.to_thread(self.disk_usage)
            await asyncio.to_thread(_remove, self._root / "cache")
            return before - await asyncio.to_thread(self.disk_usage)

    async def bootstrap(self, name: str, include: Sequence[str]) -> AsyncIterator[Progress]:
        """Make a base image. Yields progress, the ID last. Raises InvalidArgument, SystemFailure."""
        if name in ("busybox", "busybox:latest"):
            async for progress in self._images.bootstrap("busybox"):
                yield progress
            return
        host: dict[str, str] = {}
        with suppress(OSError):
            host = debian.read_os_release(Path("/etc/os-release").read_text())
        base = debian.parse_base(name, include, host)
        _check_tools(base)
        async with self._busy:  # they share the cache
            self._root.mkdir(mode=0o710, parents=True, exist_ok=True)
            cache = self._root / "cache" / f"{base.vendor}-{base.suite}"
            cache.mkdir(mode=0o755, parents=True, exist_ok=True)
            tree = self._root / f"tree-{os.urandom(8).hex()}"
            tree.mkdir(mode=0o755)
            try:
                targets = await _output("apt-get", "indextargets", "--format", debian.INDEX_FORMAT, "Created-By: Packages")
                settings = await _output("apt-config", "dump")
                lines = debian.sources(base, targets, host)
                begun = time.time()
                command = debian.command(base, str(tree), str(cache), debian.proxies(settings))
                async for line in _run(command if not lines else [*command, "-"], "\n".join(lines)):
                    yield {"status": line}
                yield {"status": "making the layer"}
                facts, unpacked, key = await self._layer(tree, int(begun))
            finally:
                await asyncio.to_thread(_remove, tree)
        try:
            config = debian.image_config(base, unpacked.diff_id, facts["packages"], facts["epoch"])
        except BaseException:
            self._images.forget(key)
            raise
        image = self._images.add_child(None, key, unpacked, config, parse(base.name))
        yield {"status": f"Tagged {base.name}, {len(facts['packages'])} packages"}
        yield {"status": image.id}

    async def _layer(self, tree: Path, begun: int) -> tuple[dict[str, Any], Unpacked, str]:
        """The tree as a layer, not yet committed: (packages and the time of the newest of their files, the layer, its key)."""
        facts: dict[str, Any] = {"packages": []}

        def tell(progress: dict[str, Any]) -> None:
            facts["packages"] += progress["packages"]

        directory = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:

            async def write(writer: int) -> None:
                facts.update(await self._workers.stream("tree_pack", {"begun": begun}, [directory, writer], tell))

            unpacked, key = await self._images.unpack_from(write)
        finally:
            os.close(directory)
        return facts, unpacked, key


def _remove(tree: Path) -> None:
    """A tree that programs of a distribution made. What cannot be removed stays, for the next start or `system check`."""
    with suppress(OSError):
        remove_path(tree)


def _check_tools(base: debian.Base) -> None:
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    package, keyring = debian.KEYRINGS[base.vendor]
    if not os.path.exists(f"/usr/share/keyrings/{keyring}"):
        missing.append(package)
    if missing:
        raise SystemFailure(f"cannot bootstrap {base.name}: not installed: {' '.join(missing)}: apt-get install {' '.join(missing)}")


async def _output(*command: str) -> str:
    """What a short command prints; nothing when it fails."""
    with suppress(OSError, subprocess.SubprocessError):
        return (await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=True)).stdout
    return ""


async def _run(command: Sequence[str], text: str) -> AsyncIterator[str]:
    """Run a command with a text as its input; yields what it says line by line. Raises SystemFailure with its last words."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=debian.environment(),
        cwd="/",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    last: list[str] = []
    try:
        process.stdin.write(text.encode() + b"\n")
        process.stdin.close()
        while line := await process.stdout.readline():
            words = line.decode("utf-8", "replace").rstrip()
            last = [*last, words][-_LAST_LINES:]
            if words.startswith("I: ") and not words.startswith(_INSIDE):
                yield words.removeprefix("I: ")
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code:
        raise SystemFailure(f"mmdebstrap failed: {'; '.join(line for line in last if not line.startswith('I: ')) or f'exit status {code}'}")
