"""The files of a git repository, by the host's git: which commands, in which order (moby builder/remotecontext/git, buildkit source/git).

Standard library only: the command line clones as its user, the engine in a process that has given up its rights (worker/gitprogram.py).
"""

from __future__ import annotations

import os
import subprocess

from sampan.quoting import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

TRANSPORTS: Final = ("git://", "http://", "https://", "ssh://", "git@")
DEFAULT_REFS: Final = ("master", "HEAD")
"""What a context is built from when its URL names nothing: docker's choice, then the repository's own."""
_SAID_MAX: Final = 1 << 16
_CONFIG: Final = (
    # no submodules out of the host's own files; no programs of a repository's
    "protocol.file.allow=never", "core.hooksPath=/dev/null", "core.fsmonitor=false",
    "advice.detachedHead=false", "init.defaultBranch=master",
    # of a server that says nothing
    "http.lowSpeedLimit=1", "http.lowSpeedTime=60",
)  # fmt: skip


class GitError(Exception):
    """What failed, git's own words, and how it ended."""


class Remote:
    """What a URL names."""

    def __init__(self, repository: str, ref: str, subdirectory: str) -> None:
        """ref, subdirectory: empty for none."""
        self.repository, self.ref, self.subdirectory = repository, ref, subdirectory


def split_url(url: str) -> Remote:
    """`URL#ref:subdirectory`; `https://` where no transport is named. Raises GitError for a ref that git would take for an option."""
    if not url.startswith(TRANSPORTS):
        url = "https://" + url
    repository, _, fragment = url.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    if ref.startswith("-"):
        raise GitError(f"invalid refspec: {ref}")
    return Remote(repository, ref, subdirectory)


def is_commit(ref: str) -> bool:
    """Whether a ref is a commit's whole ID."""
    return len(ref) in (40, 64) and not ref.strip("0123456789abcdef")


class Git:
    """git in one directory."""

    def __init__(self, directory: str, environment: Mapping[str, str]) -> None:
        """environment: all of it, but for what keeps git from asking at a terminal, and from transports that only a user may name."""
        self.directory = directory
        self._environment = {**environment, "GIT_PROTOCOL_FROM_USER": "0", "GIT_TERMINAL_PROMPT": "0"}

    def run(self, failure: str, *arguments: str) -> str:
        """What git says. failure: what it means when it fails. Raises GitError."""
        command = ["git", *(word for setting in _CONFIG for word in ("-c", setting)), *arguments]
        with subprocess.Popen(
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            said = process.stdout.read(_SAID_MAX)
            while process.stdout.read(_SAID_MAX):  # servers may say what they like
                pass
        text = said.decode("utf-8", "replace")
        if process.returncode:
            raise GitError(f"{failure}: {text}: exit status {process.returncode}" if failure else text)
        return text

    def begin(self, repository: str) -> None:
        """Make an empty repository whose origin is another. Raises GitError."""
        self.run(f"failed to init repo at {self.directory}", "init", "--template=")
        self.run(f"failed add origin repo at {repository}", "remote", "add", "origin", repository)

    def check_out(self, refs: Sequence[str]) -> str:
        """Fetch and check out the first of these refs that is there, with its submodules. Returns the commit's ID. Raises GitError."""
        ref = self._fetch(refs)
        try:
            self.run(f"error checking out {ref}", "checkout", ref, "--")
        except GitError as error:
            try:
                self.run("", "checkout", "FETCH_HEAD", "--")
            except GitError:
                raise error from None
        self.run("error initializing submodules", "submodule", "update", "--init", "--recursive", "--depth=1")
        return self.run("error reading HEAD", "rev-parse", "HEAD").strip()

    def _fetch(self, refs: Sequence[str]) -> str:
        """The ref that is there."""
        failures: list[GitError] = []
        for ref in refs:
            # servers that are only files know no shallow clones; commits that no ref names come only with all that there are
            ways = [("--depth", "1", "origin", "--", ref), ("origin", "--", ref)]
            if is_commit(ref):
                ways.append(("--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"))
            for way in ways:
                try:
                    self.run("error fetching", "fetch", *way)
                    return ref
                except GitError as error:
                    failures.append(error)
        raise failures[0]

    def resolve(self, repository: str, ref: str) -> tuple[str, str]:
        """(full name, commit's ID) of a ref there, its default branch for none; a branch before a tag. Raises GitError."""
        if is_commit(ref):
            return ref, ref
        asked = ref or "HEAD"
        said = self.run(f"failed to fetch remote {repository}", "ls-remote", "--", repository, asked, f"{asked}^{{}}")
        found: dict[str, str] = {}
        for line in said.splitlines():
            commit, _, name = line.partition("\t")
            if is_commit(commit):
                found[name] = commit
        if not ref and "HEAD" in found:
            return "HEAD", found["HEAD"]
        partial, tag = f"refs/{ref.removeprefix('refs/')}", f"refs/tags/{ref.removeprefix('refs/tags/')}"
        for name in (partial, f"refs/heads/{ref.removeprefix('refs/heads/')}", tag):
            if name in found:
                return name, found.get(f"{name}^{{}}", found[name])
        raise GitError(f"repository does not contain ref {asked}, output: {go_quote(said)}")


def below(top: str, subdirectory: str) -> str:
    """A directory of a clone, through whatever symlinks, if it is in it. Raises GitError."""
    top = os.path.realpath(top)
    directory = os.path.realpath(os.path.join(top, subdirectory))
    if os.path.commonpath((directory, top)) != top:
        raise GitError(f"error setting git context, {go_quote(subdirectory)} not within git root: {directory}")
    if not os.path.exists(directory):
        raise GitError(f"stat {directory}: no such file or directory")
    if not os.path.isdir(directory):
        raise GitError(f"error setting git context, not a directory: {directory}")
    return directory
