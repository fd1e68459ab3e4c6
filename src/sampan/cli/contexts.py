"""What `sampan build` is given as a context, made a stream of tar: a directory, a tar, a Dockerfile, or a URL of one.

Rules and messages are docker's (cli/command/image/build). Beyond it: a Dockerfile's or a tar's path instead of a directory, the file
`NAME.dockerignore` beside the Dockerfile, zstd.
"""

from __future__ import annotations

import os
import stat
import time

from sampan.cli.flags import quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Count = Callable[[Iterator[bytes], str, int], Iterator[bytes]]  # pieces, what they are, how many bytes (0: nobody knows)

_CHUNK = 1 << 18
_PEEK = 1024
"""Bytes that tell a tar from a Dockerfile."""
_DOCKERFILE_MAX = 16 << 20
_IGNORE_MAX = 16 << 20


class BuildContext:
    """A context ready to be sent: `pieces` of a tar, `dockerfile` within it ("" for the daemon's own choice), and what it says.

    `text` and `shown` are the Dockerfile's content and path here, for messages; None if it is in a tar that is only passed on.
    """

    def __init__(self, pieces: Iterator[bytes], dockerfile: str, text: bytes | None = None, shown: str = "") -> None:
        self.pieces = pieces
        self.dockerfile = dockerfile
        self.text = text
        self.shown = shown
        self.cleanup: Callable[[], None] | None = None

    def close(self) -> None:
        """Remove what was made for it."""
        if self.cleanup is not None:
            self.cleanup()


def prepare(specified: str, dockerfile: str, count: Count) -> BuildContext:
    """The context that an argument and `-f` describe. `count` shows a download. Raises CliError."""
    if specified == "-":
        if dockerfile == "-":
            raise CliError("invalid argument: can't use stdin for both build context and dockerfile")
        return _of_stream(_pieces(0), dockerfile)
    if os.path.isdir(specified):
        return _of_directory(_root(specified), _absolute(dockerfile), dockerfile)
    if os.path.exists(specified):
        return _of_file(specified, dockerfile)
    if is_git_url(specified):
        return _of_git(specified, dockerfile)
    if specified.startswith(("http://", "https://")):
        return _of_url(specified, dockerfile, count)
    raise CliError(f"unable to prepare context: path {quote(specified)} not found")


def is_git_url(text: str) -> bool:
    """What docker clones rather than downloads."""
    if text.startswith(("http://", "https://")):
        return text.partition("#")[0].endswith(".git")
    return text.startswith(("git://", "github.com/", "git@"))


def _problem(text: str) -> CliError:
    return CliError(f"unable to prepare context: {text}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# local


def _root(path: str) -> str:
    return os.path.realpath(os.path.abspath(path))


def _absolute(dockerfile: str) -> str:
    return os.path.abspath(dockerfile) if dockerfile not in ("", "-") else dockerfile


def _of_file(path: str, dockerfile: str) -> BuildContext:
    """A tar is a context; any other file is a Dockerfile, and its directory the context."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _problem(f"open {path}: {_reason(error)}") from None
    pieces = _pieces(fd)
    head = _head(pieces)
    if is_archive(head):
        context = _of_archive(_after(head, pieces), dockerfile)
        context.cleanup = lambda: os.close(fd)
        return context
    os.close(fd)
    if dockerfile or not stat.S_ISREG(os.stat(path).st_mode):
        raise _problem(f"context must be a directory: {_root(path)}")
    absolute = os.path.abspath(path)
    return _of_directory(_root(os.path.dirname(absolute)), absolute, path)


def _of_directory(root: str, dockerfile: str, given: str) -> BuildContext:
    """`dockerfile`: an absolute path, "" or "-"; `given` as the user has written it."""
    from sampan import dockerignore

    path = ""
    if dockerfile == "-":
        text, relative, shown = _whole(_pieces(0), "Dockerfile"), "", "Dockerfile"
    else:
        path = dockerfile or _default_dockerfile(root)
        relative = os.path.relpath(_resolved(path), root)
        shown = given or _shown(path)
        text = _read(path)
    outside = dockerfile == "-" or relative.startswith("../")
    try:
        patterns = _patterns(root, path)
        matcher = dockerignore.Matcher(patterns)
        kept = [name for name in (".dockerignore", relative) if name and matcher.excludes(name)]
        matcher = dockerignore.Matcher([*patterns, *(f"!{name}" for name in kept)])
    except dockerignore.BadPattern as error:
        raise CliError(f"error checking context: {error}") from None
    from sampan.cli.contexttar import directory_tar, with_dockerfile

    pieces = directory_tar(root, matcher)
    if outside:
        relative = ".dockerfile." + os.urandom(10).hex()
        pieces = with_dockerfile(pieces, relative, text, int(time.time()))
    return BuildContext(pieces, relative, text, shown)


def _shown(path: str) -> str:
    """As short as it can be said from here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("../") else relative


def _default_dockerfile(root: str) -> str:
    path = os.path.join(root, "Dockerfile")
    other = os.path.join(root, "dockerfile")
    return other if not os.path.lexists(path) and os.path.lexists(other) else path


def _resolved(path: str) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise _problem(f"unable to evaluate symlinks in Dockerfile path: lstat {error.filename}: {_reason(error)}") from None


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"unable to open Dockerfile: open {path}: {_reason(error)}") from None
    try:
        return _whole(_pieces(fd), path)
    finally:
        os.close(fd)


