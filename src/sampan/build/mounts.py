"""`RUN --mount=…` and `--device=…`: comma-separated options to typed mounts, in docker's words. Pure."""

import posixpath
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from sampan.build.expand import expand
from sampan.build.instructions import BindMount, CacheMount, Device, Run, RunMount, SecretMount, Sharing, SshMount, TmpfsMount
from sampan.build.suggest import suggestion
from sampan.errors import InvalidArgument
from sampan.quoting import go_quote
from sampan.units import parse_size

_TYPES: Final = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARINGS: Final[Mapping[str, Sharing]] = {"shared": "shared", "private": "private", "locked": "locked"}
_KEYS: Final = (
    "type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid", "src", "dst", "destination",
    "ro", "rw", "readwrite", "env",
)  # fmt: skip
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")


class _Options(Struct):
    """What has been said so far."""

    type: str = "bind"
    from_: str = ""
    source: str = ""
    target: str = ""
    readonly: bool | None = None
    id: str = ""
    sharing: Sharing | None = None
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None


def mounts_of(run: Run, environment: Mapping[str, str], workdir: str = "/", escape: str = "\\") -> tuple[RunMount, ...]:
    """The mounts of a RUN, variables in their values replaced, targets absolute. Raises InvalidArgument."""
    return tuple(_mount(_options(flag, environment, escape), workdir) for flag in run.mount_flags)


def mount_source(flag: str) -> str:
    """The `from=` of a mount, as written: a stage, an image, or empty. It may hold no variables."""
    found = ""
    for field in _fields(flag, "mounts"):
        key, equals, value = field.partition("=")
        if equals and key.lower() == "from":
            found = value
    return found


def check_mount_flag(flag: str) -> None:
    """What can be told while the file is read: the rest may depend on variables. Raises InvalidArgument."""
    for field in _fields(flag, "mounts"):
        key, equals, value = field.partition("=")
        at = value.find("$")
        if equals and key.lower() == "from" and at != -1 and at != len(value) - 1:
            raise InvalidArgument(f"'{key.lower()}' doesn't support variable expansion, define alias stage instead")


def parse_device(text: str) -> Device:
    """The value of --device: `name[,required]`. Raises InvalidArgument."""
    name = ""
    required = False
    for field in _fields(text, "devices"):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "required":
            required = _boolean(key, value) if equals else True
        elif equals and key == "name":
            if name:
                raise InvalidArgument(f"device name already set to {name}")
            name = value
        elif not name:
            name = field
        elif not equals:
            raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
        else:
            raise InvalidArgument(f"unexpected key '{key}' in '{field}'{suggestion(key, ('name', 'required'))}")
    return Device(name=name, required=required)


def _options(flag: str, environment: Mapping[str, str], escape: str) -> _Options:
    options = _Options()
    for field in _fields(flag, "mounts"):
        key, equals, value = field.partition("=")
        key = key.lower()
        if equals:
            _set(options, field, key, expand(value, environment, escape))
        elif key in ("readonly", "ro"):
            options.readonly = True
        elif key in ("readwrite", "rw"):
            options.readonly = False
        elif key == "required":
            options.required = _only(options, key, "secret", "ssh")
        else:
            raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
    return options


def _set(options: _Options, field: str, key: str, value: str) -> None:
    match key:
        case "type":
            if value.lower() not in _TYPES:
                raise InvalidArgument(f"unsupported mount type {go_quote(value)}{suggestion(value, _TYPES)}")
            options.type = value.lower()
        case "from":
            options.from_ = value
        case "source" | "src":
            options.source = value
        case "target" | "dst" | "destination":
            options.target = value
        case "readonly" | "ro":
            options.readonly = _boolean(key, value)
        case "readwrite" | "rw":
            options.readonly = not _boolean(key, value)
        case "required":
            options.required = _only(options, key, "secret", "ssh") and _boolean(key, value)
        case "size":
            _only(options, key, "tmpfs")
            try:
                options.size = parse_size(value)
            except ValueError:
                raise InvalidArgument(f"invalid value for {key}: {value}") from None
        case "id":
            options.id = value
        case "sharing":
            sharing = _SHARINGS.get(value.lower())
            if sharing is None:
                raise InvalidArgument(f"unsupported sharing value {go_quote(value)}{suggestion(value, _SHARINGS)}")
            options.sharing = sharing
        case "mode":
            options.mode = _unsigned(key, value, 8)
        case "uid":
            options.uid = _unsigned(key, value, 10)
        case "gid":
            options.gid = _unsigned(key, value, 10)
        case "env":
            options.env = value
        case _:
            raise InvalidArgument(f"unexpected key '{key}' in '{field}'{suggestion(key, _KEYS)}")


