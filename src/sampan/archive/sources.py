"""What the sources of a COPY or ADD are in a tree (a context, a stage, an image), and their hashes, as docker's classic builder finds them.

Source: moby builder/dockerfile/copy.go, builder/remotecontext. A worker looks in its current root; of a small context the engine has
been told all that it takes to find them without one.
"""

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, Protocol

from sampan import dockerignore
from sampan.archive.pack import keeps
from sampan.archive.tarsum import of_file

SOURCES_MAX: Final = 100_000
"""What all wildcards of one instruction may find."""
_QUICK_MAX: Final = 200_000
"""Letters of patterns times names that the engine itself compares: a twentieth of a second at worst."""
_PATTERN_COST: Final = 30
"""Of a pattern without any, in letters."""
_NAME_LETTERS: Final = 10
"""Letters of a name that cost as much as a name without any."""
_LINKS_MAX: Final = 255
_CHUNK: Final = 1 << 18
_LOOK: Final = 256
"""Bytes that a look at a file counts as."""
LATER: Final = "+"
"""Instead of a hash: it is still to be made; before digits: of these, and of the file's content."""


class Names(Protocol):
    """The names of a tree. Paths are from its root, without a leading slash; "" is the root itself."""

    def kind(self, path: str) -> str:
        """`d` a directory, `l` a symlink, `f` anything else, "" nothing. No part of the path before the last is a symlink."""

    def link(self, path: str) -> str:
        """Where a symlink leads."""

    def children(self, path: str) -> list[str]:
        """The names in a directory, sorted by their bytes."""

    def hash(self, path: str, real: str) -> str:
        """Of a file or directory by its path and its real path; of a directory what it is itself, not what is in it."""

    def beside(self, path: str) -> str:
        """What there is to say of a file or directory that its hash does not tell, which has to be docker's."""


class SourceError(Exception):
    """Docker's words for a source that cannot be had."""


class Source(NamedTuple):
    """One thing to be copied."""

    path: str
    """As found, from the root: its last part is the file's name at the destination."""
    real: str
    """Where it really is: symlinks followed, within the root."""
    directory: bool
    hash: str
    """`file:…` or `dir:…`."""
    pattern: str
    """What it was asked for by."""


class HashedLater(Exception):
    """A file's hash is not known yet, and can be had only where the file is."""


class RootNames:
    """The current root's. Files are hashed as they are, or (sums, of a context) as their archive's headers said."""

    def __init__(
        self, sums: Mapping[bytes, str] | None = None, read: Callable[[int], object] = lambda _: None, *, odd: bool = False
    ) -> None:
        """read: told of the bytes that hashing takes. odd: what the headers said is not all (archive/context.py)."""
        self._sums = sums
        self._odd = odd
        self._read = read
        self.late: dict[bytes, str] = {}
        """The hashes that were made here."""

    def kind(self, path: str) -> str:
        """See Names."""
        try:
            mode = os.lstat("/" + path).st_mode
        except OSError:
            return ""
        return "d" if stat.S_ISDIR(mode) else "l" if stat.S_ISLNK(mode) else "f"

    def link(self, path: str) -> str:
        """See Names."""
        return os.readlink("/" + path)

    def children(self, path: str) -> list[str]:
        """See Names."""
        return sorted(os.listdir("/" + path), key=os.fsencode)

    def hash(self, path: str, real: str) -> str:
        """See Names. What was in no archive's header is hashed by its path, as docker does."""
        if self._sums is None:
            return _hash_of_file(real, self._read)
        name = os.fsencode(real)
        digest = self.late.get(name) or self._sums.get(name)
        if digest is not None and digest.startswith(LATER) and len(digest) > len(LATER):
            digest = self.late[name] = _hash_of_content(hashlib.sha256(bytes.fromhex(digest[len(LATER) :])), "/" + real, self._read)
        return path if digest is None else digest

    def beside(self, path: str) -> str:
        """See Names: attributes, of which docker's hash has one; and where the headers do not tell what a file is, what it is."""
        if self._sums is not None and not self._odd:
            return ""
        return (_hash_of_file(path, self._read) if self._odd else "") + _hash_of_attributes("/" + path)


