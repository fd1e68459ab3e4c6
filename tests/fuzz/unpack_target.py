"""The fuzzed program: bytes as a layer that comes, compressed or not, extracted as the overlay driver does, and made again of its recipe.

python -m tests.fuzz.unpack_target --root=DIR [libFuzzer options] CORPUS...

It changes its root to DIR first, where all it names must be: what it finds wrong stays in there.
"""

import codecs
import contextlib
import importlib
import os
import sys
import zlib
from pathlib import Path

import atheris  # type: ignore[import-untyped, unused-ignore]

with atheris.instrument_imports(include=["sampan.archive"]):
    from sampan.archive import compression
    from sampan.archive.apply import LayerApplier
    from sampan.archive.reader import InvalidArchive, TarReader
    from sampan.archive.recipe import RecipeWriter, archive_size, assemble
    from sampan.archive.source import Source, TrailingData, TruncatedArchive
    from sampan.archive.trees import remove_tree
    from tests.support.tars import repaired

PLAIN_MAX = 1 << 18
"""Bytes of a compressed stream that are looked at."""
CANARY = b"canary"
_ISAL = compression._inflate
_REFUSALS = (InvalidArchive, TruncatedArchive, TrailingData, compression.CompressionError)


def reader_of(data: bytes, step: int) -> compression.Read:
    """A stream that gives step bytes at a time."""
    position = 0

    def read(limit: int) -> bytes:
        nonlocal position
        piece = data[position : position + min(limit, step)]
        position += len(piece)
        return piece

    return read


def plain_of(data: bytes, step: int, limit: int) -> tuple[bytes, bool]:
    """What a stream holds, and whether nothing was wrong with it."""
    head, read = compression.peek(reader_of(data, step))
    found = bytearray()
    try:
        plain = compression.decompress_bounded(compression.detect(head), read)
        while len(found) < PLAIN_MAX and (piece := plain(limit)):
            assert len(piece) <= limit
            found += piece
    except compression.CompressionError:
        return bytes(found), False
    return bytes(found), True


def decompress(data: bytes) -> bytes:
    """The plain bytes: the same however they are read, and by zlib as by isal. Raises CompressionError."""
    plain, good = plain_of(data, 1 << 16, 1 << 20)
    for inflate, step, limit in ((_ISAL, 7, 1000), (zlib, 1 << 16, 1 << 20)):
        compression._inflate = inflate
        try:
            again, still_good = plain_of(data, step, limit)
        finally:
            compression._inflate = _ISAL
        common = min(len(plain), len(again))
        assert again[:common] == plain[:common]
        if max(len(plain), len(again)) < PLAIN_MAX:  # else one may not have come to where something is wrong
            assert still_good == good
            assert len(again) == len(plain) or not good
    if not good:
        raise compression.CompressionError("refused")
    return plain


class Target:
    """One run's state."""

    def __init__(self) -> None:
        self.top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        Path("outside").mkdir()
        Path("outside/file").write_bytes(CANARY)
        self.before = self._outside()

    def _outside(self) -> list[tuple[object, ...]]:
        """All that a layer's directory has beside it, but the fuzzer's own."""
        found = [os.lstat(name) for name in ("outside", "outside/file")]
        return [(info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_nlink) for info in found]

    def one(self, data: bytes) -> None:
        """libFuzzer's TestOneInput."""
        try:
            plain = decompress(data) if compression.detect(data) else data
            self._extract(repaired(plain))
        except _REFUSALS:
            pass
        finally:
            remove_tree(self.top, "root")
            with contextlib.suppress(FileNotFoundError):
                os.unlink("recipe", dir_fd=self.top)
            os.fchdir(self.top)
        assert self._outside() == self.before
        assert Path("outside/file").read_bytes() == CANARY
        assert sorted(os.listdir("outside")) == ["file"]

    def _extract(self, archive: bytes) -> None:
        os.mkdir("root", 0o755)
        with contextlib.ExitStack() as stack:
            root = os.open("root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            recipe = os.open("recipe", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, recipe)
            notes, source = RecipeWriter(recipe), Source(reader_of(archive, 1 << 20))
            source.tee = notes.raw
            with LayerApplier(root, None, notes) as applier:
                applier.apply(TarReader(source))
            source.drain_padding()
            notes.finish()
            os.lseek(recipe, 0, os.SEEK_SET)
            assert b"".join(assemble(recipe, root)) == archive
            os.lseek(recipe, 0, os.SEEK_SET)
            assert archive_size(recipe) == len(archive)


def main() -> None:
    """Entry point."""
    root = sys.argv.pop(1).removeprefix("--root=")
    for module in ("atheris.core_with_libfuzzer", "signal"):  # what it would load later, out of reach by then
        importlib.import_module(module)
    codecs.lookup("unicode_escape")  # as workers do before they go in
    os.chroot(root)
    os.chdir("/")
    os.umask(0)
    atheris.Setup(sys.argv, Target().one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
