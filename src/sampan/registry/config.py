"""The registry's settings: flags over SAMPAN_REGISTRY_* variables over the file over what is here. docs/registry.md has the table."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sampan.errors import InvalidArgument
from sampan.mirrors import problem_of_mirror
from sampan.reference import is_domain, is_repository_path
from sampan.registry.access.rules import ANONYMOUS, ANY_USER, Rule
from sampan.registry.parts import MANIFEST_MAX
from sampan.registry.retention import Policy

DEFAULT_FILE = Path("/etc/sampan/registry.json")
DEFAULT_ROOT = "/var/lib/sampan-registry"
FILE_MAX = 1 << 20
EMBEDDED_DRAIN_SECONDS = 5.0
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.%]+)\]|([^:\[\]]*)):(\d{1,5})")


class _Section(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    pass


class TlsConfig(_Section, frozen=True):
    """Files, read again when they change. client_ca: clients must have a certificate of it."""

    certificate: str
    key: str
    client_ca: str = ""


class AuthConfig(_Section, frozen=True):
    """Without htpasswd there are no users, and everybody may what the rules allow `anonymous`."""

    htpasswd: str = ""
    rules: list[Rule] | None = None
    anonymous_pull: bool = False
    token: bool | None = None
    """Challenge with Bearer: clients log in once and get a token. Unset: where anonymous users may pull, too, which Basic cannot say."""
    token_seconds: int = 300
    service: str = ""

    def all_rules(self) -> list[Rule]:
        """Those given, or: users may do everything; without users, everybody."""
        everything = ("pull", "push", "delete", "catalogue")
        given = self.rules if self.rules is not None else [Rule(users=(ANY_USER if self.htpasswd else ANONYMOUS,), actions=everything)]
        return [*given, *([Rule(users=(ANONYMOUS,))] if self.anonymous_pull else [])]


class MirrorConfig(_Section, frozen=True):
    """A registry that is mirrored, by the name that images have it: `docker.io`. url: "" is https:// and that name."""

    url: str = ""
    prefix: str = ""
    """Below which its repositories are pulled without `?ns=`: `docker.io/library/busybox`. "": its name, where that can be one."""
    default: bool = False
    """It is asked for what is not here, without prefix and `?ns=`: dockerd's `registry-mirrors`."""
    username: str = ""
    password_file: str = ""
    insecure: bool = False
    """Any certificate will do."""
    fresh_seconds: int = 60
    """How long a tag is taken for what it was."""


class LimitsConfig(_Section, frozen=True):
    """0: no limit."""

    manifest_bytes: int = MANIFEST_MAX
    blob_bytes: int = 0
    uploads: int = 1000
    uploads_each: int = 500
    """Of one user; of one address, where there is none."""
    upload_idle_seconds: int = 86400


class S3Config(_Section, frozen=True):
    """A bucket for the content, in place of root. What is empty comes from the environment (AWS_REGION, AWS_ACCESS_KEY_ID, ...)."""

    bucket: str
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    access_key_id: str = ""
    secret_access_key_file: str = ""


class GcConfig(_Section, frozen=True):
    """interval: 0 is never, but for `sampan registry gc`."""

    interval_seconds: float = 86400
    grace_seconds: float = 86400


class Config(_Section, frozen=True):
    """Everything."""

    listen: tuple[str, ...] = ("127.0.0.1:5000",)
    metrics_listen: str = ""
    root: str = DEFAULT_ROOT
    url: str = ""
    """How clients reach us, when a proxy stands before us: `https://registry.example`."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For and X-Forwarded-Proto count."""
    tls: TlsConfig | None = None
    auth: AuthConfig = AuthConfig()
    limits: LimitsConfig = LimitsConfig()
    mirrors: dict[str, MirrorConfig] = {}
    cache_bytes: int = 20 << 30
    """What of all mirrored registries is kept; 0: everything."""
    s3: S3Config | None = None
    gc: GcConfig = GcConfig()
    retention: tuple[Policy, ...] = ()
    delete: bool = True
    web: bool = True
    """The pages to look at."""
    access_log: str = "json"
    log_level: str = "info"
    unready_seconds: float = 0.0
    """At the end, how long requests are still taken while /readyz says 503."""
    drain_seconds: float = 30.0


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, `[::1]:PORT` or `:PORT`. Raises InvalidArgument."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise InvalidArgument(f"invalid address {text!r}: it is HOST:PORT")
    return match[1] or match[2] or "", int(match[3])


# Variable or flag → where it goes in the document.
SETTINGS: dict[str, tuple[str, ...]] = {
    "listen": ("listen",),
    "metrics-listen": ("metrics-listen",),
    "root": ("root",),
    "url": ("url",),
    "tls-certificate": ("tls", "certificate"),
    "tls-key": ("tls", "key"),
    "tls-client-ca": ("tls", "client-ca"),
    "htpasswd": ("auth", "htpasswd"),
    "anonymous-pull": ("auth", "anonymous-pull"),
    "delete": ("delete",),
    "access-log": ("access-log",),
    "log-level": ("log-level",),
    "drain-seconds": ("drain-seconds",),
}
_LISTS = frozenset(("listen",))
_BOOLEANS = frozenset(("anonymous-pull", "delete"))


