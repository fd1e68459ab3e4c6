"""`POST /build`: a context and its Dockerfile become an image. docs/flows/build.md tells the whole of it.

Stages that the target does not need are not built; the others begin at once, each waiting for another stage only where it names it, and are
told of in the file's order, each one's words together.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, closing
from functools import lru_cache
from typing import NamedTuple

from sampan.build.arguments import Arguments, platform_arguments
from sampan.build.graph import SCRATCH, ImageSource, PlannedStage, StageSource, declare_globals, from_source, plan
from sampan.build.instructions import Dockerfile, StageInstruction
from sampan.build.parse import label_options, parse, parse_trigger
from sampan.clock import Clock
from sampan.engine.background import Background
from sampan.engine.buildbases import Bases
from sampan.engine.buildcache import BuildCachePruning
from sampan.engine.buildcopy import Copies
from sampan.engine.buildfailures import counted
from sampan.engine.buildmounts import CacheDirectories, RunMounts
from sampan.engine.buildoptions import BuildOptions, CacheLimits
from sampan.engine.buildrun import StepContainers
from sampan.engine.buildsession import BuildSessions, Session
from sampan.engine.buildspool import BuildSpool, Workspace
from sampan.engine.buildstage import Output, Result, StageRun, Tools, Unheard
from sampan.engine.buildsteps import BuildSteps
from sampan.engine.buildtelling import BuildTelling
from sampan.engine.buildturns import Turn
from sampan.engine.buildurls import Fetches, remote_context
from sampan.engine.cacheentries import CacheEntries
from sampan.engine.images import ImageService
from sampan.engine.lines import Lines
from sampan.engine.progress import Progress
from sampan.engine.registries import Registries
from sampan.engine.trees import Trees
from sampan.errors import EngineError, InvalidArgument, SystemFailure
from sampan.events.bus import EventBus
from sampan.filters import Filters
from sampan.ids import short_id
from sampan.image import platforms
from sampan.image.store import Image
from sampan.reference import Reference
from sampan.reference import parse as parse_reference
from sampan.spec.docker_api.image import BuildPruneReport
from sampan.spec.oci_image import ContainerConfig
from sampan.spec.oci_layout import Platform
from sampan.state.buildcache import BuildCacheRepository
from sampan.streams import Duplex, Piece

_BOUND_EVERY = 10 * 60 * 10**9
"""Between two looks at what the cache takes, ns."""
_WORKING_MAX = 8
"""Stages of one build that run steps at a time."""
_FETCHING_MAX = 8
"""Images that one build pulls at a time."""
_PARSED_AT_ONCE = 8192
"""Bytes of a Dockerfile that are not worth a thread."""
_parsed = lru_cache(maxsize=16)(parse)
"""For these: most are built more than once."""
_EMPTY_CONTINUATION = "Empty continuation lines will become errors in a future release."
_QUIET_MAX = 10_000
"""Lines kept of a quiet build, which are shown when it fails."""
_QUIET_LENGTH_MAX = 4 << 20
"""Characters of these."""


class BuildParts(NamedTuple):
    """What builds work with; one for the engine."""

    images: ImageService
    spool: BuildSpool
    bases: Bases
    copies: Copies
    containers: StepContainers
    trees: Trees
    directories: CacheDirectories
    cached: BuildCacheRepository
    registries: Registries
    pruning: BuildCachePruning
    entries: CacheEntries
    clock: Clock
    background: Background
    sessions: BuildSessions
    events: EventBus


class BuildService:
    """See api/services.py for the contract of each method."""

    def __init__(self, parts: BuildParts) -> None:
        self._parts = parts
        self._bounded = parts.clock.now_ns()
        self.failed: Counter[str] = Counter()
        """Builds by the reasons that docker has for their failures."""

    async def build(self, options: BuildOptions, source: AsyncIterable[bytes]) -> AsyncIterator[Sequence[Progress]]:
        """Build an image. Yields docker's progress, each time all there is. Raises StepFailed and other EngineErrors, in docker's words."""
        targets = [_target(text) for text in options.tags]
        session = self._parts.sessions.find(options.session) if options.session else None
        async with counted(self.failed), self._parts.spool.workspace() as workspace:
            given = (
                await remote_context(self._parts.registries, workspace, options.remote, options.dockerfile) if options.remote else source
            )
            data = await workspace.take_in(given, options.dockerfile)
            platform = self._parts.bases.platform_of(options.platform)
            short = len(data) <= _PARSED_AT_ONCE
            dockerfile = _parsed(data, options.dockerfile) if short else await asyncio.to_thread(parse, data, options.dockerfile)
            lines = Lines()
            build = _Build(self._parts, options, session, workspace, dockerfile, platform, lines)
            try:
                async with aclosing(lines.batches(build.run(targets))) as shown:
                    async for batch in _hushed(shown) if options.quiet else shown:
                        yield batch
            finally:
                self._parts.images.clean_up()
                self._bound()
                await self._parts.containers.remove_noted(workspace)

    def _bound(self) -> None:
        """Now and then keep the cache small, while nobody waits for it."""
        now = self._parts.clock.now_ns()
        if now - self._bounded > _BOUND_EVERY:
            self._bounded = now
            self._parts.background.spawn(self._parts.pruning.bound())

    async def export(self, name: str) -> AsyncIterator[Piece]:
        """An image's whole tree as a tar stream. Raises NotFound."""
        async with self._parts.copies.export(self._parts.images.resolve(name)) as pieces:
            async for piece in pieces:
                yield piece

    async def session(self, session_id: str, open_stream: Callable[[], Awaitable[Duplex]]) -> None:
        """Serve a client's session until it goes. Raises InvalidArgument, Conflict."""
        await self._parts.sessions.serve(session_id, open_stream)

    async def prune(self, *, everything: bool, limits: CacheLimits, filters: Filters) -> BuildPruneReport:
        """Drop what of the cache nothing else uses."""
        report = await self._parts.pruning.prune(everything=everything, limits=limits, filters=filters)
        self._parts.events.publish("builder", "prune", "", {"reclaimed": str(report.space_reclaimed)})
        return report


