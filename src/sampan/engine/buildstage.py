"""One stage of a build: its instructions one after the other, told in the words of docker's classic builder."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from sampan.build import metadata
from sampan.build.arguments import StageArguments
from sampan.build.commands import command_of
from sampan.build.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Maintainer,
    Run,
    StageInstruction,
    WorkDir,
)
from sampan.build.mounts import mounts_of
from sampan.build.resolve import resolved
from sampan.digest import ChainId
from sampan.engine.buildcopy import Copies, CopyRequest, Group, SourceImage, failed, hash_of
from sampan.engine.buildgit import is_git, is_url
from sampan.engine.buildmounts import Prepared, RunMounts
from sampan.engine.buildoptions import BuildOptions, StepFailed
from sampan.engine.buildrun import StepContainers, host_config
from sampan.engine.buildspool import Tree, Workspace
from sampan.engine.buildsteps import BuildSteps, Layer, Made
from sampan.engine.buildurls import Fetches
from sampan.engine.containerstore import Container
from sampan.engine.creating import Base
from sampan.engine.images import ImageService
from sampan.engine.progress import Progress
from sampan.engine.trees import Trees
from sampan.errors import EngineError, InvalidArgument, NotImplementedYet
from sampan.ids import new_id, short_id
from sampan.image.store import Image
from sampan.spec.oci_image import ContainerConfig

WAITING_MAX: Final = 256
"""Lines of a stage that wait to be shown before its RUN waits too."""


LENGTH_MAX: Final = 1 << 20
"""The same in characters: what a RUN writes comes in pieces of any size."""
UNHEARD_MAX: Final = 16 << 20
"""Characters of all stages of a build that are not heard yet, before their RUNs wait."""


class Unheard:
    """What all RUNs of a build have written, and nobody was told yet."""

    def __init__(self) -> None:
        self.length = 0
        """Characters."""


class Output:
    """What a stage says, until it is its turn to be heard."""

    def __init__(self, unheard: Unheard | None = None) -> None:
        """unheard: of the build."""
        self.heard = asyncio.Event()
        """Set once it is."""
        self._unheard = unheard or Unheard()
        self._length = 0
        self._lines: deque[Progress] = deque()
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, line: Progress) -> None:
        """A line of docker's progress."""
        self._lines.append(line)
        self._changed.set()

    def say(self, text: str) -> None:
        """Text of the stream."""
        self.put({"stream": text})

    def begin(self, number: int, total: int, text: str) -> None:
        """A step begins."""
        self.say(f"Step {number}/{total} : {text}")
        self.say("\n")

    def late(self, name: str, first: int, steps: int) -> "Output":
        """Where a stage tells of its steps that this one's step asks for. first: the number of its first."""
        del name, first, steps
        return self

    def cached(self) -> None:
        """It is in the cache."""
        self.say(" ---> Using cache\n")

    def end(self, image: str) -> None:
        """It has come to an image, or to none."""
        self.say(f" ---> {image}\n")

    def fail(self) -> None:
        """It has not; the error is told elsewhere."""

    async def tell(self, text: str) -> None:
        """What a RUN writes, once there is room."""
        if self._unheard.length > UNHEARD_MAX:
            await self.heard.wait()
        while len(self._lines) >= WAITING_MAX or self._length > LENGTH_MAX:
            self._changed.clear()
            await self._changed.wait()
        self._length += len(text)
        self._unheard.length += len(text)
        self.say(text)

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._changed.set()

    def taken(self) -> list[Progress]:
        """What there is now."""
        lines = list(self._lines)
        self._lines.clear()
        self._unheard.length -= self._length
        self._length = 0
        self._changed.set()
        return lines

    async def batches(self, ready: Callable[[], Awaitable[None]]) -> AsyncIterator[list[Progress]]:
        """All of it, as it comes, each time once its reader is ready for more."""
        self.heard.set()
        while True:
            if self._lines:
                await ready()
                yield self.taken()
                continue
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()


class Result(NamedTuple):
    """What a stage came to."""

    image: Image | None
    config: ContainerConfig
    base: Image | None
    """What the stage began with: `--squash` keeps its layers."""


