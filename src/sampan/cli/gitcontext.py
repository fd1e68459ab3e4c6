"""A git repository as a build's context: `URL#ref:subdirectory`, fetched by the host's git (docker cli build/internal/git)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from sampan.cli.flags import quote
from sampan.cli.http import CliError

_TRANSPORTS = ("git://", "http://", "https://", "ssh://", "git@")


def _problem(text: str) -> CliError:
    return CliError(f"unable to prepare context: {text}")


def split_url(url: str) -> tuple[str, str, str]:
    """(repository, ref, subdirectory); the ref is `master` if none is given, as docker has it. Raises CliError."""
    if not url.startswith(_TRANSPORTS):
        url = "https://" + url
    repository, _, fragment = url.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    if ref.startswith("-"):
        raise _problem(f"unable to 'git clone' to temporary context directory: invalid refspec: {ref}")
    return repository, ref or "master", subdirectory


def clone(url: str) -> tuple[str, str]:
    """(temporary directory to remove, directory that is the context). Raises CliError."""
    if shutil.which("git") is None:
        raise _problem("unable to find 'git': exec: \"git\": executable file not found in $PATH")
    repository, ref, subdirectory = split_url(url)
    top = tempfile.mkdtemp(prefix="docker-build-git")
    try:
        try:
            return top, _checkout(top, repository, ref, subdirectory)
        except _GitError as error:
            raise _problem(f"unable to 'git clone' to temporary context directory: {error}") from None
    except BaseException:
        shutil.rmtree(top, ignore_errors=True)
        raise


class _GitError(Exception):
    """What failed, git's own words, and how it ended."""


def _checkout(top: str, repository: str, ref: str, subdirectory: str) -> str:
    _git(top, f"failed to init repo at {top}", "init")
    _git(top, f"failed add origin repo at {repository}", "remote", "add", "origin", repository)
    try:
        _git(top, "error fetching", "fetch", "--depth", "1", "origin", "--", ref)
    except _GitError:
        # servers that are only files know no shallow clones
        _git(top, "error fetching", "fetch", "origin", "--", ref)
    try:
        _git(top, f"error checking out {ref}", "checkout", ref)
    except _GitError as error:
        try:
            _git(top, "", "checkout", "FETCH_HEAD")
        except _GitError:
            raise error from None
    _git(top, "error initializing submodules", "submodule", "update", "--init", "--recursive", "--depth=1")
    if not subdirectory:
        return top
    directory = os.path.realpath(os.path.join(top, subdirectory))
    if os.path.commonpath((directory, os.path.realpath(top))) != os.path.realpath(top):
        raise _GitError(f"error setting git context, {quote(subdirectory)} not within git root: {directory}")
    if not os.path.exists(directory):
        raise _GitError(f"stat {directory}: no such file or directory")
    if not os.path.isdir(directory):
        raise _GitError(f"error setting git context, not a directory: {directory}")
    return directory


def _git(directory: str, failure: str, *arguments: str) -> None:
    # no submodules out of the host's own files, no transports that only a user may name
    command = ["git", "-c", "protocol.file.allow=never", *arguments]
    environment = {**os.environ, "GIT_PROTOCOL_FROM_USER": "0", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise _GitError(f"{failure}: {done.stdout.decode('utf-8', 'replace')}: exit status {done.returncode}")
