"""OCI runtimes by their names: which there are, and what one has left of a run that is over. See docs/adr/0021."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sampan.engine.launch_failures import RUNTIME_CREATE_BY, StartFailure
from sampan.engine.paths import Paths
from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.runtime import ocispec
from sampan.spec.docker_api.container import HostConfig

log = logging.getLogger(__name__)

BUILT_IN = "runc"
"""What clients know our own way of starting containers by."""
_BUILT_IN_NAMES = (BUILT_IN, "io.containerd.runc.v2")
DELETE_SECONDS = 30.0


class RuntimeSettings(msgspec.Struct, frozen=True):
    """What daemon.json says of runtimes."""

    default: str = BUILT_IN
    commands: Mapping[str, tuple[str, ...]] = {}
    """A runtime's program and its own arguments; none: our own way by another name."""


class Runtimes:
    """One for all containers."""

    def __init__(self, settings: RuntimeSettings, paths: Paths) -> None:
        self.settings = settings
        """May be replaced: for the next start."""
        self._paths = paths

    def chosen(self, name: str) -> str:
        """The name that a container gets that asks for this one. Raises InvalidArgument in docker's words."""
        name = name or self.settings.default
        if name not in _BUILT_IN_NAMES and name not in self.settings.commands:
            raise InvalidArgument(f"unknown or invalid runtime name: {name}")
        return name

    def check(self, host: HostConfig, *, remapped: bool) -> tuple[str, ...]:
        """The program and its own arguments, as they are configured; none: our own way. remapped: it is to have a user namespace.

        Raises InvalidArgument, NotImplementedYet.
        """
        name = self.chosen(host.runtime or BUILT_IN)  # a row of before there were others has none
        command = self.settings.commands.get(name, ())
        missing = {"an init process (--init)": host.init, "user namespaces (userns-remap; --userns=host is without)": remapped}
        for feature, asked in missing.items():
            if command and asked:
                raise NotImplementedYet(f"{feature} with the runtime {name}: not implemented by Sampan yet")
        return command

    def command(self, host: HostConfig, *, remapped: bool) -> tuple[str, ...]:
        """The program, as an absolute path, and its own arguments; none: our own way.

        Raises InvalidArgument, NotImplementedYet, StartFailure (there is no such program).
        """
        command = self.check(host, remapped=remapped)
        if not command:
            return ()
        program = shutil.which(command[0])
        if program is None:
            missing = f"fork/exec {command[0]}: no such file or directory"
            if "/" not in command[0]:
                missing = f'exec: "{command[0]}": executable file not found in $PATH'
            raise StartFailure(f"{RUNTIME_CREATE_BY}unable to retrieve OCI runtime error: {missing}", 127)
        return (os.path.abspath(program), *command[1:])

    def prepare(self, container_id: str, command: tuple[str, ...]) -> ocispec.Runtime:
        """Make the place where it keeps what it knows of a new run: nobody else makes it, so that delete() is the end of it.

        What a plan says of the runtime. Raises OSError.
        """
        os.makedirs(self._paths.runtime(container_id), 0o700, exist_ok=True)
        return self.of(container_id, command)

    def of(self, container_id: str, command: tuple[str, ...]) -> ocispec.Runtime:
        """What the plan of an exec says of it."""
        return ocispec.Runtime(command, self._paths.runtime(container_id))

    async def delete(self, container_id: str, command: tuple[str, ...]) -> None:
        """Have it forget a run whose processes are gone. Never raises; command: none if nobody knows any more what it was."""
        root = self._paths.runtime(container_id)
        if command and os.path.isdir(root):
            try:
                await self._run(*command, "--root", root, "delete", "--force", container_id)
            except OSError as error:
                log.warning("%s cannot be run to delete %s: %s", command[0], container_id, error)
        # What it did not remove itself would hinder the next run.
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)

    @staticmethod
    async def _run(*words: str) -> None:
        null = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*words, stdin=null, stdout=null, stderr=null, cwd="/", start_new_session=True)
        try:
            async with asyncio.timeout(DELETE_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("%s does not end", " ".join(words))
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # a runtime may be a script that runs another
                await process.wait()

    def left(self) -> list[str]:
        """The containers that a runtime knows, or that something is left of."""
        with contextlib.suppress(FileNotFoundError):
            return [entry.name for entry in Path(self._paths.runtimes).iterdir()]
        return []
