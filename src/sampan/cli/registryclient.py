"""A registry as the client itself asks it (`manifest`): manifests, small blobs, mounts; with the user's credentials and their tokens."""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from hashlib import sha256
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from sampan.cli import credentials, fastjson
from sampan.cli.http import CliError
from sampan.errors import EngineError, printable
from sampan.registryhosts import tls_context

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from sampan.cli.main import Context
    from sampan.reference import Reference

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_HUB = "registry-1.docker.io"
_SECONDS = 30.0
_MAX = 8 << 20
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class NoSuchManifest(CliError):
    """The registry has none of that name, or is none."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(f"no such manifest: {reference.canonical}")


class RegistryClient:
    """The registry of one domain. insecure: no certificate is checked, and plain HTTP will do."""

    def __init__(self, ctx: Context, domain: str, *, insecure: bool) -> None:
        self._auth = credentials.load(ctx, credentials.server_of(domain))
        self._host = _HUB if domain == "docker.io" else domain
        self._insecure = insecure
        self._scheme = "https"
        self._authorization = ""
        self._opener: urllib.request.OpenerDirector | None = None

    def manifest(self, reference: Reference) -> tuple[str, bytes]:
        """Media type and content, of a digest if the reference has one. Raises NoSuchManifest, CliError."""
        accept = ", ".join((DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX))
        target = f"{reference.path}/manifests/{reference.digest or reference.tag}"
        try:
            with self._ask("GET", target, {"Accept": accept}) as answer:
                raw: bytes = answer.read(_MAX)
                media_type: str = answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            refused = _failed(error)
            raise (NoSuchManifest(reference) if error.code == 404 else refused) from None
        except _NotTls:
            raise NoSuchManifest(reference) from None
        if reference.digest and reference.digest.startswith("sha256:") and digest_of(raw) != reference.digest:
            raise CliError(f"manifest verification failed for digest {reference.digest}")
        return media_type, raw

    def blob(self, path: str, digest: str) -> bytes:
        """A small blob. Raises CliError."""
        with self._checked("GET", f"{path}/blobs/{digest}") as answer:
            raw: bytes = answer.read(_MAX)
        if digest_of(raw) != digest:
            raise CliError(f"the registry's blob {digest} has another content")
        return raw

    def mount(self, path: str, digest: str, source: str) -> bool:
        """Make another repository's blob one of `path` too; whether the registry has done so. Raises CliError."""
        query = urlencode({"mount": digest, "from": source}, safe=":/")
        with self._checked("POST", f"{path}/blobs/uploads/?{query}", body=b"", source=source) as answer:
            mounted: bool = answer.status == 201
            upload = "" if mounted else answer.headers.get("Location") or ""
        if upload:  # has begun instead
            self._checked("DELETE", urljoin(answer.url, upload)).close()
        return mounted

    def put(self, path: str, tag_or_digest: str, media_type: str, content: bytes) -> str:
        """Store a manifest; its digest. Raises CliError."""
        with self._checked("PUT", f"{path}/manifests/{tag_or_digest}", {"Content-Type": media_type}, content) as answer:
            return printable(answer.headers.get("Docker-Content-Digest") or digest_of(content))

    def _checked(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None, source: str = ""
    ) -> HTTPResponse:
        try:
            return self._ask(method, target, headers or {}, body, source)
        except urllib.error.HTTPError as error:
            raise _failed(error) from None
        except _NotTls:
            raise CliError(f"{self._host} does not speak TLS: --insecure allows that") from None

    def _ask(self, method: str, target: str, headers: dict[str, str], body: bytes | None = None, source: str = "") -> HTTPResponse:
        """Raises HTTPError, _NotTls, CliError."""
        try:
            return self._send(method, target, headers, body)
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.code != 401 or not challenge:
                raise
            error.close()
            self._authorization = self._authorize(challenge, method, source)
            return self._send(method, target, headers, body)

    def _send(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> HTTPResponse:
        url = target if "://" in target else f"{self._scheme}://{self._host}/v2/{target}"
        request = urllib.request.Request(url, body, {"User-Agent": "Docker-Client/28.2.2 (linux; sampan)", **headers}, method=method)
        if self._authorization and urlsplit(url).netloc == self._host:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            return self._open(request)
        except _NotTls:
            if not self._insecure:
                raise
            self._scheme = "http"
            return self._send(method, target, headers, body)

    def _open(self, request: urllib.request.Request) -> HTTPResponse:
        try:
            if self._opener is None:
                context = tls_context(self._host, insecure=self._insecure, client=True)
                self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
            answer: HTTPResponse = self._opener.open(request, timeout=_SECONDS)
            return answer
        except urllib.error.HTTPError:
            raise
        except EngineError as error:
            raise CliError(error.message) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError) and reason.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
                raise _NotTls from None
            words = getattr(reason, "verify_message", "") or getattr(reason, "strerror", None) or str(reason)
            raise CliError(f'{request.get_method()} "{request.full_url}": {printable(words.lower())}') from None

    def _authorize(self, challenge: str, method: str, source: str) -> str:
        """The header that a challenge asks for. Raises HTTPError, CliError."""
        if challenge.lower().startswith("basic"):
            return self._basic()
        given = dict(_PARAMETER.findall(challenge))
        realm = given.get("realm", "")
        if urlsplit(realm).scheme not in ("http", "https"):
            raise CliError("the registry names no usable token server")
        scopes = [given.get("scope", ""), *([f"repository:{source}:pull"] if source else [])]
        query = [("service", given.get("service", "")), *(("scope", scope) for scope in scopes if scope)]
        if self._auth.get("identitytoken"):
            form = [("grant_type", "refresh_token"), ("refresh_token", self._auth["identitytoken"]), ("client_id", "docker"), *query]
            request = urllib.request.Request(realm, urlencode(form).encode())
        else:
            request = urllib.request.Request(f"{realm}?{urlencode(query)}")
            if self._auth.get("username"):
                request.add_unredirected_header("Authorization", self._basic())
        try:
            with self._open(request) as answer:
                found = fastjson.loads(answer.read(_MAX))
        except (ValueError, _NotTls):
            found = None
        token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
        if not isinstance(token, str) or not token.isprintable():
            raise CliError("the token server's answer cannot be read")
        return f"Bearer {token}"

    def _basic(self) -> str:
        pair = f"{self._auth.get('username', '')}:{self._auth.get('password', '')}"
        return "Basic " + b64encode(pair.encode()).decode()


class _NotTls(Exception):
    """The other side does not speak TLS."""


def digest_of(content: bytes) -> str:
    """The content's digest."""
    return f"sha256:{sha256(content).hexdigest()}"


def _failed(error: urllib.error.HTTPError) -> CliError:
    """A registry's refusal in its own words, if it has some; the answer is done with."""
    try:
        with error:
            first = fastjson.loads(error.read(_MAX))["errors"][0]
        code, message = str(first["code"]), str(first.get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, OSError, AttributeError):
        return CliError(printable(f"unexpected HTTP status: {error.code} {error.reason}"))
    return CliError(printable(f"{code.lower().replace('_', ' ')}: {message}".removesuffix(": ")))