class ListedNames:
    """Those of a small tree, as a worker has told them."""

    def __init__(self, entries: Iterable[tuple[str, str, str, str]]) -> None:
        """entries: (path, kind, hash, "" or LATER, where a symlink leads), parents before children, by name."""
        self._entries: dict[str, tuple[str, str, str]] = {"": ("d", "", "")}
        self._children: dict[str, list[str]] = {}
        for path, kind, digest, link in entries:
            self._entries[path] = (kind, digest, link)
            parent, _, name = path.rpartition("/")
            self._children.setdefault(parent, []).append(name)

    def is_quick(self, patterns: Sequence[str]) -> bool:
        """Whether patterns are found at once: each is held against every name, at worst every letter of it against every name's."""
        count, length = len(self._entries), sum(map(len, self._entries))
        of_wildcards = count + length // _NAME_LETTERS
        work = sum((len(pattern) + _PATTERN_COST) * (of_wildcards if has_wildcards(pattern) else count) for pattern in patterns)
        return work <= _QUICK_MAX

    def kind(self, path: str) -> str:
        """See Names."""
        return self._entries.get(path, ("", "", ""))[0]

    def link(self, path: str) -> str:
        """See Names."""
        return self._entries[path][2]

    def children(self, path: str) -> list[str]:
        """See Names."""
        return self._children.get(path, [])

    def hash(self, path: str, real: str) -> str:
        """See Names. Raises HashedLater."""
        digest = self._entries.get(real, ("", "", ""))[1]
        if digest == LATER:
            raise HashedLater(real)
        return digest or path

    def beside(self, path: str) -> str:
        """See Names: nothing, of those that are told."""
        del path
        return ""


def listed(names: Names, most: int, length: int) -> list[tuple[str, str, str, str]] | None:
    """What ListedNames takes; None for more entries, or more bytes of names, than these."""
    found: list[tuple[str, str, str, str]] = []
    for path in walk(names, ""):
        if not path:
            continue
        kind = names.kind(path)
        digest = names.hash("", path) if kind != "l" else ""
        link = names.link(path) if kind == "l" else ""
        length -= 3 * len(path) + len(digest) + 3 * len(link) + 20
        if len(found) >= most or length < 0:
            return None
        found.append((path, kind, digest, link))
    return found


def real_path(path: str, names: Names | None = None) -> str:
    """A path without symlinks, as far as it is there; from the root, without a leading slash. Raises SourceError."""
    names = names or RootNames()
    done, todo, links = "", [part for part in path.split("/") if part not in ("", ".")], 0
    todo.reverse()
    while todo:
        part = todo.pop()
        if part == "..":
            done = posixpath.dirname(done)
            continue
        place = f"{done}/{part}" if done else part
        if names.kind(place) != "l":
            done = place
            continue
        target = names.link(place)
        links += 1
        if links > _LINKS_MAX:
            raise SourceError(f"too many links in {path}")
        done = "" if target.startswith("/") else done
        todo += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
    return done


def _hash_of_file(real: str, read: Callable[[int], object]) -> str:
    path = "/" + real
    read(_LOOK)
    try:
        info = os.lstat(path)
    except OSError:
        return real
    capability = None
    link = os.fsencode(os.readlink(path)) if stat.S_ISLNK(info.st_mode) else b""
    if stat.S_ISREG(info.st_mode):
        try:
            capability = os.getxattr(path, "security.capability")
        except OSError:
            capability = None
    digest = of_file(os.fsencode(real), info, link, capability)
    return _hash_of_content(digest, path, read) if stat.S_ISREG(info.st_mode) and info.st_size else digest.hexdigest()


def _hash_of_content(digest: "hashlib._Hash", path: str, read: Callable[[int], object]) -> str:
    """A hash that has begun, with a file's content."""
    buffer = memoryview(bytearray(_CHUNK))
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while count := os.readv(fd, [buffer]):
            read(count)
            digest.update(buffer[:count])
    finally:
        os.close(fd)
    return digest.hexdigest()


def _hash_of_attributes(path: str) -> str:
    """Nothing for a file without any."""
    try:
        found = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False) if keeps(key)}
    except OSError:  # a file system without
        return ""
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest() if found else ""


def walk(names: Names, top: str) -> Iterator[str]:
    """A path and everything below, parents first, by name."""
    stack = [top]
    while stack:
        path = stack.pop()
        yield path
        if names.kind(path) == "d":
            stack.extend(f"{path}/{name}" if path else name for name in reversed(names.children(path)))


