"""Named contexts, where and as docker keeps them: contexts/meta/ID/meta.json and contexts/tls/ID/ENDPOINT/FILE, ID the name's sha256.

What is written here docker reads, and the other way round. A context is there once its meta.json is: its TLS files come before it, and go
after it.
"""

from __future__ import annotations

import os

from sampan.cli import connect, fastjson
from sampan.cli.flags import quote
from sampan.cli.http import DEFAULT_HOST, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Any

    from sampan.cli.flags import Parsed
    from sampan.cli.http import Host

    Document = dict[str, Any]  # Name, Metadata, Endpoints
    Files = Mapping[str, Mapping[str, bytes]]  # endpoint -> name -> content

DOCKER = "docker"
DEFAULT = "default"
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
_META = "meta.json"
_MAX = 10 << 20
_IN_MEMORY = "<IN MEMORY>"


def check_name(name: str) -> None:
    """Raise CliError for what no context can be called."""
    if not name:
        raise CliError("context name cannot be empty")
    if name == DEFAULT:
        raise CliError('"default" is a reserved context name')
    first = name[0].isascii() and name[0].isalnum()
    if len(name) < 2 or not first or not all(char.isascii() and (char.isalnum() or char in "_.+-") for char in name):
        shape = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"
        raise CliError(f'context name {quote(name)} is invalid, names are validated against regexp "{shape}"')