async def _hushed(batches: AsyncIterator[Sequence[Progress]]) -> AsyncIterator[Sequence[Progress]]:
    """The image's ID alone; everything when the build fails."""
    kept: list[Progress] = []
    length = 0
    image = ""
    try:
        async for batch in batches:
            for line in batch:
                if "aux" in line:
                    image = str(line["aux"]["ID"])  # type: ignore[index]
                elif len(kept) < _QUIET_MAX and length < _QUIET_LENGTH_MAX:
                    kept.append(line)
                    length += len(str(line.get("stream", "")))
    except EngineError:
        yield kept
        raise
    yield [{"stream": f"{image}\n"}]


class _Build:
    """One build."""

    def __init__(
        self,
        parts: BuildParts,
        options: BuildOptions,
        session: Session | None,
        workspace: Workspace,
        dockerfile: Dockerfile,
        platform: Platform | None,
        lines: Lines,
    ) -> None:
        self._parts, self._options, self._workspace, self._dockerfile, self._lines = parts, options, workspace, dockerfile, lines
        self._platform, self._session = platform, session
        target, own = platform or platforms.own(), platforms.own()
        self._args = Arguments(options.build_args, platform_arguments(platforms.shown(target), platforms.shown(own), options.target))
        self._problem = declare_globals(dockerfile, self._args)
        self._plan = plan(dockerfile, self._args, target=options.target)
        self._labels = label_options(options.labels)
        self._results: dict[int, asyncio.Future[Result]] = {}
        self._failed: int | None = None
        """The place of the stage that failed first."""
        self._places = asyncio.Semaphore(_WORKING_MAX)
        self._fetching = asyncio.Semaphore(_FETCHING_MAX)
        self._fetch_locks: dict[str, asyncio.Lock] = {}

    async def run(self, targets: Sequence[Reference]) -> None:
        """All of it. Raises EngineErrors."""
        parts, options = self._parts, self._options
        loop = asyncio.get_running_loop()
        self._results = {stage.stage.index: loop.create_future() for stage in self._plan.stages}
        cached_from = parts.bases.known(options.cache_from)
        steps = BuildSteps(
            parts.images, parts.cached, parts.clock, use_cache=not options.no_cache, epoch=options.epoch, platform=self._platform,
            sources=cached_from,
        )  # fmt: skip
        with parts.images.holding() as hold, parts.entries.building() as stand_on, closing(steps):
            tools = Tools(
                images=parts.images, steps=steps, copies=parts.copies, containers=parts.containers, trees=parts.trees,
                fetches=Fetches(parts.registries, self._workspace),
                mounts=RunMounts(self._workspace, parts.copies, parts.directories, self._session),
                workspace=self._workspace, options=options, hold=hold, stand_on=stand_on,
            )  # fmt: skip
            try:
                await self._stages(tools)
            finally:
                if options.only_output:
                    steps.hide()
            if not options.only_output:
                for result in self._results.values():
                    steps.show(result.result().image)
            last = self._results[self._plan.stages[-1].stage.index].result()
            if last.image is None:
                raise InvalidArgument("No image was generated. Is your Dockerfile empty?")
            image = last.image
            if options.squash and not options.only_output:  # the files are the same
                layer = await parts.copies.squash(last.base, image, options.epoch)
                image = steps.add_squashed(last.base, image, layer)
            await self._finish(image, targets)

    async def _finish(self, image: Image, targets: Sequence[Reference]) -> None:
        left = [name for name in self._args.unused() if name != "SOURCE_DATE_EPOCH"]
        if left:
            self._lines.say({"stream": f"[Warning] One or more build-args [{' '.join(left)}] were not consumed\n"})
        self._lines.say({"stream": f"Successfully built {short_id(image.id)}\n"})
        for target in targets:
            await self._parts.images.tag(image.id, target.name, target.tag or "latest")
            self._lines.say({"stream": f"Successfully tagged {target.familiar}\n"})

    # stages

    async def _stages(self, tools: Tools) -> None:
        """Build them, and show what they say in order. Raises the first error, once what came before it has been shown."""
        number, total = 1, len(self._dockerfile.args) + sum(1 + len(self._instructions(stage)) for stage in self._plan.stages)
        outputs = self._outputs(number + len(self._dockerfile.args), total)
        for warning in self._dockerfile.warnings:
            self._lines.say({"stream": f"\x1b[91m[WARNING]: {warning.message}\n\x1b[0m"})
        if self._dockerfile.warnings:
            self._lines.say({"stream": f"\x1b[91m[WARNING]: {_EMPTY_CONTINUATION}\n\x1b[0m"})
        for arg in self._dockerfile.args:
            if not self._options.steps:
                self._lines.say({"stream": f"Step {number}/{total} : {arg.text}"})
                self._lines.say({"stream": "\n"})
            number += 1
            if self._problem is not None and self._problem[0] is arg:
                raise InvalidArgument(self._problem[1])
        showing = asyncio.ensure_future(self._show(outputs))
        try:
            async with asyncio.TaskGroup() as group:
                for place, (stage, output) in enumerate(zip(self._plan.stages, outputs, strict=True)):
                    group.create_task(self._stage(place, stage, output, tools, number, total))
                    number += 1 + len(self._instructions(stage))
        except BaseExceptionGroup as failed:
            await self._show_rest(showing, outputs[: None if self._failed is None else self._failed + 1])
            raise _first(failed) from None
        except BaseException:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
            raise
        await showing

    def _outputs(self, first: int, total: int) -> list[Output]:
        """Where each stage says what it does. first: the number of the first one's FROM."""
        if not self._options.steps:
            unheard = Unheard()
            return [Output(unheard) for _ in self._plan.stages]
        telling = BuildTelling(self._lines, first, total)
        return [telling.stage(self._name(planned), 1 + len(self._instructions(planned))) for planned in self._plan.stages]

    def _name(self, planned: PlannedStage) -> str:
        """What a stage is called where several run side by side."""
        return planned.stage.alias or (f"stage-{planned.stage.index}" if len(self._dockerfile.stages) > 1 else "")

    async def _show(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            async for batch in output.batches(self._lines.drained):
                for line in batch:
                    self._lines.say(line)

    async def _show_rest(self, showing: "asyncio.Future[None]", outputs: Sequence[Output]) -> None:
        """What was said until a stage failed, by it and those before it: docker would not have begun the others."""
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        for output in outputs:
            for line in output.taken():
                self._lines.say(line)

    async def _stage(self, place: int, planned: PlannedStage, output: Output, tools: Tools, number: int, total: int) -> None:
        try:
            result = await self._run_stage(planned, output, tools, number, total)
        except Exception:
            self._failed = place if self._failed is None else self._failed
            output.fail()
            raise
        output.close()  # of a failed one not, so that nobody is shown what comes after it
        self._results[planned.stage.index].set_result(result)

    def _instructions(self, planned: PlannedStage) -> Sequence[StageInstruction]:
        """A stage's own, and for the target `--label`."""
        own = planned.stage.instructions
        return (*own, *self._labels) if planned.stage.index == self._plan.target else own

    async def _run_stage(self, planned: PlannedStage, output: Output, tools: Tools, number: int, total: int) -> Result:
        stage = planned.stage
        turn = Turn(self._places, output.heard)

        async def source(name: str) -> Image | None:
            return await self._image_of(from_source(self._dockerfile, name, stage.index), name, output, tools, turn)

        run = StageRun(tools, output, self._args.stage(), self._dockerfile.directives.escape, source)
        if isinstance(planned.base, StageSource) and not planned.problem:  # its first step begins when that one has ended
            await asyncio.shield(self._results[planned.base.index])
        output.begin(number, total, stage.text)
        if planned.problem:
            raise InvalidArgument(planned.problem)
        image, config = await self._base(planned, output)
        triggers = self._begin(run, image, config, output)
        async with turn:
            for trigger in triggers:
                await run.run(trigger)
            run.say_image()
            for place, instruction in enumerate(self._instructions(planned), number + 1):
                output.begin(place, total, instruction.text)
                await run.run(instruction)
                run.say_image()
        if run.image is not None:
            output.put({"aux": {"ID": run.image.id}})
        return run.result

    def _begin(self, run: StageRun, image: Image | None, config: ContainerConfig | None, output: Output) -> Sequence[StageInstruction]:
        triggers = run.begin(image, config)
        if triggers:
            output.say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        return [parse_trigger(text) for text in triggers]

    async def _base(self, planned: PlannedStage, output: Output) -> tuple[Image | None, ContainerConfig | None]:
        """What a stage stands on: another one, which has ended, or an image; those of all stages are fetched side by side."""
        if isinstance(planned.base, StageSource):
            result = self._results[planned.base.index].result()
            return result.image, result.config
        if planned.base is None:
            return None, None
        platform = self._platform_of(planned.platform) or self._platform
        image = await self._fetched(planned.base.reference, platform, output)
        return image, image.config.config

    async def _built(self, index: int, output: Output, tools: Tools, turn: Turn) -> Result:
        """What another stage comes to, once it is there."""
        if index not in self._results:
            await turn.after(self._build_late(index, output, tools))
        result = self._results[index]
        return result.result() if result.done() else await turn.after(asyncio.shield(result))

    def _platform_of(self, text: str) -> Platform | None:
        """FROM's. Raises InvalidArgument."""
        try:
            platforms.wanted(text or "linux")
        except InvalidArgument as error:
            raise InvalidArgument(f"failed to parse platform {text}: {error.message}") from None
        return self._parts.bases.platform_of(text)

    async def _build_late(self, index: int, output: Output, tools: Tools) -> None:
        """Build a stage that only a trigger of a base's names, and what it needs, in the words of the stage that asks."""
        late = [
            planned for planned in plan(self._dockerfile, self._args, target=str(index)).stages if planned.stage.index not in self._results
        ]
        for planned in late:
            self._results[planned.stage.index] = asyncio.get_running_loop().create_future()
        number, total = 1, sum(1 + len(planned.stage.instructions) for planned in late)
        for planned in late:
            count = 1 + len(planned.stage.instructions)
            told = output.late(self._name(planned), number, count)
            self._results[planned.stage.index].set_result(await self._run_stage(planned, told, tools, number, total))
            number += count

    async def _image_of(self, source: StageSource | ImageSource, name: str, output: Output, tools: Tools, turn: Turn) -> Image | None:
        """What `--from` means: a stage's image, or one by its name."""
        if isinstance(source, StageSource):
            return (await self._built(source.index, output, tools, turn)).image
        if source.reference == SCRATCH:
            return None
        try:
            return await self._fetched(source.reference, self._platform, output)
        except EngineError as error:
            raise type(error)(f"invalid from flag value {name}: {error.message}") from None

    async def _fetched(self, reference: str, platform: Platform | None, output: Output) -> Image:
        """An image by its name: who names it second finds it here."""
        async with self._fetch_locks.setdefault(reference, asyncio.Lock()), self._fetching:
            return await self._parts.bases.get(reference, platform, self._options, output.put)


def _target(text: str) -> Reference:
    """Raises SystemFailure: docker answers 500."""
    try:
        reference = parse_reference(text)
    except InvalidArgument as error:
        raise SystemFailure(error.message) from None
    if reference.digest is not None:
        raise SystemFailure("build tag cannot contain a digest")
    return reference.with_default_tag()


def _first(failed: "BaseExceptionGroup[BaseException]") -> BaseException:
    """The error to tell: the first, of groups within groups too."""
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
