"""What COPY finds: the same in a directory and in what a worker has told of it; modes of --chmod; docker's own hashes."""

import hashlib
import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.archive import chmod, sources
from sampan.archive.context import LATER_MIN, ContextExtractor, add_sums, read_sums, told
from sampan.archive.meant import Meant
from sampan.archive.reader import TarReader
from sampan.archive.source import Source
from sampan.archive.sources import ListedNames, RootNames, SourceError
from tests.support.builds import Content, context

FILES: dict[str, Content] = {
    "Dockerfile": "FROM x\n", "d": None, "d/1": {"data": "1", "mode": 0o640}, "d/e": None, "d/e/2": "2", "l": {"link": "d"},
    "up": {"link": "../d/1"}, "abs": {"link": "/d/e"}, "loop": {"link": "loop"}, "gone": {"link": "nowhere"}, "a*b": "star",
}  # fmt: skip


def listed(tree: Path, files: dict[str, Content], dockerfile: str = "") -> ListedNames:
    """A context taken in, as it is told."""
    root, sums = os.open(tree, os.O_RDONLY), os.open(tree.parent / "sums", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with (extractor := ContextExtractor(root, sums, dockerfile.encode())):
            extractor.apply(TarReader(Source(io.BytesIO(context(files)).read, hashed=False)))
            extractor.finish()
        found = sources.listed(_Below(tree, told(read_sums(sums))), 1000, 100_000)
    finally:
        os.close(root)
        os.close(sums)
    assert found is not None
    return ListedNames(found)


class _Below(RootNames):
    """Names of a directory that is not this process's root: nothing in it leads out."""

    def __init__(self, top: Path, sums: dict[bytes, str]) -> None:
        super().__init__(sums)
        self._top = str(top)

    def kind(self, path: str) -> str:
        return super().kind(f"{self._top[1:]}/{path}")

    def link(self, path: str) -> str:
        return super().link(f"{self._top[1:]}/{path}")

    def children(self, path: str) -> list[str]:
        return super().children(f"{self._top[1:]}/{path}")


@pytest.fixture
def names(tmp_path: Path) -> ListedNames:
    (tmp_path / "tree").mkdir()
    return listed(tmp_path / "tree", FILES)


def found(names: ListedNames, *patterns: str, wildcards: bool = True, parents: bool = False) -> list[tuple[str, str, bool]]:
    return [item[:3] for item in sources.find(patterns, names, of_context=True, wildcards=wildcards, parents=parents)]


def test_names_and_links(names: ListedNames) -> None:
    assert found(names, "d/1", "/d/1", "./d/1", "l/1", "up") == [
        ("d/1", "d/1", False), ("d/1", "d/1", False), ("d/1", "d/1", False), ("l/1", "d/1", False), ("up", "d/1", False),
    ]  # fmt: skip
    assert found(names, "abs", ".") == [("abs", "d/e", True), ("", "", True)]
    assert found(names, "d/?", "*/1") == [("d/1", "d/1", False), ("d/e", "d/e", True), ("d/1", "d/1", False)]
    assert found(names, "a*b", wildcards=False) == [("a*b", "a*b", False)]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("**/1", ["d/1"]),
        ("**/[12]", ["d/1", "d/e/2"]),
        ("d/**", ["d/1", "d/e"]),
        ("**", ["Dockerfile", "a*b", "abs", "d", "gone", "l", "loop", "up"]),
        ("./d/./**/2", ["d/e/2"]),
        ("d/./**/2", ["d/e/2"]),
        ("*/./e", ["d/e"]),
        ("d/*/./**/*", ["d/e/2"]),
        ("l*", ["l", "loop"]),
        ("up", ["up"]),
        ("l/1", ["l/1"]),
    ],
)
def test_names_with_their_parents(names: ListedNames, pattern: str, paths: list[str]) -> None:
    assert [path for path, _, _ in found(names, pattern, parents=True)] == paths
    assert [real for path, real, _ in found(names, "up", "l/1", parents=True)] == ["up", "d/1"]


