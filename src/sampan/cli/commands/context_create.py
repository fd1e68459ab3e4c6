"""sampan context create."""

from __future__ import annotations

import os

from sampan.cli.connect import current_context
from sampan.cli.contextstore import DOCKER, TLS_FILES, ContextStore, description_of, tls_context
from sampan.cli.flags import Command, Flag, Parsed, parse_bool, quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.contextstore import Document
    from sampan.cli.main import Context

_KEYS = {
    "from": "Copy named context's Docker endpoint configuration",
    "host": "Docker endpoint on which to connect",
    "ca": "Trust certs signed only by this CA",
    "cert": "Path to TLS certificate file",
    "key": "Path to TLS key file",
    "skip-tls-verify": "Skip TLS certificate validation",
}
DESCRIPTION = Flag("description", "", "string", "", "Description of the context")
ENDPOINT = Flag("docker", "", "stringToString", None, "set the docker endpoint", shown="[]")


def long_help(verb: str) -> str:
    """What create and update say of themselves."""
    keys = "\n".join(f"{key:<20}{text}" for key, text in {"NAME": "DESCRIPTION", **_KEYS}.items())
    example = "host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file"
    command = f'$ sampan context {verb} my-context --description "some description" --docker "{example}"'
    return f"{verb.capitalize()} a context\n\nDocker endpoint config:\n\n{keys}\n\nExample:\n\n{command}"


SPEC = Command(
    "[OPTIONS] CONTEXT",
    "Create a context",
    long=long_help("create"),
    min_args=1,
    max_args=1,
    complete="none",
    flags=(DESCRIPTION, ENDPOINT, Flag("from", "", "string", "", "create context from a named context", complete="contexts")),
)


def run(ctx: Context, args: Parsed) -> int:
    """Make a context of an endpoint, or of another context."""
    store = ContextStore(ctx.options)
    name, given, source = args.args[0], args.get("docker"), args.str("from")
    store.check_new(name)
    if given is None or source:
        if given:
            raise CliError("cannot use --docker flag when --from is set")
        source = source or current_context(ctx.options)
        document = store.get(source)
        description = args.str("description") or description_of(document)
        document |= {"Name": name, "Metadata": {**(document["Metadata"] or {}), **_described(description)}}
        files = {
            end: {file: _content(store.tls_path(source, end, file)) for file in names} for end, names in store.tls_files(source).items()
        }
        store.save(document, files)
    else:
        endpoint, contents = endpoint_of(store, given)
        store.save({"Name": name, "Metadata": _described(args.str("description")), "Endpoints": {DOCKER: endpoint}}, {DOCKER: contents})
    ctx.print(name)
    ctx.error(f"Successfully created context {quote(name)}")
    return 0


def _described(text: str) -> dict[str, str]:
    return {"Description": text} if text else {}


def endpoint_of(store: ContextStore, given: dict[str, str]) -> tuple[Document, dict[str, bytes]]:
    """The endpoint that `--docker` describes, and its TLS files. Raises CliError."""
    try:
        return _endpoint(store, given)
    except CliError as error:
        raise CliError(f"unable to create docker endpoint config: {error.message}") from None


def _endpoint(store: ContextStore, given: dict[str, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    unknown = [f"unrecognized config key: {key}" for key in given if key not in _KEYS]
    if unknown:
        raise CliError("\n".join(unknown))
    if "from" in given:
        endpoint = store.get(given["from"])["Endpoints"].get(DOCKER)
        if not isinstance(endpoint, dict):
            raise CliError(f"unable to get endpoint from context {quote(given['from'])}")
        return endpoint, {}
    paths = {file: given[key] for file, key in zip(TLS_FILES, ("ca", "cert", "key"), strict=True) if given.get(key)}
    contents = {file: _content(path) for file, path in paths.items()}
    unverified = _bool("skip-tls-verify", given.get("skip-tls-verify"))
    host = given.get("host", "")
    try:
        tls_context(host, paths, unverified=unverified)
    except CliError as error:
        raise CliError(f"invalid docker endpoint options: {error.message}") from None
    return {**({"Host": host} if host else {}), "SkipTLSVerify": unverified}, contents


def _bool(key: str, text: str | None) -> bool:
    try:
        return text is not None and parse_bool(text)
    except ValueError:
        raise CliError(f"{key}: parsing {quote(text or '')}: invalid syntax") from None


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CliError(f"{'read' if os.path.isdir(path) else 'open'} {path}: {(error.strerror or '').lower()}") from None