def _only(options: _Options, key: str, *types: str) -> bool:
    """The key belongs to mounts of these types, and `type=` comes before it."""
    if options.type not in types:
        raise InvalidArgument(f"unexpected key '{key}' for mount type '{options.type}'")
    return True


def _boolean(key: str, value: str) -> bool:
    if value not in _TRUE and value not in _FALSE:
        raise InvalidArgument(f"invalid value for {key}: {value}")
    return value in _TRUE


def _unsigned(key: str, value: str, base: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if value and len(value) <= 64 and not value.strip(digits) and (number := int(value, base)) < 1 << 32:
        return number
    raise InvalidArgument(f"invalid value {value} for {key}")


def _mount(options: _Options, workdir: str) -> RunMount:
    _check(options)
    source = options.source or "/"
    match options.type:
        case "cache":
            return CacheMount(
                target=_target(options, workdir),
                id=options.id or posixpath.normpath(options.target),
                sharing=options.sharing or "shared",
                from_=options.from_,
                source=source,
                readonly=bool(options.readonly),
                mode=0o755 if options.mode is None else options.mode,
                uid=options.uid or 0,
                gid=options.gid or 0,
            )
        case "tmpfs":
            return TmpfsMount(target=_target(options, workdir), size=options.size, readonly=bool(options.readonly))
        case "secret":
            return _secret(options)
        case "ssh":
            if options.source:
                raise InvalidArgument("ssh does not support source")
            return SshMount(
                id=options.id or "default",
                target=options.target,
                required=options.required,
                mode=0o600 if options.mode is None else options.mode,
                uid=options.uid or 0,
                gid=options.gid or 0,
            )
        case _:
            return BindMount(target=_target(options, workdir), source=source, from_=options.from_, readonly=options.readonly is not False)


def _check(options: _Options) -> None:
    if options.type not in ("secret", "ssh", "cache"):
        for name, value in (("mode", options.mode), ("uid", options.uid), ("gid", options.gid)):
            if value is not None:
                raise InvalidArgument(f"{name} not allowed for {go_quote(options.type)} type mounts")
    if options.type == "secret":
        if options.from_:
            raise InvalidArgument("secret mount should not have a from")
        if options.sharing:
            raise InvalidArgument("secret mount should not define sharing")
        if not (options.source or options.target or options.id):
            raise InvalidArgument("invalid secret mount. one of source, target required")
        if options.source and options.id:
            raise InvalidArgument("both source and id can't be set")
    if options.sharing and options.type != "cache":
        raise InvalidArgument(f"invalid cache sharing set for {options.type} mount")


def _target(options: _Options, workdir: str) -> str:
    target = posixpath.normpath(posixpath.join("/", workdir, options.target))
    if target.strip("/") == "":
        raise InvalidArgument(f"invalid mount target {go_quote('/')}")
    return target if not target.startswith("//") else target[1:]


def _secret(options: _Options) -> SecretMount:
    identity = options.source or options.id or options.target.rstrip("/").rpartition("/")[2]
    target = options.target
    if not target and options.env is None:
        target = "/run/secrets/" + (identity.rstrip("/").rpartition("/")[2] or "/")
    return SecretMount(
        id=identity,
        target=target,
        env=options.env or "",
        required=options.required,
        mode=0o400 if options.mode is None else options.mode,
        uid=options.uid or 0,
        gid=options.gid or 0,
    )


def _fields(text: str, what: str) -> list[str]:
    """The fields of one line of CSV, as Go's encoding/csv reads it. Raises InvalidArgument."""
    fields: list[str] = []
    at = 0
    while at <= len(text):
        if text.startswith('"', at):
            field, at = _quoted_field(text, at + 1, what)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field = text[at:end]
            if '"' in field:
                raise _csv_error(what, text, at + field.index('"'), 'bare " in non-quoted-field')
            at = end
        fields.append(field)
        at += 1  # the comma
    return fields


def _quoted_field(text: str, at: int, what: str) -> tuple[str, int]:
    """(the field, where it ends), from after its opening quote on."""
    out: list[str] = []
    while True:
        quote = text.find('"', at)
        if quote < 0:
            raise _csv_error(what, text, len(text), 'extraneous or missing " in quoted-field')
        out.append(text[at:quote])
        at = quote + 1
        if text.startswith('"', at):
            out.append('"')
            at += 1
        elif at == len(text) or text[at] == ",":
            return "".join(out), at
        else:
            raise _csv_error(what, text, quote, 'extraneous or missing " in quoted-field')


def _csv_error(what: str, text: str, at: int, problem: str) -> InvalidArgument:
    column = len(text[:at].encode("utf-8", "surrogateescape")) + 1
    return InvalidArgument(f"failed to parse csv {what}: parse error on line 1, column {column}: {problem}")