class ContextStore:
    """The contexts of a configuration directory, and the one called default, which the options and the environment make."""

    def __init__(self, options: Parsed) -> None:
        self._options = options
        self._root = os.path.join(options.str("config"), "contexts")

    def places(self, name: str) -> tuple[str, str]:
        """Where a context's metadata and TLS files are."""
        if name == DEFAULT:
            return _IN_MEMORY, _IN_MEMORY
        import hashlib

        identity = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return os.path.join(self._root, "meta", identity), os.path.join(self._root, "tls", identity)

    def get(self, name: str) -> Document:
        """A context's document. Raises CliError."""
        if name == DEFAULT:
            return self._default()
        path = os.path.join(self.places(name)[0], _META)
        try:
            return _read(path)
        except FileNotFoundError:
            raise CliError(f"context {quote(name)}: context not found: open {path}: no such file or directory") from None
        except (OSError, ValueError) as error:
            raise CliError(f"context {quote(name)}: {_problem(error, path)}") from None

    def exists(self, name: str) -> bool:
        """Whether there is such a context."""
        return name == DEFAULT or os.path.exists(os.path.join(self.places(name)[0], _META))

    def check_new(self, name: str) -> None:
        """Raise CliError for a name that cannot be given to a new context."""
        check_name(name)
        if self.exists(name):
            raise CliError(f"context {quote(name)} already exists")

    def all(self) -> list[Document]:
        """Every context, the default one last. Raises CliError for one that cannot be read."""
        found: list[Document] = []
        root = os.path.join(self._root, "meta")
        for name in sorted(os.listdir(root)) if os.path.isdir(root) else ():
            path = os.path.join(root, name, _META)
            try:
                found.append(_read(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise CliError(f"failed to read metadata: {_problem(error, path)}") from None
        return [*found, self._default()]

    def _default(self) -> Document:
        options = self._options
        # TLS without --tlsverify verifies nothing
        unverified = connect.uses_tls(options) and not options.bool("tlsverify")
        endpoint = {"Host": connect.make_host(connect.default_host(options), None).text, "SkipTLSVerify": unverified}
        return {"Name": DEFAULT, "Metadata": {}, "Endpoints": {DOCKER: endpoint}}

    def tls_files(self, name: str) -> dict[str, list[str]]:
        """The names of a context's TLS files, by endpoint."""
        if name == DEFAULT:
            return {DOCKER: list(self._default_files())} if connect.uses_tls(self._options) else {}
        directory = self.places(name)[1]
        if not os.path.isdir(directory):
            return {}
        ends = [entry.name for entry in os.scandir(directory) if entry.is_dir()]
        return {end: sorted(entry.name for entry in os.scandir(os.path.join(directory, end)) if not entry.is_dir()) for end in sorted(ends)}

    def tls_path(self, name: str, endpoint: str, file: str) -> str:
        """Where a TLS file is."""
        return self._default_files()[file] if name == DEFAULT else os.path.join(self.places(name)[1], endpoint, file)

    def _default_files(self) -> dict[str, str]:
        given = zip(TLS_FILES, ("tlscacert", "tlscert", "tlskey"), strict=True)
        return {file: self._options.str(option) for file, option in given if os.path.exists(self._options.str(option))}

    def save(self, document: Document, files: Files | None) -> None:
        """Write a context; `files` are all the TLS files of the endpoints that it names, None leaves them. Raises CliError."""
        import shutil

        from sampan.cli.format import gojson, schema

        meta, tls = self.places(document["Name"])
        text = gojson.dumps(schema.decode("store.Metadata", document), html=True)
        try:
            if not self.exists(document["Name"]):
                shutil.rmtree(tls, ignore_errors=True)  # what a removal that was cut short has left
            for endpoint, contents in (files or {}).items():
                _write_files(os.path.join(tls, endpoint), contents)
            os.makedirs(meta, 0o755, exist_ok=True)
            _write(os.path.join(meta, _META), text.encode(), 0o644)
        except OSError as error:
            raise CliError(f"open {error.filename}: {(error.strerror or str(error)).lower()}") from None

    def remove(self, name: str) -> None:
        """Forget a context. Raises CliError."""
        import shutil

        meta, tls = self.places(name)
        for what, path in (("metadata", meta), ("TLS data", tls)):
            try:
                shutil.rmtree(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                reason = f"unlinkat {error.filename}: {(error.strerror or str(error)).lower()}"
                raise CliError(f"failed to remove context {name}: failed to remove {what}: {reason}") from None


def _read(path: str) -> Document:
    """Raises OSError, and ValueError for what is no context."""
    with open(path, "rb") as file:
        raw = fastjson.loads(file.read(_MAX))
    if not isinstance(raw, dict):
        raise ValueError("json: cannot unmarshal into Go value of type store.untypedContextMetadata")
    fields = {key.lower(): value for key, value in raw.items()}
    metadata, endpoints = fields.get("metadata"), fields.get("endpoints") or {}
    if not isinstance(endpoints, dict) or not isinstance(metadata, dict | None):
        raise ValueError("json: cannot unmarshal into Go struct field untypedContextMetadata")
    return {"Name": str(fields.get("name") or ""), "Metadata": metadata, "Endpoints": dict(map(_endpoint, endpoints, endpoints.values()))}


def _endpoint(name: str, value: Any) -> tuple[str, Any]:
    if name != DOCKER or not isinstance(value, dict):
        return name, value
    fields = {key.lower(): one for key, one in value.items()}
    host = str(fields.get("host") or "")
    return name, {**({"Host": host} if host else {}), "SkipTLSVerify": bool(fields.get("skiptlsverify"))}


def _problem(error: Exception, path: str) -> str:
    return f"open {path}: {(error.strerror or '').lower()}" if isinstance(error, OSError) else f"parsing {path}: {error}"


def _write(path: str, content: bytes, mode: int) -> None:
    from sampan.cli.replacing import replaced, write_all

    with replaced(path, mode) as file:
        write_all(file, content)


def _write_files(directory: str, contents: Mapping[str, bytes]) -> None:
    import shutil

    if os.path.isdir(directory):
        shutil.rmtree(directory)
    if contents:
        _private_directory(directory, 3)
    for name, content in contents.items():
        _write(os.path.join(directory, name), content, 0o600)


def _private_directory(path: str, own: int) -> None:
    """Make a directory; it and its nearest parents, `own` in all, are nobody else's to read."""
    parent = os.path.dirname(path)
    if own > 1:
        _private_directory(parent, own - 1)
    else:
        os.makedirs(parent, 0o755, exist_ok=True)
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)


def description_of(document: Document) -> str:
    """What a context says of itself."""
    if document["Name"] == DEFAULT:
        return "Current DOCKER_HOST based configuration"
    text = (document["Metadata"] or {}).get("Description")
    return text if isinstance(text, str) else ""


def host_of(options: Parsed, name: str) -> Host:
    """Where a context's daemon is. Raises CliError."""
    store = ContextStore(options)
    failed = "Failed to initialize: unable to resolve docker endpoint: "
    try:
        endpoint = store.get(name)["Endpoints"].get(DOCKER)
        if not isinstance(endpoint, dict):
            raise CliError("cannot find docker endpoint in context")
        host = endpoint.get("Host") or DEFAULT_HOST
        paths = {file: store.tls_path(name, DOCKER, file) for file in store.tls_files(name).get(DOCKER, ())}
        context = tls_context(host, paths, unverified=endpoint["SkipTLSVerify"])
    except CliError as error:
        raise CliError(failed + error.message) from None
    return connect.make_host(host, context)


def tls_context(host: str, paths: Mapping[str, str], *, unverified: bool) -> ssl.SSLContext | None:
    """TLS as a context's files (names of TLS_FILES -> paths) describe it; None for hosts without it. Raises CliError."""
    if host.startswith(("unix://", "npipe://", "fd://", "ssh://")) or not (paths or unverified):
        return None
    import ssl

    context = ssl.create_default_context()
    if unverified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if "ca.pem" in paths:
            context.load_verify_locations(paths["ca.pem"])
    except OSError:
        raise CliError("failed to retrieve context tls info: ca.pem seems invalid") from None
    try:
        if "cert.pem" in paths and "key.pem" in paths:
            context.load_cert_chain(paths["cert.pem"], paths["key.pem"], password=_no_password)
    except (OSError, ValueError) as error:
        raise CliError(f"failed to retrieve context tls info: {error}") from None
    return context


def _no_password() -> str:
    raise ValueError("private key is encrypted")
