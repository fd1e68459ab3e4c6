"""A git repository as a build's context: `URL#ref:subdirectory`, fetched by the host's git (docker cli build/internal/git)."""

from __future__ import annotations

import os
import shutil
import tempfile

from sampan.cli.http import CliError
from sampan.gitclone import DEFAULT_REFS, Git, GitError, below, split_url


def _problem(text: str) -> CliError:
    return CliError(f"unable to prepare context: {text}")


def clone(url: str) -> tuple[str, str]:
    """(temporary directory to remove, directory that is the context). Raises CliError."""
    if shutil.which("git") is None:
        raise _problem("unable to find 'git': exec: \"git\": executable file not found in $PATH")
    top = tempfile.mkdtemp(prefix="docker-build-git")
    try:
        try:
            return top, _checkout(top, url)
        except GitError as error:
            raise _problem(f"unable to 'git clone' to temporary context directory: {error}") from None
    except BaseException:
        shutil.rmtree(top, ignore_errors=True)
        raise


def _checkout(top: str, url: str) -> str:
    remote = split_url(url)
    git = Git(top, os.environ)
    git.begin(remote.repository)
    git.check_out([remote.ref] if remote.ref else DEFAULT_REFS)
    return below(top, remote.subdirectory) if remote.subdirectory else top
