"""Git repositories: a build's context by `remote=`, and what ADD clones. git runs in a program of its own (worker/gitprogram.py)."""

import asyncio
import json
import os
import posixpath
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import sampan
from sampan.errors import InvalidArgument, SystemFailure
from sampan.gitclone import DEFAULT_REFS, GitError, Remote, split_url
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sampan.proxies import Proxies
from sampan.quoting import go_quote
from sampan.readiness import readable
from sampan.waiting import to_the_end

LIMIT_SECONDS: Final = 3600.0
"""How long a repository may take."""
_ANSWER_MAX: Final = 1 << 20
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[^/:@-][^/:@]*:(?!//)")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "GIT_SSL_CAINFO")


def is_url(text: str) -> bool:
    """Whether it is fetched from the web."""
    return text.startswith(("http://", "https://"))


def is_git_context(text: str) -> bool:
    """Whether a context is cloned (moby builder/remotecontext/urlutil)."""
    return text.startswith("github.com/") or is_git(text)


def is_git(text: str) -> bool:
    """Whether ADD clones it: `github.com/x` would be a file of the context (buildkit dfgitutil)."""
    if is_url(text):
        try:
            return urlsplit(text).path.endswith(".git")
        except ValueError:
            return False
    return text.startswith(("git://", "git@", "ssh://")) or _SCP.match(text) is not None


class Resolved(NamedTuple):
    """A ref as it is now."""

    remote: Remote
    ref: str
    commit: str


def remote_of(url: str) -> Remote:
    """What a URL names. Raises InvalidArgument."""
    if any(sign < " " or sign == "\x7f" for sign in url):
        raise InvalidArgument(f"invalid git URL {go_quote(url)}")
    try:
        return split_url(url)
    except GitError as error:
        raise InvalidArgument(str(error)) from None


class GitRepositories:
    """Runs git, confined."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies

    async def resolve(self, remote: Remote, directory: int) -> Resolved:
        """The commit that a remote's ref means. directory: an empty one. Raises SystemFailure."""
        answer = await self._run(remote, directory, {"resolve": remote.ref})
        return Resolved(remote, answer["ref"], answer["commit"])

    async def clone(self, remote: Remote, directory: int, *, refs: Sequence[str] = (), keep: bool) -> str:
        """Check a repository out into an empty directory; its commit. keep: with its `.git`. Raises SystemFailure."""
        refs = refs or ([remote.ref] if remote.ref else DEFAULT_REFS)
        return str((await self._run(remote, directory, {"refs": list(refs), "keep": keep}))["commit"])

    async def _run(self, remote: Remote, directory: int, wanted: dict[str, Any]) -> dict[str, Any]:
        if shutil.which("git") is None:
            raise SystemFailure(f'unable to fetch the git repository {remote.repository}: exec: "git": executable file not found in $PATH')
        request = {
            "parent": os.getpid(),
            "directory": directory,
            "limit": LIMIT_SECONDS,
            "ssh": not remote.repository.startswith(("git://", "http://", "https://")),
            "environment": self._environment(),
            "repository": remote.repository,
            **wanted,
        }
        said = await _said(json.dumps(request), directory)
        lines = [line for line in said.splitlines() if line]
        if not lines:
            raise SystemFailure(f"unable to fetch the git repository {remote.repository}: git was ended")
        answer: dict[str, Any] = json.loads(lines[-1])
        if "error" in answer:
            raise SystemFailure(answer["error"])
        return answer

    def _environment(self) -> dict[str, str]:
        """All that git is told of this host: no configuration but our own, nobody who answers questions."""
        proxies = {"http_proxy": self._proxies.http, "https_proxy": self._proxies.https, "no_proxy": self._proxies.no_proxy}
        certificates = next(filter(None, map(os.environ.get, _CERTIFICATES)), "")
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ASKPASS": "true",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            **({"GIT_SSL_CAINFO": certificates} if certificates else {}),
            **{name: value for name, value in proxies.items() if value},
        }


async def _said(request: str, directory: int) -> bytes:
    """What the program says. However this ends, it has ended, and all that it has started. Raises SystemFailure."""
    package_root = str(Path(sampan.__path__[0]).parent)
    program = f"import sys; sys.path.insert(0, {package_root!r}); from sampan.worker.gitprogram import main; main(sys.argv[1])"
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    try:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-I", "-c", program, request],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            pass_fds=[directory],
            env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        os.close(reader)
        raise SystemFailure(f"cannot run git: {error}") from None
    finally:
        os.close(writer)
    try:
        return await _read(reader)
    finally:
        os.close(reader)
        process.send_signal(signal.SIGTERM)
        await to_the_end(asyncio.to_thread(process.wait))


async def _read(reader: int) -> bytes:
    """All there is."""
    said = b""
    while len(said) < _ANSWER_MAX:
        await readable(reader)
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        said += piece
    return said


def open_below(directory: int, subdirectory: str) -> int:
    """A directory of a clone, no link leading out of it. Raises InvalidArgument in docker's words."""
    if posixpath.normpath(subdirectory.lstrip("/") or ".").split("/")[0] == "..":
        raise InvalidArgument(f"error setting git context, {go_quote(subdirectory)} not within git root")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return openat2(directory, os.fsencode(subdirectory) or b".", flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except NotADirectoryError:
        raise InvalidArgument(f"error setting git context, not a directory: {subdirectory}") from None
    except OSError as error:
        raise InvalidArgument(f"stat {subdirectory}: {os.strerror(error.errno or 0).lower()}") from None
