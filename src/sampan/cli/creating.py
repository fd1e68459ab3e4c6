"""What `run` and `create` have in common: the body, the --cidfile, pulling an image that is missing, warnings."""

from __future__ import annotations

import os
import sys

from sampan.cli.createbody import create_body
from sampan.cli.http import ApiError, CliError, version_key
from sampan.cli.stream import terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from sampan.cli.flags import Parsed
    from sampan.cli.main import Context
    from sampan.reference import Reference

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-/")


def with_help(message: str, command: str) -> str:
    """`docker: ...` and the hint to --help, as errors of run and create look."""
    return f"sampan: {message}\n\nRun 'sampan {command} --help' for more information"


def request_body(ctx: Context, args: Parsed, command: str) -> dict[str, Any]:
    """The create request for a command line; errors end with 125 and the hint to --help."""
    pull = args.str("pull")
    try:
        if pull not in ("always", "missing", "never", ""):
            raise ValueError(f"""invalid pull option: '{pull}': must be one of "always", "missing" or "never\"""")
        version = version_key(ctx.client.negotiate())
        return create_body(args, args.args[0], args.args[1:], api=version, proxies=_proxies(ctx))
    except ValueError as error:
        raise CliError(with_help(str(error), command), 125) from None
    except CliError as error:
        if command == "create":
            raise  # docker's create adds nothing to what the daemon or the connection says
        raise CliError(with_help(error.message, command), 125) from None


def _proxies(ctx: Context) -> dict[str, str]:
    proxies = ctx.config.get("proxies")
    if not isinstance(proxies, dict):
        return {}
    chosen = proxies.get(ctx.client.host.text) or proxies.get("default") or {}
    return chosen if isinstance(chosen, dict) else {}


