"""What instructions that touch no file make of an image's config, and what its history says of them. Pure.

The texts are those of docker's classic builder (moby builder/dockerfile/dispatchers.go).
"""

import posixpath
import re
import signal
from functools import singledispatch
from typing import Final, NamedTuple

import msgspec

from sampan.build import gotext
from sampan.build.commands import DEFAULT_SHELL, command_of
from sampan.build.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Shell,
    StopSignal,
    User,
    Volume,
)
from sampan.errors import InvalidArgument
from sampan.spec.oci_image import ContainerConfig, Healthcheck

DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOP: Final = "#(nop) "
_PROTOCOLS = ("tcp", "udp", "sctp")


class Changed(NamedTuple):
    """What an instruction came to."""

    config: ContainerConfig
    comment: str
    """Of the history: `ENV a=b`."""
    note: str = ""
    """A line for the user."""


def shell_of(config: ContainerConfig) -> list[str]:
    """What goes before the shell form of RUN, CMD and ENTRYPOINT."""
    return list(config.shell or DEFAULT_SHELL)


def first_config(config: ContainerConfig | None) -> ContainerConfig:
    """What a stage begins with: its base's config, which has a PATH in any case and no triggers."""
    own = config or ContainerConfig()
    environment = list(own.env or ())
    if not any(entry.partition("=")[0] == "PATH" for entry in environment):
        environment.append(DEFAULT_PATH)
    return msgspec.structs.replace(own, env=environment, on_build=None)


def working_dir(config: ContainerConfig, path: str) -> str:
    """WORKDIR's new directory: relative to the one before, cleaned. Raises InvalidArgument."""
    if not path:
        raise InvalidArgument("cannot normalize nothing")
    joined = posixpath.normpath(posixpath.join("/", config.working_dir or "/", path))
    return "/" + joined.lstrip("/")


@singledispatch
def apply(instruction: Instruction, config: ContainerConfig, had_cmd: bool) -> Changed:
    """The config after an instruction. had_cmd: the stage has had a CMD of its own. Raises InvalidArgument in docker's words."""
    raise TypeError(f"{instruction.keyword} is no instruction of metadata alone")


@apply.register
def _maintainer(instruction: Maintainer, config: ContainerConfig, had_cmd: bool) -> Changed:
    return Changed(config, f"MAINTAINER {instruction.maintainer}")


@apply.register
def _env(instruction: Env, config: ContainerConfig, had_cmd: bool) -> Changed:
    environment = list(config.env or ())
    comment = "ENV"
    for name, value in ((pair.name, pair.value) for pair in instruction.pairs):
        entry = f"{name}={value}"
        comment += f" {entry}"
        place = next((index for index, known in enumerate(environment) if known.partition("=")[0] == name), None)
        if place is None:
            environment.append(entry)
        else:
            environment[place] = entry
    return Changed(msgspec.structs.replace(config, env=environment), comment)


@apply.register
def _label(instruction: Label, config: ContainerConfig, had_cmd: bool) -> Changed:
    pairs = {pair.name: pair.value for pair in instruction.pairs}
    comment = "LABEL" + "".join(f" {pair.name}={pair.value}" for pair in instruction.pairs)
    return Changed(msgspec.structs.replace(config, labels={**(config.labels or {}), **pairs}), comment)


@apply.register
def _arg(instruction: Arg, config: ContainerConfig, had_cmd: bool) -> Changed:
    texts = (one.name if one.default is None else f"{one.name}={one.default}" for one in instruction.declarations)
    return Changed(config, "ARG " + " ".join(texts))


@apply.register
def _cmd(instruction: Cmd, config: ContainerConfig, had_cmd: bool) -> Changed:
    words = list(command_of(instruction.command, config.shell or ()).words)
    return Changed(msgspec.structs.replace(config, cmd=words or None), f"CMD {gotext.quoted(words)}")


@apply.register
def _entrypoint(instruction: Entrypoint, config: ContainerConfig, had_cmd: bool) -> Changed:
    line = instruction.command
    words = list(command_of(line, config.shell or ()).words) if line.words or line.heredocs else []
    cmd = config.cmd if had_cmd else None  # the base's was for the base's entry point
    return Changed(msgspec.structs.replace(config, entrypoint=words or None, cmd=cmd), f"ENTRYPOINT {gotext.quoted(words)}")