def test_a_symlink_that_is_meant_itself_counts_by_where_it_leads(tmp_path: Path) -> None:
    hashes = set()
    for target in ("a", "b"):
        tree = tmp_path / target / "tree"
        tree.mkdir(parents=True)
        (item,) = sources.find(["l"], listed(tree, {"l": {"link": target}}), of_context=True, parents=True)
        hashes.add(item.hash)
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("no", "file not found in build context or excluded by .dockerignore: stat no: file does not exist"),
        ("gone", "file not found in build context or excluded by .dockerignore: stat gone: file does not exist"),
        ("x*", "no source files were specified"),
        ("../x", "forbidden path outside the build context: ../x ()"),
        ("d/../../x", "forbidden path outside the build context: d/../../x ()"),
        ("loop", "forbidden path outside the build context: loop ()"),
    ],
)
def test_what_is_not_there(names: ListedNames, pattern: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        found(names, pattern)
    assert str(caught.value) == message


def test_hashes_are_dockers(names: ListedNames) -> None:
    """As a dockerd 28 has them in its history (tests/golden/build has more)."""
    (one,) = sources.find(["d/1"], names, of_context=True)
    header = "named/1mode416uid0gid0size1typeflag0linknameunamegnamedevmajor0devminor01"
    assert one.hash == "file:" + hashlib.sha256(header.encode()).hexdigest()


def test_times_do_not_count_and_everything_else_does(tmp_path: Path) -> None:
    def of(content: Content) -> str:
        tree = tmp_path / os.urandom(4).hex() / "tree"
        tree.mkdir(parents=True)
        (item,) = sources.find(["f"], listed(tree, {"f": content}), of_context=True)
        return item.hash

    plain = of({"data": "x", "mtime": 1})
    assert of({"data": "x", "mtime": 2}) == plain
    assert len({plain, of("y"), of({"data": "x", "mode": 0o600}), of({"data": "x", "uid": 1}), of(None)}) == 5


def test_many_names_are_not_told(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"f{number}").touch()
    names = _Below(tmp_path, {})
    assert sources.listed(names, 20, 100_000) is not None
    assert sources.listed(names, 19, 100_000) is None
    assert sources.listed(names, 20, 100) is None


@pytest.mark.parametrize(
    ("text", "old", "directory", "new"),
    [
        ("755", 0o600, False, 0o755),
        ("0644", 0o777, True, 0o644),
        ("4755", 0, False, 0o4755),
        ("u+x", 0o644, False, 0o744),
        ("+x", 0o644, False, 0o755),
        ("go-rwx", 0o777, False, 0o700),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("a+X", 0o744, False, 0o755),
        ("g=u", 0o750, False, 0o770),
        ("u+s,g+s,+t", 0o755, True, 0o7755),
        ("u=rw-w+x", 0, False, 0o500),
        ("o=", 0o777, False, 0o770),
    ],
)
def test_modes(text: str, old: int, directory: bool, new: int) -> None:
    assert chmod.parse(text)(old, directory) == new


@given(st.text(alphabet="ugoarwxXst+-=,0178 ", max_size=12))
def test_no_mode_is_a_traceback(text: str) -> None:
    with suppress(chmod.BadMode):
        assert 0 <= chmod.parse(text)(0o644, False) <= 0o7777


def test_tars_of_python_too(tmp_path: Path) -> None:
    """docker-py's archives name their owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("f")
        info.uname, info.gname, info.mode = "ä", "root", 0o100644
        tar.addfile(info)
    root, sums = os.open(tmp_path, os.O_RDONLY), os.memfd_create("sums")
    with (extractor := ContextExtractor(root, sums)):
        extractor.apply(TarReader(Source(io.BytesIO(buffer.getvalue()).read, hashed=False)))
        extractor.finish()
    assert len(read_sums(sums)[b"f"]) == 64
    os.close(root)
    os.close(sums)


@pytest.mark.parametrize(
    ("patterns", "count", "length"),
    [(["x*"] * 500, 1000, 5), (["d"] * 500, 1000, 5), (["d/" + "*a" * 500 + "b"], 1000, 5), (["d/" + "*a" * 40 + "b"] * 20, 20, 4000)],
)
def test_many_patterns_are_not_found_at_once(patterns: list[str], count: int, length: int) -> None:
    names = ListedNames([("d", "d", "", ""), *((f"d/{'a' * length}{number}", "f", "0" * 64, "") for number in range(count))])
    assert not names.is_quick(patterns)
    assert names.is_quick(patterns[:1]) == (len(patterns) == 500)


def test_few_patterns_are_found_at_once() -> None:
    names = ListedNames([("d", "d", "", ""), *((f"d/source{number}.py", "f", "0" * 64, "") for number in range(999))])
    assert names.is_quick(["d", "*.py"])


LARGE = os.urandom(LATER_MIN)
COPIES_F = "FROM x\nCOPY f /\n"


@pytest.mark.parametrize(("dockerfile", "known"), [(COPIES_F, False), ("FROM x\nCOPY . /\n", True), ("FROM x\nCOPY f d/large /\n", True)])
def test_a_large_file_that_is_not_likely_to_be_copied_is_hashed_when_it_is(tmp_path: Path, dockerfile: str, known: bool) -> None:
    (tmp_path / "tree").mkdir()
    names = listed(tmp_path / "tree", {"Dockerfile": dockerfile, "d": None, "d/large": LARGE, "f": "1"}, "Dockerfile")
    assert names.hash("f", "f") != sources.LATER
    if not known:
        with pytest.raises(sources.HashedLater):
            names.hash("d/large", "d/large")
    sums = os.open(tmp_path / "sums", os.O_RDWR | os.O_APPEND)
    place = os.fsencode(tmp_path / "tree/d/large")[1:]
    expected = listed_at_once(tmp_path, {"d/large": LARGE})[b"d/large"]
    for made in (not known, False):  # the second time it is there
        told = read_sums(sums)
        there = RootNames({place: told[b"d/large"]})
        assert there.hash("d/large", os.fsdecode(place)) == expected
        assert bool(there.late) == made
        add_sums(sums, dict.fromkeys([b"d/large"], expected))
    os.close(sums)


def listed_at_once(tmp_path: Path, files: dict[str, Content]) -> dict[bytes, str]:
    """Hashes of a context whose Dockerfile is not known."""
    (tmp_path / "other").mkdir()
    root, sums = os.open(tmp_path / "other", os.O_RDONLY), os.memfd_create("sums")
    with (extractor := ContextExtractor(root, sums)):
        extractor.apply(TarReader(Source(io.BytesIO(context(files)).read, hashed=False)))
        extractor.finish()
    found = read_sums(sums)
    os.close(root)
    os.close(sums)
    return found


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("COPY a b/ /x/", {b"a", b"b/c"}),
        ("copy --chown=1 ./a \\\n  b /", {b"a", b"b/c"}),
        ('ADD ["b", "/"]', {b"b/c"}),
        ("COPY a*  /", {b"a", b"b/c", b"d"}),
        ("COPY $X /", {b"a", b"b/c", b"d"}),
        ("COPY . /", {b"a", b"b/c", b"d"}),
        ("COPY ./ .", {b"a", b"b/c", b"d"}),
        ("COPY / .", {b"a", b"b/c", b"d"}),
        ("COPY b/../a /", {b"b/c", b"a", b"d"}),
        ("COPY --from=x a /", set()),
        ("RUN --mount=type=bind,target=/x true", {b"a", b"b/c", b"d"}),
        ("RUN --mount=type=cache,target=/a cp a b", set()),
    ],
)
def test_what_a_dockerfile_may_mean(line: str, paths: set[bytes]) -> None:
    meant = Meant(f"FROM x\n{line}\nCMD a\n".encode())
    assert {path for path in (b"a", b"b/c", b"d") if meant.has(path)} == paths
