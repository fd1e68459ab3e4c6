"""Which stages a target needs, and what each reads. Pure; nothing is fetched, nothing is run.

A name means a stage only after that stage (`FROM node AS node` is the image), so there are no cycles. What is wrong with a stage is kept
with it, and told when its turn comes, as docker's stream does; only a target that is not there is wrong at once.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from sampan.build.arguments import Arguments
from sampan.build.expand import expand
from sampan.build.instructions import Arg, Copy, Dockerfile, Run, Stage, StageInstruction
from sampan.build.mounts import mount_source
from sampan.build.resolve import resolved
from sampan.errors import InvalidArgument
from sampan.quoting import go_quote

SCRATCH: Final = "scratch"
GLOBALS_MAX: Final = 4 << 20
"""Characters of all ARGs before the first FROM, variables put in."""


class StageSource(Struct, frozen=True, tag_field="source", tag="stage"):
    """What another stage has made."""

    index: int


class ImageSource(Struct, frozen=True, tag_field="source", tag="image"):
    """An image, as it is called in the Dockerfile: not parsed."""

    reference: str


Source: TypeAlias = StageSource | ImageSource


class PlannedStage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stage that the target needs."""

    stage: Stage
    base: Source | None = None
    """What FROM names; None: scratch, or a problem."""
    platform: str = ""
    """Of FROM --platform, expanded; empty: the build's."""
    reads: tuple[Source, ...] = ()
    """What COPY --from and RUN --mount=from= name, in the order in which they do; each once."""
    problem: str = ""
    """Docker's sentence, to be told once the stage's FROM has been announced."""

    @property
    def needs(self) -> frozenset[int]:
        """The stages that have to be complete before this one can be. Its own instructions up to the first that reads may run before."""
        sources = self.reads if self.base is None else (self.base, *self.reads)
        return frozenset(source.index for source in sources if isinstance(source, StageSource))


class Plan(Struct, frozen=True, kw_only=True):
    """A build, as far as it can be known without its images."""

    target: int
    stages: tuple[PlannedStage, ...]
    """Those that are needed, in the file's order; the last one is the target."""


def target_index(dockerfile: Dockerfile, target: str) -> int:
    """The stage that --target means: a name in whatever case, or a number; the last one for none. Raises InvalidArgument."""
    if not target:
        return len(dockerfile.stages) - 1
    named = _aliases(dockerfile).get(target.lower())
    if named is not None:
        return named
    if target.isascii() and target.isdecimal() and len(target) < 10 and int(target) < len(dockerfile.stages):
        return int(target)
    raise InvalidArgument(f"target stage {go_quote(target)} could not be found")


def _aliases(dockerfile: Dockerfile) -> dict[str, int]:
    """Names of stages; a second stage of a name is a problem, not another meaning."""
    aliases: dict[str, int] = {}
    for stage in dockerfile.stages:
        if stage.alias:
            aliases.setdefault(stage.alias, stage.index)
    return aliases


def declare_globals(dockerfile: Dockerfile, arguments: Arguments) -> tuple[Arg, str] | None:
    """All ARGs before the first FROM, each with those before it put in. The first that cannot be, and docker's sentence about it."""
    seen, length = arguments.globals(), 0
    for arg in dockerfile.args:
        try:
            done = resolved(arg, seen, dockerfile.directives.escape)
        except InvalidArgument as error:
            return arg, error.message
        length += sum(len(declaration.default or "") for declaration in done.declarations)
        if length > GLOBALS_MAX:
            return arg, f"the ARGs before the first FROM come to more than {GLOBALS_MAX} characters"
        arguments.declare_global(done)
        for declaration in done.declarations:  # not all of them anew: there may be a million
            value = arguments.value(declaration.name, declaration.default)
            if value is None:
                seen.pop(declaration.name, None)
            else:
                seen[declaration.name] = value
    return None


def plan(dockerfile: Dockerfile, arguments: Arguments, *, target: str = "") -> Plan:
    """The plan for a target. `arguments` has the global ones declared. Raises InvalidArgument for a target that is not there.

    Triggers (ONBUILD) of the bases are not known yet: what they name is planned for when it is met.
    """
    index = target_index(dockerfile, target)
    values = arguments.globals()
    aliases = _aliases(dockerfile)
    planned: dict[int, PlannedStage] = {}
    wanted = [index]
    while wanted:
        number = wanted.pop()
        if number not in planned:
            stage = dockerfile.stages[number]
            planned[number] = _planned(dockerfile, aliases, stage, values)
            wanted += planned[number].needs
    stages = tuple(planned[number] for number in sorted(planned))
    return Plan(target=index, stages=stages)


def from_source(dockerfile: Dockerfile, name: str, stage: int) -> Source:
    """What `--from=name` means in the stage of that number. Raises InvalidArgument in docker's words."""
    return _from_source(dockerfile, _aliases(dockerfile), name, stage)


def _from_source(dockerfile: Dockerfile, aliases: Mapping[str, int], name: str, stage: int) -> Source:
    named = aliases.get(name.lower())
    if named is not None and named < stage:
        return StageSource(named)
    if named is not None:
        current = dockerfile.stages[stage].alias or str(stage)
        raise InvalidArgument(f"cannot copy from stage {go_quote(name)}, it needs to be defined before current stage {go_quote(current)}")
    digits = name.removeprefix("-").removeprefix("+")
    if digits.isascii() and digits.isdecimal():
        number = int(digits[:10]) * (-1 if name.startswith("-") else 1)
        if number == stage:
            raise InvalidArgument(f"invalid from flag value {name}: refers to current build stage")
        if not 0 <= number < stage:
            raise InvalidArgument(f"invalid from flag value {name}: index out of bounds")
        return StageSource(number)
    return ImageSource(name)


def _planned(dockerfile: Dockerfile, aliases: Mapping[str, int], stage: Stage, values: Mapping[str, str]) -> PlannedStage:
    if stage.alias and aliases[stage.alias] != stage.index:
        return PlannedStage(stage=stage, problem=f"{stage.alias} stage name already used")
    try:
        platform, base = _base(dockerfile.directives.escape, aliases, stage, values)
    except InvalidArgument as error:
        return PlannedStage(stage=stage, problem=error.message)
    reads: dict[Source, None] = {}
    for instruction in stage.instructions:
        for name in _names(instruction):
            try:
                reads[_from_source(dockerfile, aliases, name, stage.index)] = None
            except InvalidArgument:
                continue  # is told when that instruction's turn comes: from_source says it again
    return PlannedStage(stage=stage, base=base, platform=platform, reads=tuple(reads))


def _base(escape: str, aliases: Mapping[str, int], stage: Stage, values: Mapping[str, str]) -> tuple[str, Source | None]:
    """(platform, source) of a FROM. Raises InvalidArgument."""
    platform = ""
    if stage.platform:
        try:
            platform = expand(stage.platform, values, escape)
        except InvalidArgument as error:
            raise InvalidArgument(f"failed to process arguments for platform : {error.message}") from None
        if not platform:
            raise InvalidArgument(f"empty platform value from expression {stage.platform}")
    name = expand(stage.base, values, escape)
    if not name:
        raise InvalidArgument(f"base name ({stage.base}) should not be blank")
    named = aliases.get(name.lower())
    if named is not None and named < stage.index:
        return platform, StageSource(named)
    return platform, None if name == SCRATCH else ImageSource(name)


def _names(instruction: StageInstruction) -> list[str]:
    """The names after `from=`."""
    match instruction:
        case Copy() if instruction.from_:
            return [instruction.from_]
        case Run():
            return [name for flag in instruction.mount_flags if (name := mount_source(flag))]
    return []