def find(patterns: Sequence[str], names: Names, *, of_context: bool, wildcards: bool = True, parents: bool = False) -> list[Source]:
    """The sources in order. Raises SourceError when one is not there, or nothing was found at all, BadPattern.

    parents: for `--parents`, as BuildKit finds them: `**` goes through directories, what is below a directory that was found is in it,
    a symlink is meant itself.
    """
    found: list[Source] = []
    for pattern in patterns:
        if posixpath.normpath(pattern.lstrip("/") or ".").startswith("../") and of_context:
            raise _outside(pattern.removeprefix("/"))
        path = posixpath.normpath("/" + pattern).lstrip("/")
        if wildcards and has_wildcards(pattern):
            matches = _deep(pattern) if parents else partial(dockerignore.matches, path)
            inside = "\0"
            for candidate in walk(names, ""):
                if candidate and not candidate.startswith(inside) and matches(candidate):
                    found.append(_one(pattern, candidate, names, of_context=of_context, follow=not parents))
                    inside = f"{candidate}/" if parents and found[-1].directory else "\0"
                    if len(found) > SOURCES_MAX:
                        raise SourceError(f"more than {SOURCES_MAX} files match")
        else:
            found.append(_one(pattern, path, names, of_context=of_context, follow=not parents))
    if not found:
        raise SourceError("no source files were specified")
    return found


def pivot(pattern: str) -> tuple[str, str]:
    """With --parents: what comes before `/./`, and is not kept, and the rest; both as paths from the root."""
    before, found, after = pattern.partition("/./")
    parts = (before, after) if found else ("", pattern)
    base, rest = (posixpath.normpath(f"/{part}").strip("/") for part in parts)
    return base, rest


def _deep(pattern: str) -> Callable[[str], bool]:
    """What a pattern of --parents matches: stars before the pivot stay within a name."""
    base, rest = pivot(pattern)
    glob = dockerignore.Glob(rest)
    if not base:
        return glob.matches
    before, depth = dockerignore.Glob(base, deep=False), base.count("/") + 1

    def matches(path: str) -> bool:
        parts = path.split("/")
        return len(parts) > depth and before.matches("/".join(parts[:depth])) and glob.matches("/".join(parts[depth:]))

    return matches


def has_wildcards(pattern: str) -> bool:
    """Whether it is more than a name; a backslash takes a sign its meaning."""
    escaped = False
    for letter in pattern:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter in "*?[":
            return True
    return False


def _outside(path: str) -> SourceError:
    """Docker says it of every path that cannot be followed."""
    return SourceError(f"forbidden path outside the build context: {path} ()")


def _below_file(path: str, names: Names) -> bool:
    """Whether one of the directories that it leads through is none, but there."""
    parts = path.split("/")[:-1]
    return any(names.kind("/".join(parts[:count])) == "f" for count in range(1, len(parts) + 1))


def _one(pattern: str, path: str, names: Names, *, of_context: bool, follow: bool = True) -> Source:
    try:
        parent, _, name = path.rpartition("/")
        place = path if follow else f"{real_path(parent, names)}/{name}".lstrip("/")
        if not follow and names.kind(place) == "l":
            return Source(path, place, False, "file:" + _joined([names.link(place)]), pattern)
        real = real_path(path, names)
    except SourceError:
        raise _outside(path) from None
    kind = names.kind(real)
    if not kind and _below_file(real, names):
        raise _outside(path)
    if not kind:
        text = f"stat {path}: file does not exist"
        raise SourceError(f"file not found in build context or excluded by .dockerignore: {text}" if of_context else text)
    if kind != "d":
        return Source(path, real, False, "file:" + names.hash(path, real), pattern)
    hashes: list[str] = []
    for inner in walk(names, real):
        with suppress(SourceError):  # a symlink that leads to itself counts by beside() alone
            hashes += [names.hash(inner, real_path(inner, names))] if inner else []
    return Source(path, real, True, "dir:" + _joined(sorted(hashes)), pattern)


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256(",".join(hashes).encode("utf-8", "surrogateescape")).hexdigest()


def beside(found: Sequence[Source], names: Names) -> str:
    """A hash of what docker's own does not tell. Of symlinks in directories that has what is there instead, or nothing."""
    digest = hashlib.sha256()
    for source in found:
        for inner in walk(names, source.real):
            kind = names.kind(inner)
            if kind == "l":
                told = names.link(inner) if source.directory else ""
            else:
                told = names.beside(inner) if inner else ""
            if told:
                digest.update(os.fsencode(inner) + b"\0" + os.fsencode(told) + b"\0")
    return digest.hexdigest()


def hash_of_all(found: Sequence[Source]) -> str:
    """What a history says of them all."""
    return found[0].hash if len(found) == 1 else "multi:" + _joined([source.hash for source in found])