class Tools(NamedTuple):
    """What stages work with; one for a build."""

    images: ImageService
    steps: BuildSteps
    copies: Copies
    containers: StepContainers
    trees: Trees
    fetches: Fetches
    mounts: RunMounts
    workspace: Workspace
    options: BuildOptions
    hold: Callable[[Sequence[ChainId]], None]
    """Keeps an image's layers until the build ends: `image prune` would take those that have no name."""
    stand_on: Callable[[Image], None]
    """Keeps an image in the cache until then."""


METADATA_MAX: Final = 4 << 20
"""Characters of a stage's ENVs, LABELs and the like, variables put in: each step's config and history has all of those before it."""


class StageRun:
    """Runs the instructions of one stage."""

    def __init__(self, tools: Tools, output: Output, args: StageArguments, escape: str, source: SourceImage) -> None:
        self._tools = tools
        self._out = output
        self._args = args
        self._escape = escape
        self._source = source
        self.image: Image | None = None
        self._base: Image | None = None
        self.config = ContainerConfig()
        self._author = ""
        self._had_cmd = False
        self._told = 0

    def begin(self, base: Image | None, config: ContainerConfig | None) -> Sequence[str]:
        """Stand on a base. Returns its triggers."""
        self._base = base
        self._stand_on(base)
        self.config = metadata.first_config(config)
        return (config.on_build if config is not None else None) or ()

    def _stand_on(self, image: Image | None) -> None:
        self.image = image
        if image is not None:
            self._tools.hold(image.chain)
            self._tools.stand_on(image)

    @property
    def result(self) -> Result:
        """What it is now."""
        return Result(self.image, self.config, self._base)

    def say_image(self) -> None:
        """The line after each step."""
        self._out.end(short_id(self.image.id) if self.image is not None else "")

    async def run(self, instruction: StageInstruction) -> None:
        """One instruction. Raises StepFailed and other EngineErrors in docker's words."""
        environment = self._args.environment(self.config.env or [])
        instruction = resolved(instruction, environment, self._escape)
        if isinstance(instruction, Run):
            await self._run(instruction, environment)
        elif isinstance(instruction, (Copy, Add)):
            await self._copy(instruction)
        elif isinstance(instruction, WorkDir):
            await self._work_dir(instruction)
        else:
            await self._metadata(instruction)

    # steps that run nothing

    async def _metadata(self, instruction: StageInstruction) -> None:
        if isinstance(instruction, Arg):
            self._args.declare(instruction)
        elif isinstance(instruction, Maintainer):
            self._author = instruction.maintainer
        elif isinstance(instruction, Cmd):
            self._had_cmd = self._had_cmd or bool(instruction.command.words)
        changed = metadata.apply(instruction, self.config, self._had_cmd)
        self._told += len(changed.comment)
        if self._told > METADATA_MAX:
            raise InvalidArgument(f"the instructions of a stage come to more than {METADATA_MAX} characters of metadata")
        if changed.note:
            self._out.say(changed.note)
        self.config = changed.config
        await self._nop([metadata.NOP, changed.comment], None)

    async def _nop(
        self, words: Sequence[str], make: Callable[[], Awaitable[Layer]] | None, *, quiet: bool = False, more: Sequence[str] = ()
    ) -> None:
        """A step whose command is a comment. make: its layer, if there may be one. quiet: no container is told of."""
        command = [*metadata.shell_of(self.config), *words]
        created_by = " ".join(command)
        key = self._tools.steps.key(self.image, command, self.config, more)
        if self._from_cache(key, created_by):
            return
        if not quiet:  # docker makes a container for it, which must be one that can be
            self._warn(self._tools.containers.check(host_config(self._tools.options, "none")))
        layer = await make() if make is not None else None
        container = None
        if not quiet and not self._tools.options.remove:
            try:
                container, _ = await self._container(command, "")
            except BaseException:  # the build's end by its client, too
                if layer is not None:
                    self._tools.images.forget(layer.key)
                raise
        container_id = new_id() if container is None else container.id
        if not quiet:
            self._out.say(f" ---> Running in {short_id(container_id)}\n")
        made = Made(command, "" if quiet else container_id)
        self._stand_on(self._tools.steps.add(key, self.image, self.config, made, self._author, layer))
        if container is not None:
            self._tools.workspace.forget_container(container.id)
        elif not quiet:
            self._out.say(f" ---> Removed intermediate container {short_id(container_id)}\n")

    def _from_cache(self, key: str, created_by: str, *, told: bool = True) -> bool:
        found = self._tools.steps.find(key, self.image, created_by, told=told)
        if found is None:
            return False
        self._out.cached()
        self._stand_on(found)
        return True

    async def _work_dir(self, instruction: WorkDir) -> None:
        path = metadata.working_dir(self.config, instruction.path)
        self.config = msgspec.structs.replace(self.config, working_dir=path)
        tools = self._tools
        await self._nop([f"{metadata.NOP}WORKDIR {path}"], lambda: tools.copies.make_directory(self.image, path, tools.steps.epoch))

    # COPY and ADD

    async def _copy(self, instruction: Copy | Add) -> None:
        tools = self._tools
        name = instruction.keyword
        chown = instruction.chown or (None if isinstance(instruction, Copy) and instruction.from_ else "")
        request = CopyRequest(
            destination=_destination(instruction.destination, self.config),
            chown=chown,
            chmod=instruction.chmod,
            exclude=instruction.exclude,
            parents=isinstance(instruction, Copy) and instruction.parents,
            link=instruction.link,
            epoch=tools.steps.epoch,
        )
        context = tools.workspace.context
        if isinstance(instruction, Copy) and instruction.from_:
            context = Tree(image=await self._source(instruction.from_))
        try:
            groups = await self._groups(instruction, request.destination, context)
        except EngineError as error:
            raise failed(name, error) from None
        if sum(len(group.found.sources) for group in groups) > 1 and not instruction.destination.endswith("/"):
            raise InvalidArgument(f"When using {name} with more than one source file, the destination must be a directory and end with a /")
        flags = f"--chown={instruction.chown} " if instruction.chown else ""
        further = _further_flags(instruction)
        shown = "".join(f"{flag} " for flag in further)
        comment = f"{metadata.NOP}{name} {flags}{shown}{hash_of(groups)} in {instruction.destination} "
        # one by one: a pattern may look as two flags do
        more = [group.found.identity(parents=request.parents) for group in groups] + further
        more += [f"unpacks {number}" for number, group in enumerate(groups) if group.unpack]

        async def make() -> Layer:
            try:
                ready = [await group.ready() for group in groups]
            except EngineError as error:
                raise failed(name, error) from None
            return await tools.copies.copy(tools.workspace, self.image, ready, request)

        await self._nop([comment], make, quiet=True, more=more)

    async def _groups(self, instruction: Copy | Add, destination: str, context: Tree) -> list[Group]:
        """The sources in order. Those of URLs and here-documents are put into a place of the build's own first."""
        tools = self._tools
        groups: list[Group] = []
        for fetched, sources in groupby(instruction.sources, lambda source: is_url(source) or is_git(source)):
            if not fetched:
                unpack = isinstance(instruction, Add) and instruction.unpack is not False
                parents = isinstance(instruction, Copy) and instruction.parents
                groups.append(Group(context, await tools.copies.find(context, list(sources), parents=parents), unpack))
                continue
            for url in sources:
                if is_git(url):
                    groups.append(await tools.fetches.repository(instruction, url))
                    continue
                tree, names = await tools.fetches.fetch(instruction, url, destination, self._out.put)
                unpack = isinstance(instruction, Add) and instruction.unpack is True
                groups.append(Group(tree, await tools.copies.find(tree, names, wildcards=False), unpack))
        if instruction.files:
            tree, names = tools.fetches.written(instruction.files)
            groups.append(Group(tree, await tools.copies.find(tree, names, wildcards=False), False))
        return groups

    # RUN

    async def _run(self, instruction: Run, environment: Mapping[str, str]) -> None:
        tools = self._tools
        if instruction.security == "insecure":
            raise InvalidArgument("RUN --security=insecure is not allowed: build steps run as isolated as containers")
        if instruction.network == "host" and tools.options.network != "host":
            raise InvalidArgument(
                "RUN --network=host is not allowed: only with --network host of the build itself a step has the host's network"
            )
        if instruction.devices:
            raise NotImplementedYet("RUN --device: CDI devices are not implemented by Sampan yet")
        own = self.config.env or []
        if not (instruction.command.shell or instruction.command.words or instruction.command.heredocs):
            raise InvalidArgument("no command specified")
        run = command_of(instruction.command, self.config.shell or ())
        command = list(run.words)
        noted = [*self._args.key_prefix(own), *command]
        created_by = " ".join(noted)
        wanted = mounts_of(instruction, environment, self.config.working_dir or "/", self._escape)
        async with AsyncExitStack() as stack:
            mounts = await tools.mounts.of(stack, wanted, environment, self._source, self.image, self.config.volumes or ())
            more = [
                *mounts.identity,
                *([run.script.content] if run.script is not None else []),
                *([f"network {instruction.network}"] if instruction.network != "default" else []),
            ]
            key = tools.steps.key(self.image, noted, self.config, more)
            if self._from_cache(key, created_by, told=not more):
                return
            await mounts.provide()
            if run.script is not None:
                mounts.add_script(run.script)
            config = msgspec.structs.replace(self.config, env=[*own, *self._args.run_environment(own)])
            container, warnings = await self._container(command, instruction.network, config, mounts.binds)
            self._warn(warnings)
            self._out.say(f" ---> Running in {short_id(container.id)}\n")
            await self._perform(container, command, mounts, key, Made(noted, container.id, ran=True))
        await self._done(container)

    async def _perform(self, container: Container, shown: Sequence[str], mounts: Prepared, key: str, made: Made) -> None:
        """Run it, and make a layer and an image of what it changed."""
        tools = self._tools
        try:
            code = await tools.containers.run(container, self._out.tell, mounts.lent)
            if code:
                raise StepFailed(f"The command '{' '.join(shown)}' returned a non-zero code: {code}", code)
            layer = await self._changes(container, mounts)
            self._stand_on(tools.steps.add(key, self.image, self.config, made, self._author, layer))
        except asyncio.CancelledError:
            await tools.containers.remove(tools.workspace, container)
            raise
        except EngineError:
            if tools.options.force_remove:
                await self._done(container)
            else:
                tools.workspace.forget_container(container.id)
            raise

    async def _changes(self, container: Container, mounts: Prepared) -> Layer:
        tools = self._tools
        args = {"clamp": tools.steps.epoch, "without": mounts.left_out}

        async def write(writer: int) -> None:
            await tools.trees.run(container, "tree_diff", args, [writer])

        with tools.images.pinned(() if self.image is None else self.image.chain):
            return Layer(*await tools.images.unpack_from(write))

    async def _done(self, container: Container) -> None:
        """Remove a step's container, if it is to be removed."""
        tools = self._tools
        if tools.options.remove or tools.options.force_remove:
            await tools.containers.remove(tools.workspace, container)
            self._out.say(f" ---> Removed intermediate container {short_id(container.id)}\n")
        else:
            tools.workspace.forget_container(container.id)

    async def _container(
        self, command: Sequence[str], network: str, config: ContainerConfig | None = None, mounts: Sequence[object] = ()
    ) -> tuple[Container, list[str]]:
        image = self.image
        base = Base("" if image is None else image.id, None if image is None else image.chain_id, ContainerConfig())
        host = host_config(self._tools.options, network, mounts)
        anonymous = self._tools.steps.epoch is not None
        return await self._tools.containers.make(self._tools.workspace, base, config or self.config, command, host, anonymous=anonymous)

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            self._out.say(f" ---> [Warning] {warning}\n")


def _destination(path: str, config: ContainerConfig) -> str:
    """Absolute, a trailing slash kept."""
    if path.startswith("/"):
        return path
    joined = metadata.working_dir(config, path)
    return joined + "/" if path.endswith("/") or path in (".", "") else joined


def _further_flags(instruction: Copy | Add) -> list[str]:
    """Flags that docker's classic builder has not, as far as they make a difference."""
    found = [f"--chmod={instruction.chmod}"] if instruction.chmod else []
    found += ["--link"] if instruction.link else []
    found += [f"--exclude={pattern}" for pattern in instruction.exclude]
    if isinstance(instruction, Copy) and instruction.parents:
        found.append("--parents")
    if isinstance(instruction, Add) and instruction.unpack is not None:
        found.append(f"--unpack={str(instruction.unpack).lower()}")
    return found
