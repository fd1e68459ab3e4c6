"""From the global options and the environment to a client: host, context, TLS, API version, extra headers, config.json."""

from __future__ import annotations

import os

from sampan.cli.http import DEFAULT_HOST, Client, CliError, Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Any

    from sampan.cli.flags import Parsed


def make_client(options: Parsed) -> Client:
    """The client that the options and DOCKER_HOST, DOCKER_CONTEXT, DOCKER_API_VERSION, DOCKER_CUSTOM_HEADERS describe."""
    hosts = options.list("host")
    if len(hosts) > 1:
        raise CliError("Failed to initialize: unable to resolve docker endpoint: Specify only one -H")
    if hosts and options.str("context"):
        raise CliError("conflicting options: cannot specify both --host and --context")
    name = current_context(options)
    headers: dict[str, str] = {}
    custom = load_config(options).get("HttpHeaders")
    if isinstance(custom, dict):
        headers.update({str(key): str(value) for key, value in custom.items() if str(key).lower() != "user-agent"})
    for pair in os.environ.get("DOCKER_CUSTOM_HEADERS", "").split(","):
        if "=" in pair:
            key, _, value = pair.partition("=")
            headers[key.strip()] = value
    if name == "default":
        host = make_host(default_host(options), _tls(options))
    else:
        from sampan.cli.contextstore import host_of

        host = host_of(options, name)
    return Client(host, api_version=os.environ.get("DOCKER_API_VERSION", ""), headers=headers)


def make_host(text: str, tls: ssl.SSLContext | None) -> Host:
    """The host that a text names. Raises CliError."""
    if text.startswith("ssh://"):
        from sampan.cli.sshhost import SshHost

        return SshHost(text)
    return Host(text, tls)


def current_context(options: Parsed) -> str:
    """The context in use: --context, else "default" where a host is given, else DOCKER_CONTEXT, else config.json's."""
    if options.str("context"):
        return options.str("context")
    if options.list("host") or os.environ.get("DOCKER_HOST"):
        return "default"
    return os.environ.get("DOCKER_CONTEXT") or str(load_config(options).get("currentContext") or "") or "default"


def default_host(options: Parsed) -> str:
    """The host of the context "default"."""
    hosts = options.list("host")
    return (hosts[0] if hosts else os.environ.get("DOCKER_HOST", "")).strip() or DEFAULT_HOST


def uses_tls(options: Parsed) -> bool:
    """Whether the options ask for TLS."""
    return options.bool("tls") or options.bool("tlsverify") or options.changed("tlsverify")


def _tls(options: Parsed) -> ssl.SSLContext | None:
    if not uses_tls(options):
        return None
    verify = options.bool("tlsverify")
    import ssl

    context = ssl.create_default_context()
    ca, cert, key = (options.str(name) for name in ("tlscacert", "tlscert", "tlskey"))
    try:
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.load_verify_locations(ca)
        if os.path.exists(cert) or options.changed("tlscert"):
            context.load_cert_chain(cert, key)
    except OSError as error:
        what = f"open {ca}: no such file or directory" if isinstance(error, FileNotFoundError) else str(error)
        raise CliError(f"Failed to initialize: unable to resolve docker endpoint: {what}") from None
    return context


_loaded: dict[str, dict[str, Any]] = {}


def load_config(options: Parsed) -> dict[str, Any]:
    """config.json of the config directory; {} if there is none. A broken one is a warning in docker's words, not the end."""
    path = os.path.join(options.str("config"), "config.json")
    if path not in _loaded:
        _loaded[path] = _read_config(path)
    return _loaded[path]


def _read_config(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        return _without_config(f"loading config file: open {path}: {(error.strerror or '').lower()}")
    import json

    try:
        parsed = json.loads(raw)
    except RecursionError:
        return _without_config(f"parsing config file ({path}): exceeded max depth")
    except ValueError:
        from sampan.cli.gotext import json_error

        return _without_config(f"parsing config file ({path}): {json_error(raw)}")
    if not isinstance(parsed, dict):
        return _without_config(
            f"parsing config file ({path}): json: cannot unmarshal {_kind(parsed)} into Go value of type configfile.ConfigFile"
        )
    for key, value in parsed.items():
        if key in _STRINGS and not isinstance(value, str) and value is not None:
            problem = f"json: cannot unmarshal {_kind(value)} into Go struct field ConfigFile.{key} of type string"
            return _without_config(f"parsing config file ({path}): {problem}")
    return parsed


_STRINGS = (
    "psFormat",
    "imagesFormat",
    "networksFormat",
    "pluginsFormat",
    "volumesFormat",
    "statsFormat",
    "detachKeys",
    "credsStore",
    "currentContext",
)


def _kind(value: object) -> str:
    """What Go calls a JSON value."""
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _without_config(problem: str) -> dict[str, Any]:
    import sys

    sys.stderr.write(f"WARNING: Error {problem}\n")
    return {}
