"""What a small context has, found without a file of it."""

import gzip
import io
import itertools
import tarfile

import pytest

from sampan.archive import smallcontext
from sampan.archive.smallcontext import SmallContext


def archive(*members: tuple[str, bytes | None], **header: object) -> bytes:
    """A tar; None: a directory. header: of its last member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.type, info.size = (tarfile.DIRTYPE, 0) if data is None else (tarfile.REGTYPE, len(data))
            if number == len(members) - 1:
                for key, value in header.items():
                    setattr(info, key, value)
            tar.addfile(info, None if data is None else io.BytesIO(data))
    return buffer.getvalue()


def found(data: bytes, dockerfile: str = "Dockerfile") -> SmallContext:
    context = smallcontext.listed(data, dockerfile)
    assert context is not None
    return context


def test_files_directories_and_those_only_names_tell_of() -> None:
    context = found(
        archive(("./", None), ("Dockerfile", b"FROM x\n"), ("b/", None), ("a/deep/file", b"1"), ("a.txt", b"2"), ("\udcff", b"3"))
    )
    assert context.files == {"Dockerfile": b"FROM x\n", "a/deep/file": b"1", "a.txt": b"2", "\udcff": b"3"}
    names = context.names
    assert names.children("") == ["Dockerfile", "a", "a.txt", "b", "\udcff"]
    assert [names.kind(name) for name in ("a", "a/deep", "a/deep/file", "b", "c")] == ["d", "d", "f", "d", ""]
    assert names.hash("a", "a") == "a"  # was no member: docker then takes the path
    assert len(names.hash("b", "b")) == len(names.hash("a.txt", "a.txt")) == 64


@pytest.mark.parametrize(
    "data",
    [
        archive(("Dockerfile", b""), ("x", b"1"), ("x", b"2")),
        archive(("Dockerfile", b""), ("x/y", b"1"), ("x", b"2")),
        archive(("Dockerfile", b""), ("x", b"2"), ("x/y/z", b"1")),
        archive(("Dockerfile", b""), ("../x", b"")),
        archive(("Dockerfile", b""), ("x", b""), type=tarfile.SYMTYPE, linkname="Dockerfile"),
        archive(("Dockerfile", b""), ("x", b""), type=tarfile.LNKTYPE, linkname="Dockerfile"),
        archive(("Dockerfile", b""), ("x", b""), type=tarfile.CHRTYPE),
        archive(("Dockerfile", b""), ("x", b"12"), pax_headers={"GNU.sparse.map": "0,2", "GNU.sparse.size": "9", "GNU.sparse.name": "y"}),
        archive(("Dockerfile", b""), (".dockerignore", b"Dockerfile\n")),
        archive(("Dockerfile", b""), ("Dockerfile.dockerignore", b".dockerignore\n")),
        archive(*((str(number), b"") for number in range(1001))),
        archive(("Dockerfile", b""), *((f"{top}/" + "a/" * 2000 + "f", b"") for top in range(40))),
        archive(("Dockerfile", b""), *((f"{top}/" + "d" * 200 + "/f" * 50, b"") for top in range(15))),
        archive(("Dockerfile", b""), (".dockerignore", b"!**/x?*/**\n" * 9000)),
        archive(("Dockerfile", b"x" * 100))[:600],
        gzip.compress(archive(("Dockerfile", b"")), mtime=0),
        b"FROM x\n" * 100,
    ],
    ids=itertools.count(),
)
def test_what_a_worker_has_to_look_at(data: bytes) -> None:
    assert smallcontext.listed(data, "Dockerfile") is None


def test_what_is_ignored_and_is_not_the_dockerfile_makes_no_difference() -> None:
    context = found(archive(("D", b""), (".dockerignore", b"*\n!D\n!.dockerignore\n")), "D")
    assert context.names.children("") == [".dockerignore", "D"]