def build_arguments(ctx: Context, given: list[str]) -> dict[str, str | None]:
    """--build-arg: the last of each name counts; a name alone is the environment's, or None. Proxies of config.json unless given."""
    from sampan.cli.createbody import proxy_variables

    arguments: dict[str, str | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        arguments[name] = value if equals else os.environ.get(name)
    for name, value in proxy_variables(_proxies(ctx)):
        arguments.setdefault(name, value)
    return arguments


def create_container(ctx: Context, args: Parsed, body: dict[str, Any]) -> str:
    """Create the container, pulling its image if need be; writes the --cidfile and the daemon's warnings. Returns its ID."""
    cidfile = args.str("cidfile")
    written = False
    if cidfile:
        _make_cidfile(cidfile)
    try:
        answer = _create(ctx, args, body)
        if "Timezone" in body["HostConfig"]:
            _check_timezone(ctx, answer["Id"])
        for warning in [*(answer.get("Warnings") or ()), *_dns_warnings(body)]:
            ctx.error(f"WARNING: {warning}")
        if cidfile:
            with open(cidfile, "w", encoding="utf-8") as file:
                file.write(answer["Id"])
        written = True
    finally:
        if cidfile and not written:
            os.unlink(cidfile)
    return str(answer["Id"])


def _check_timezone(ctx: Context, container_id: str) -> None:
    """A daemon that knows nothing of time zones has left it out: then there is to be no container."""
    if not ctx.client.request("GET", f"/containers/{container_id}/json").json()["HostConfig"].get("Timezone"):
        ctx.client.request("DELETE", f"/containers/{container_id}", {"v": "1"})
        raise CliError("this daemon cannot give a container a time zone (dockerd cannot)")


def _make_cidfile(path: str) -> None:
    if os.path.exists(path):
        raise CliError(f"container ID file found, make sure the other container isn't running or delete {path}")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise CliError(f"failed to create the container ID file: open {path}: {(error.strerror or '').lower()}") from None


def _create(ctx: Context, args: Parsed, body: dict[str, Any]) -> dict[str, Any]:
    image = body["Image"]
    if not image or any(char not in _PLAIN for char in image):
        _parse(image)
    if args.bool("use-api-socket"):
        _mount_api_socket(ctx, body)
    platform = args.str("platform") if ctx.client.at_least("1.41") else ""
    query = {"name": args.str("name") or None, "platform": _normal_platform(platform) or None}
    if args.str("pull") == "always":
        pull_image(ctx, args, parse_reference(image).with_default_tag(), sys.stderr)
    body["HostConfig"]["ConsoleSize"] = [0, 0] if platform and not ctx.client.at_least("1.42") else list(terminal_size())
    try:
        answer: dict[str, Any] = ctx.client.request("POST", "/containers/create", query, body).json()
        return answer
    except ApiError as error:
        named = _parse(image)
        if error.status != 404 or not named or args.str("pull") != "missing":
            raise
        if not args.bool("quiet"):
            ctx.error(f"Unable to find image '{named}' locally")
        pull_image(ctx, args, parse_reference(image).with_default_tag(), sys.stderr)
        answer = ctx.client.request("POST", "/containers/create", query, body).json()
        return answer


def _normal_platform(text: str) -> str:
    if not text:
        return ""
    from sampan.cli.platforms import as_text

    return as_text(text, "error parsing specified platform: ")


def _parse(image: str) -> str:
    """The familiar form with its tag; "" for a bare 64-digit ID. Raises CliError for what is no reference."""
    if len(image) == 64 and all(char in "0123456789abcdef" for char in image):
        return ""
    if image.startswith("sha256:") and len(image) == 71:
        return ""
    return parse_reference(image).with_default_tag().familiar


def parse_reference(text: str) -> Reference:
    """An image's name. Raises CliError for what is none."""
    from sampan.reference import InvalidReference, parse

    try:
        return parse(text)
    except InvalidReference as error:
        raise CliError(error.message) from None


def pull_image(ctx: Context, args: Parsed, reference: Reference, out: TextIO) -> None:
    """POST /images/create; without tag and digest, every tag. out: for its progress, unless --quiet. Raises CliError."""
    from sampan.cli.progress import display

    query = {"fromImage": reference.name, "tag": reference.digest or reference.tag, "platform": args.str("platform").lower() or None}
    if args.changed("tls-verify") and not args.bool("tls-verify"):
        query["tlsVerify"] = "0"
    headers = {"X-Registry-Auth": registry_auth(ctx, reference.domain)}
    response = ctx.client.request("POST", "/images/create", query, headers=headers)
    if args.bool("quiet"):
        with open(os.devnull, "w", encoding="utf-8") as null:
            display(response.lines(), null)
    else:
        display(response.lines(), out, width=terminal_size(out.fileno())[1] if out.isatty() else 0)


def registry_auth(ctx: Context, domain: str) -> str:
    """The X-Registry-Auth header for a registry, of what config.json or a credential helper knows."""
    import base64
    import json

    from sampan.cli import credentials

    auth = credentials.load(ctx, credentials.server_of(domain))
    return base64.urlsafe_b64encode(json.dumps(auth, separators=(",", ":")).encode()).decode()


def _mount_api_socket(ctx: Context, body: dict[str, Any]) -> None:
    host = ctx.client.host
    if not host.path:
        raise CliError(f"flag --use-api-socket can only be used with unix sockets: docker endpoint {host.text} incompatible")
    mounts = body["HostConfig"].setdefault("Mounts", [])
    mounts.append({"Type": "bind", "Source": host.path, "Target": "/var/run/docker.sock", "BindOptions": {}})


def _dns_warnings(body: dict[str, Any]) -> list[str]:
    for address in body["HostConfig"]["Dns"]:
        if address.startswith("127.") or address == "::1":
            return [f"Localhost DNS ({address}) may fail in containers."]
    return []


def start_failure(error: CliError, command: str = "run") -> CliError:
    """An error of create or start with run's exit code: 127 no such program, 126 not executable, 125 else."""
    message = error.message
    code = 125
    if any(text in message for text in ("executable file not found", "no such file or directory", "system cannot find the file specified")):
        code = 127
    elif "permission denied" in message or "is a directory" in message:
        code = 126
    return CliError(with_help(message, command), code)
