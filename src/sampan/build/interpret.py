"""Parts of statements to typed instructions: what each instruction takes, in docker's words. Pure.

The order of checks is docker's, so that of two mistakes the same one is told.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from sampan.build.flags import Flags, Kind
from sampan.build.instructions import (
    Add,
    Arg,
    ArgDeclaration,
    Cmd,
    CommandLine,
    Copy,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    InlineFile,
    Label,
    Maintainer,
    Network,
    OnBuild,
    Pair,
    Run,
    Security,
    Shell,
    Stage,
    StageInstruction,
    StopSignal,
    User,
    Volume,
    WorkDir,
)
from sampan.build.lex import parse_heredoc
from sampan.build.mounts import check_mount_flag, parse_device
from sampan.build.split import KEYWORDS, Parts
from sampan.build.suggest import suggestion
from sampan.build.words import SPACE
from sampan.errors import InvalidArgument
from sampan.quoting import go_quote
from sampan.units import parse_duration

_STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_ONBUILD: Final = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE)
_MILLISECOND: Final = 10**6
_INT32: Final = 1 << 31
_NETWORKS: Final[Mapping[str, Network]] = {"default": "default", "none": "none", "host": "host"}
_SECURITIES: Final[Mapping[str, Security]] = {"sandbox": "sandbox", "insecure": "insecure"}

_FROM_FLAGS: Final[Mapping[str, Kind]] = {"platform": "text"}
_ADD_FLAGS: Final[Mapping[str, Kind]] = {
    "chown": "text", "chmod": "text", "link": "bool", "keep-git-dir": "bool", "checksum": "text", "unpack": "bool", "exclude": "texts",
}  # fmt: skip
_COPY_FLAGS: Final[Mapping[str, Kind]] = {
    "chown": "text", "from": "text", "chmod": "text", "link": "bool", "exclude": "texts", "parents": "bool",
}  # fmt: skip
_RUN_FLAGS: Final[Mapping[str, Kind]] = {"device": "texts", "mount": "texts", "network": "text", "security": "text"}
_HEALTH_FLAGS: Final[Mapping[str, Kind]] = {
    "interval": "text", "timeout": "text", "start-period": "text", "start-interval": "text", "retries": "text",
}  # fmt: skip


def interpret(parts: Parts) -> StageInstruction:
    """Any instruction but FROM. Raises InvalidArgument."""
    maker = _MAKERS.get(parts.keyword.upper())
    if maker is None:
        raise InvalidArgument(f"unknown instruction: {parts.keyword}{suggestion(parts.keyword, KEYWORDS, any_case=True)}")
    return maker(parts)


def from_(parts: Parts) -> Stage:
    """FROM, as a stage without instructions and number. Raises InvalidArgument."""
    words = parts.arguments
    alias = ""
    if len(words) == 3 and words[1].lower() == "as":
        alias = words[2].lower()
        if not _STAGE_NAME.match(alias):
            raise InvalidArgument(f"invalid name for build stage: {go_quote(words[2])}, name can't start with a number or contain symbols")
    elif len(words) != 1:
        raise InvalidArgument("FROM requires either one or three arguments")
    flags = Flags(parts.flags, _FROM_FLAGS)
    return Stage(index=0, base=words[0], platform=flags.text("platform"), alias=alias, text=_text(parts), lines=parts.statement.lines)


def _text(parts: Parts) -> str:
    return parts.statement.text.strip(SPACE)


def _at_least_one(parts: Parts, keyword: str) -> None:
    if not parts.arguments:
        raise InvalidArgument(f"{keyword} requires at least one argument")


def _exactly_one(parts: Parts, keyword: str) -> str:
    if len(parts.arguments) != 1:
        raise InvalidArgument(f"{keyword} requires exactly one argument")
    return parts.arguments[0]


def _no_flags(parts: Parts) -> None:
    Flags(parts.flags, {})


def _pairs(parts: Parts, keyword: str) -> tuple[Pair, ...]:
    _no_flags(parts)
    _at_least_one(parts, keyword)
    pairs = tuple(Pair(name, value) for name, value in zip(parts.arguments[::2], parts.arguments[1::2], strict=True))
    if any(not pair.name for pair in pairs):
        raise InvalidArgument(f"{keyword} names can not be blank")
    return pairs


def _env(parts: Parts) -> Env:
    pairs = _pairs(parts, "ENV")
    return Env(text=_text(parts), lines=parts.statement.lines, pairs=pairs, legacy=parts.form == "legacy")


def _label(parts: Parts) -> Label:
    pairs = _pairs(parts, "LABEL")
    return Label(text=_text(parts), lines=parts.statement.lines, pairs=pairs, legacy=parts.form == "legacy")


def _maintainer(parts: Parts) -> Maintainer:
    maintainer = _exactly_one(parts, "MAINTAINER")
    _no_flags(parts)
    return Maintainer(text=_text(parts), lines=parts.statement.lines, maintainer=maintainer)


def _two_arguments(parts: Parts, keyword: str) -> None:
    if len(parts.arguments) < 2:
        raise InvalidArgument(f"{keyword} requires at least two arguments, but only one was provided. Destination could not be determined")


def _sources(parts: Parts, keyword: str) -> tuple[tuple[str, ...], tuple[InlineFile, ...], str]:
    """(paths, heredocs as files, destination)."""
    *sources, destination = parts.arguments
    if parse_heredoc(destination) is not None:
        raise InvalidArgument(f"{keyword} cannot accept a heredoc as a destination")
    bodies = {heredoc.name: heredoc for heredoc in parts.statement.heredocs}
    paths: list[str] = []
    files: list[InlineFile] = []
    for source in sources:
        named = parse_heredoc(source)
        if named is None:
            paths.append(source)
            continue
        body = bodies.get(named.name)
        content = body.stripped() if body is not None else ""
        files.append(InlineFile(path=named.name, content=content, expand=named.expand))
    return tuple(paths), tuple(files), destination


def _add(parts: Parts) -> Add:
    _two_arguments(parts, "ADD")
    flags = Flags(parts.flags, _ADD_FLAGS)
    sources, files, destination = _sources(parts, "ADD")
    return Add(
        text=_text(parts),
        lines=parts.statement.lines,
        sources=sources,
        files=files,
        destination=destination,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.truth("link")),
        exclude=flags.texts("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.truth("keep-git-dir"),
        unpack=flags.truth("unpack"),
    )


def _copy(parts: Parts) -> Copy:
    _two_arguments(parts, "COPY")
    flags = Flags(parts.flags, _COPY_FLAGS)
    sources, files, destination = _sources(parts, "COPY")
    return Copy(
        text=_text(parts),
        lines=parts.statement.lines,
        sources=sources,
        files=files,
        destination=destination,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.truth("link")),
        exclude=flags.texts("exclude"),
        from_=flags.text("from"),
        parents=bool(flags.truth("parents")),
    )


def _command(parts: Parts) -> CommandLine:
    return CommandLine(words=parts.arguments, shell=parts.form != "json", heredocs=parts.statement.heredocs)


def _run(parts: Parts) -> Run:
    flags = Flags(parts.flags, _RUN_FLAGS)
    devices = tuple(map(parse_device, flags.texts("device")))
    for mount in flags.texts("mount"):
        check_mount_flag(mount)
    network = _NETWORKS.get(flags.text("network", "default"))
    if network is None:
        raise InvalidArgument(f"invalid network mode {go_quote(flags.text('network'))}")
    security = _SECURITIES.get(flags.text("security", "sandbox"))
    if security is None:
        raise InvalidArgument(f"security {go_quote(flags.text('security'))} is not valid")
    return Run(
        text=_text(parts),
        lines=parts.statement.lines,
        command=_command(parts),
        mount_flags=flags.texts("mount"),
        network=network,
        security=security,
        devices=devices,
    )


def _cmd(parts: Parts) -> Cmd:
    _no_flags(parts)
    return Cmd(text=_text(parts), lines=parts.statement.lines, command=_command(parts))


def _entrypoint(parts: Parts) -> Entrypoint:
    _no_flags(parts)
    return Entrypoint(text=_text(parts), lines=parts.statement.lines, command=_command(parts))


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None
    if duration and duration < _MILLISECOND:
        raise InvalidArgument(f"Interval {go_quote(name)} cannot be less than 1ms")
    return duration


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidArgument(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax")
    digits = text.lstrip("+-").lstrip("0")
    number = int(digits[:20] or "0") * (-1 if text.startswith("-") else 1)
    if len(digits) > 10 or not -_INT32 <= number < _INT32:
        raise InvalidArgument(f"strconv.ParseInt: parsing {go_quote(text)}: value out of range")
    if number < 0:
        raise InvalidArgument(f"--retries cannot be negative ({number})")
    return number


def _health_check(parts: Parts) -> HealthCheck:
    _at_least_one(parts, "HEALTHCHECK")
    kind, *command = parts.arguments
    kind = kind.upper()
    if kind == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return HealthCheck(text=_text(parts), lines=parts.statement.lines, test=("NONE",))
    flags = Flags(parts.flags, _HEALTH_FLAGS)
    if kind != "CMD":
        raise InvalidArgument(f"Unknown type {go_quote(kind)} in HEALTHCHECK (try CMD)")
    if not command:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    return HealthCheck(
        text=_text(parts),
        lines=parts.statement.lines,
        test=("CMD" if parts.form == "json" else "CMD-SHELL", *command),
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
    )


def _expose(parts: Parts) -> Expose:
    _at_least_one(parts, "EXPOSE")
    _no_flags(parts)
    return Expose(text=_text(parts), lines=parts.statement.lines, ports=tuple(sorted(parts.arguments)))


def _user(parts: Parts) -> User:
    user = _exactly_one(parts, "USER")
    _no_flags(parts)
    return User(text=_text(parts), lines=parts.statement.lines, user=user)


def _volume(parts: Parts) -> Volume:
    _at_least_one(parts, "VOLUME")
    _no_flags(parts)
    paths = tuple(path.strip(SPACE) for path in parts.arguments)
    if "" in paths:
        raise InvalidArgument("VOLUME specified can not be an empty string")
    return Volume(text=_text(parts), lines=parts.statement.lines, paths=paths)


def _workdir(parts: Parts) -> WorkDir:
    path = _exactly_one(parts, "WORKDIR")
    _no_flags(parts)
    return WorkDir(text=_text(parts), lines=parts.statement.lines, path=path)


def _stop_signal(parts: Parts) -> StopSignal:
    return StopSignal(text=_text(parts), lines=parts.statement.lines, signal=_exactly_one(parts, "STOPSIGNAL"))


def _arg(parts: Parts) -> Arg:
    _at_least_one(parts, "ARG")
    declarations: list[ArgDeclaration] = []
    for word in parts.arguments:
        name, equals, default = word.partition("=")
        if not name:
            raise InvalidArgument("ARG names can not be blank")
        declarations.append(ArgDeclaration(name, default if equals else None))
    return Arg(text=_text(parts), lines=parts.statement.lines, declarations=tuple(declarations))


def _shell(parts: Parts) -> Shell:
    _no_flags(parts)
    _at_least_one(parts, "SHELL")
    if parts.form != "json":
        raise InvalidArgument("SHELL requires the arguments to be in JSON form")
    return Shell(text=_text(parts), lines=parts.statement.lines, words=parts.arguments)


def _on_build(parts: Parts) -> OnBuild:
    _at_least_one(parts, "ONBUILD")
    _no_flags(parts)
    trigger = parts.arguments[0].strip(SPACE).upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    text = _ONBUILD.sub("", parts.statement.text, count=1)
    for heredoc in parts.statement.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return OnBuild(text=_text(parts), lines=parts.statement.lines, trigger=text)


_MAKERS: Final[Mapping[str, Callable[[Parts], StageInstruction]]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