def _patterns(root: str, dockerfile: str) -> list[str]:
    """Of the ignore file that belongs to the Dockerfile, else of the context's. Raises BadPattern, CliError."""
    from sampan import dockerignore

    for path in (f"{dockerfile}.dockerignore" if dockerfile else "", os.path.join(root, ".dockerignore")):
        if not path:
            continue
        try:
            with open(path, "rb") as file:
                data = file.read(_IGNORE_MAX + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CliError(f"open {path}: {_reason(error)}") from None
        if len(data) > _IGNORE_MAX:
            raise CliError(f"error reading .dockerignore: {path} has more than {_IGNORE_MAX} bytes")
        try:
            return dockerignore.read(data)
        except dockerignore.BadPattern as error:
            raise CliError(f"error reading .dockerignore: {error}") from None
    return []


# streams


def _pieces(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _CHUNK):
        yield data


def _head(pieces: Iterator[bytes]) -> bytes:
    head = b""
    while len(head) < _PEEK and (piece := next(pieces, b"")):
        head += piece
    return head


def _after(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces


def _whole(pieces: Iterator[bytes], what: str) -> bytes:
    """All of a Dockerfile. Raises CliError when it is none."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > _DOCKERFILE_MAX:
            raise CliError(f"{what} is too large for a Dockerfile: {_DOCKERFILE_MAX} bytes at most")
    return b"".join(held)


def is_archive(head: bytes) -> bool:
    """The first bytes are those of a tar, plain or compressed."""
    from sampan.archive.compression import detect
    from sampan.archive.reader import InvalidArchive, TarReader
    from sampan.archive.source import Source, TruncatedArchive

    if detect(head):
        return True
    waiting = [head]
    try:
        return next(iter(TarReader(Source(lambda _: waiting.pop() if waiting else b"", hashed=False))), None) is not None
    except (InvalidArchive, TruncatedArchive):
        return False


def _of_stream(pieces: Iterator[bytes], dockerfile: str) -> BuildContext:
    """A tar, or a Dockerfile that needs no context."""
    head = _head(pieces)
    if is_archive(head):
        return _of_archive(_after(head, pieces), dockerfile)
    if dockerfile == "-":
        raise _problem("build context is not an archive")
    if dockerfile:
        raise _problem("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
    from sampan.cli.contexttar import file_tar

    text = _whole(_after(head, pieces), "Dockerfile")
    return BuildContext(file_tar("Dockerfile", text, int(time.time())), "Dockerfile", text, "Dockerfile")


def _of_archive(pieces: Iterator[bytes], dockerfile: str) -> BuildContext:
    """As it is; the Dockerfile is in it, or comes on stdin."""
    if dockerfile != "-":
        return BuildContext(pieces, dockerfile)
    from sampan.archive.compression import decompress, detect, peek
    from sampan.cli.contexttar import with_dockerfile

    text = _whole(_pieces(0), "Dockerfile")
    waiting = [b""]

    def read(limit: int) -> bytes:
        if not waiting[0]:
            waiting[0] = next(pieces, b"")
        piece, waiting[0] = waiting[0][:limit], waiting[0][limit:]
        return piece

    head, again = peek(read)
    plain = decompress(detect(head), again)
    name = ".dockerfile." + os.urandom(10).hex()
    return BuildContext(with_dockerfile(iter(lambda: plain(_CHUNK), b""), name, text, int(time.time())), name, text, "Dockerfile")


# from elsewhere


def _of_url(url: str, dockerfile: str, count: Count) -> BuildContext:
    import http.client
    import urllib.error
    import urllib.request

    failed = f"unable to download remote context {url}: "
    try:
        answer = urllib.request.urlopen(url, timeout=60)
    except urllib.error.HTTPError as error:
        body = error.read(1 << 16).decode("utf-8", "replace").strip()
        raise _problem(f"{failed}failed to GET {url} with status {error.code} {error.reason}: {body}") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = _reason(reason) if isinstance(reason, OSError) else str(reason)
        raise _problem(f"{failed}Get {quote(url)}: {text}") from None

    def pieces() -> Iterator[bytes]:
        try:
            while data := answer.read(_CHUNK):
                yield data
        except (http.client.HTTPException, OSError) as error:
            raise _problem(f"{failed}{error or 'unexpected EOF'}") from None

    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isascii() and length.isdecimal() else 0
    try:
        context = _of_stream(count(pieces(), f"Downloading build context from remote url: {url}", total), dockerfile)
    except BaseException:
        answer.close()
        raise
    context.cleanup = answer.close
    return context


def _of_git(url: str, dockerfile: str) -> BuildContext:
    import shutil

    from sampan.cli.gitcontext import clone

    top, directory = clone(url)
    try:
        # -f is looked for in the repository
        inside = "-" if dockerfile == "-" else os.path.join(directory, dockerfile) if dockerfile else _default_dockerfile(directory)
        if inside != "-" and os.path.relpath(_resolved(inside), _root(directory)).startswith("../"):  # a symlink of theirs may lead here
            raise _problem(f"the Dockerfile ({dockerfile or os.path.basename(inside)}) must be within the build context")
        context = _of_directory(_root(directory), inside, dockerfile or "Dockerfile")
    except BaseException:
        shutil.rmtree(top, ignore_errors=True)
        raise
    context.cleanup = lambda: shutil.rmtree(top, ignore_errors=True)
    return context