@apply.register
def _shell(instruction: Shell, config: ContainerConfig, had_cmd: bool) -> Changed:
    return Changed(msgspec.structs.replace(config, shell=list(instruction.words)), f"SHELL {gotext.shown(instruction.words)}")


@apply.register
def _user(instruction: User, config: ContainerConfig, had_cmd: bool) -> Changed:
    return Changed(msgspec.structs.replace(config, user=instruction.user), f"USER {instruction.user}")


@apply.register
def _on_build(instruction: OnBuild, config: ContainerConfig, had_cmd: bool) -> Changed:
    triggers = [*(config.on_build or ()), instruction.trigger]
    return Changed(msgspec.structs.replace(config, on_build=triggers), f"ONBUILD {instruction.trigger}")


@apply.register
def _volume(instruction: Volume, config: ContainerConfig, had_cmd: bool) -> Changed:
    paths = [path.strip() for path in instruction.paths]
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    volumes = {**(config.volumes or {}), **{path: {} for path in paths}}
    return Changed(msgspec.structs.replace(config, volumes=volumes), f"VOLUME {gotext.shown(instruction.paths)}")


@apply.register
def _stop_signal(instruction: StopSignal, config: ContainerConfig, had_cmd: bool) -> Changed:
    name = instruction.signal.upper()
    known = {entry.name for entry in signal.Signals} | {entry.name.removeprefix("SIG") for entry in signal.Signals}
    if not (name.isdecimal() and int(name[:9])) and name not in known and not re.fullmatch(r"(SIG)?RTM(IN\+|AX-)\d+", name):
        raise InvalidArgument(f"invalid signal: {instruction.signal}")
    return Changed(msgspec.structs.replace(config, stop_signal=instruction.signal), f"STOPSIGNAL {instruction.signal}")


@apply.register
def _health_check(instruction: HealthCheck, config: ContainerConfig, had_cmd: bool) -> Changed:
    former = config.healthcheck.test if config.healthcheck is not None else []
    note = ""
    if instruction.test[:1] != ("NONE",) and former and former[0] != "NONE":
        note = f"Note: overriding previous HEALTHCHECK: {gotext.shown(former)}\n"
    check = Healthcheck(
        test=list(instruction.test),
        interval=instruction.interval,
        timeout=instruction.timeout,
        start_period=instruction.start_period,
        start_interval=instruction.start_interval,
        retries=instruction.retries,
    )
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    comment = f"HEALTHCHECK &{{{gotext.shown(check.test)} {' '.join(map(gotext.duration, times))} {check.retries}}}"
    return Changed(msgspec.structs.replace(config, healthcheck=check), comment, note)


@apply.register
def _expose(instruction: Expose, config: ContainerConfig, had_cmd: bool) -> Changed:
    ports = dict(config.exposed_ports or {})
    for text in instruction.ports:
        ports.update({port: {} for port in _ports(text)})
    return Changed(msgspec.structs.replace(config, exposed_ports=ports), f"EXPOSE {' '.join(instruction.ports)}")


def _ports(text: str) -> list[str]:
    """`[[ip:]port:]port[-port][/protocol]` as keys of ExposedPorts (docker/go-connections nat.ParsePortSpec)."""
    numbers, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"Invalid proto: {protocol}")
    low, dash, high = numbers.rpartition(":")[2].partition("-")
    if not _is_port(low) or (dash and not _is_port(high)) or (dash and int(high) < int(low)):
        raise InvalidArgument(f"Invalid containerPort: {numbers}")
    _check_host_range(numbers, low, high)
    return [f"{number}/{protocol}" for number in range(int(low), int(high or low) + 1)]


def _check_host_range(numbers: str, low: str, high: str) -> None:
    """The host's ports, which mean nothing here, have to be one or as many."""
    before, _, last = numbers.rpartition(":")
    first, dash, end = before.rpartition(":")[2].partition("-")
    if dash and _is_port(first) and _is_port(end) and int(high or low) > int(low) and int(end) - int(first) != int(high or low) - int(low):
        raise InvalidArgument(f"Invalid ranges specified for container and host Ports: {last} and {first}-{end}")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 7 and int(text) <= 65535