def _place(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        below = document.setdefault(key, {})
        if not isinstance(below, dict):
            return  # the decoder says so
        document = below
    document[path[-1]] = value


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """SAMPAN_REGISTRY_TLS_KEY and the like, by the names of the flags. Raises InvalidArgument for a boolean that is none."""
    found: dict[str, Any] = {}
    for name in SETTINGS:
        variable = "SAMPAN_REGISTRY_" + name.upper().replace("-", "_")
        text = environment.get(variable)
        if text is None:
            continue
        if name in _LISTS:
            found[name] = [item for item in re.split(r"[,\s]+", text) if item]
        elif name in _BOOLEANS:
            if text.lower() not in ("1", "true", "0", "false"):
                raise InvalidArgument(f"{variable}={text}: true or false")
            found[name] = text.lower() in ("1", "true")
        else:
            found[name] = text
    return found


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """file=None: DEFAULT_FILE, if there is one. flags: by the names of SETTINGS. Raises InvalidArgument, which says where and what."""
    document: dict[str, Any] = {}
    path = file or DEFAULT_FILE
    if file is not None or path.exists():
        try:
            document = msgspec.json.decode(path.read_bytes()[:FILE_MAX], type=dict[str, Any])
        except OSError as error:
            raise InvalidArgument(f"{path}: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"{path}: {error}") from None
    for name, value in {**from_environment(environment), **flags}.items():
        _place(document, SETTINGS[name], value)
    return _converted(document, str(path) if document else "settings")


def embedded(document: Mapping[str, Any], data_root: str) -> Config:
    """What daemon.json's `registry` says of a registry within sampand. Raises InvalidArgument."""
    defaults = {"root": f"{data_root}/registry", "access-log": "off", "drain-seconds": EMBEDDED_DRAIN_SECONDS}
    return _converted({**defaults, **document}, "registry")


def _converted(document: dict[str, Any], where: str) -> Config:
    if isinstance(document.get("listen"), str):  # one address is the usual case
        document = {**document, "listen": [document["listen"]]}
    try:
        config = msgspec.convert(document, Config, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{where}: {error}") from None
    _check(config)
    return config


def place_of_mirror(name: str, mirror: MirrorConfig) -> str:
    """Where what is mirrored lies, and what access rules call it: the prefix, or the name as a path has it."""
    return mirror.prefix or name.replace(":", "-").replace("[", "").replace("]", "")


def _problem_of_places(mirrors: Mapping[str, MirrorConfig]) -> str:
    """Two in one place would give out each other's images."""
    places: dict[str, str] = {}
    for name, mirror in mirrors.items():
        if not is_domain(name):
            return f"{name!r} is no registry's name: it is HOST or HOST:PORT"
        place = place_of_mirror(name, mirror)
        for other, there in places.items():
            if f"{place}/".startswith(f"{there}/") or f"{there}/".startswith(f"{place}/"):
                return f"{other} and {name} are both below {min(place, there, key=len)}"
        places[name] = place
    return ""


def _check(config: Config) -> None:
    for text in (*config.listen, *([config.metrics_listen] if config.metrics_listen else [])):
        address(text)
    if not config.listen:
        raise InvalidArgument("listen: there must be an address")
    for rule in config.auth.rules or ():
        if problem := rule.problem():
            raise InvalidArgument(f"auth.rules: {problem}")
    for policy in config.retention:
        if problem := policy.problem():
            raise InvalidArgument(f"retention: {problem}")
    for name, mirror in config.mirrors.items():
        prefix = mirror.prefix or name
        if mirror.url and (problem := problem_of_mirror(mirror.url)):
            raise InvalidArgument(f"mirrors: {name}: {problem}")
        if mirror.prefix and not is_repository_path(mirror.prefix):
            raise InvalidArgument(f"mirrors: {name}: prefix {prefix!r} is no beginning of a repository's name")
        if bool(mirror.username) != bool(mirror.password_file):
            raise InvalidArgument(f"mirrors: {name}: username and password-file belong together")
    if problem := _problem_of_places(config.mirrors):
        raise InvalidArgument(f"mirrors: {problem}")
    if sum(mirror.default for mirror in config.mirrors.values()) > 1:
        raise InvalidArgument("mirrors: only one can be the default")
    if config.access_log not in ("json", "text", "off"):
        raise InvalidArgument("access-log: json, text or off")
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise InvalidArgument("log-level: debug, info, warning or error")
    if config.url and not re.fullmatch(r"https?://[^/\s\"]+", config.url):
        raise InvalidArgument("url: it is http:// or https:// and a host, without a path")
