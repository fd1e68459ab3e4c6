"""Who we are to a registry: Basic, and tokens (distribution spec/auth/token.md, oauth.md). One Authorizer for each registry host."""

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from sampan.distribution.endpoints import Endpoint
from sampan.distribution.transport import (
    CONNECT_SECONDS,
    MIRROR_CONNECT_SECONDS,
    MIRROR_READ_SECONDS,
    READ_SECONDS,
    Transport,
    Unreachable,
)
from sampan.errors import EngineError, InvalidArgument, SystemFailure
from sampan.registryhosts import is_insecure
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_documents import decode

CLIENT_ID = "docker"
TOKEN_SECONDS = 60
"""How long a token lives whose server does not say (token.md, expires_in)."""
TOKEN_SECONDS_MAX = 86400
MARGIN_SECONDS = 10
DOCUMENT_MAX = 1 << 20


class WrongCredentials(SystemFailure):
    """The token server does not know us. No 401 of ours, at which the docker client would ask for a login of docker.io."""


class Challenge(NamedTuple):
    """One way to authenticate that a registry offers: the scheme in lower case, its parameters."""

    scheme: str
    parameters: dict[str, str]


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: int = TOKEN_SECONDS
    refresh_token: str = ""


def parse_challenges(header: str) -> list[Challenge]:
    """WWW-Authenticate (RFC 9110 §11.6.1). What cannot be read is left out."""
    found: list[Challenge] = []
    rest = header.strip()
    while rest:
        word, _, after = rest.partition(" ")
        if "=" not in word:
            found.append(Challenge(word.rstrip(",").lower(), {}))
            rest = after.lstrip(" ,")
            continue
        name, _, value = rest.partition("=")
        if value.startswith('"'):
            text, rest = _quoted(value)
        else:
            text, _, rest = value.partition(",")
        if found:
            found[-1].parameters[name.strip().lower()] = text.strip()
        rest = rest.lstrip(" ,")
    return found


def _quoted(text: str) -> tuple[str, str]:
    """A quoted string at the start, without its quotes and escapes; and what follows."""
    out, at = [], 1
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\"
        out.append(text[at : at + 1])
        at += 1
    return "".join(out), text[at + 1 :]


def basic(credentials: AuthConfig) -> str:
    """An Authorization header of a user name and password."""
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()


class Authorizer:
    """Gives requests to an endpoint their Authorization header, and learns from refusals what the registry wants."""

    def __init__(self, transport: Transport, credentials: AuthConfig, endpoint: Endpoint, *, offline: bool = False) -> None:
        """offline: ask for a token that lasts (login)."""
        self._transport = transport
        self._credentials = credentials
        self._endpoint = endpoint
        self._challenge: Challenge | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        """Scope → token, and until when it is good (monotonic)."""
        self._asking: dict[str, asyncio.Lock] = {}
        self._failed: dict[str, tuple[float, EngineError]] = {}
        """Scope → when a token was last asked for in vain (monotonic), and why."""
        self._offline = offline
        self.refresh_token = ""
        """What the token server gave for later, if it was asked for it."""

    async def headers(self, scope: str) -> dict[str, str]:
        """For a request that needs scope: `repository:library/busybox:pull`, several with blanks between them.

        Raises SystemFailure: the token server refuses; InvalidArgument: the user's own token is none.
        """
        if self._credentials.registrytoken:
            if not _is_token(self._credentials.registrytoken):
                raise InvalidArgument("the registry token has characters that no token can have")
            return {"Authorization": f"Bearer {self._credentials.registrytoken}"}
        if self._challenge is None:
            return {}
        if self._challenge.scheme == "basic":
            return {"Authorization": self._basic()} if self._credentials.username else {}
        return {"Authorization": f"Bearer {await self._token(self._challenge, scope)}"}

    async def _token(self, challenge: Challenge, scope: str) -> str:
        """One that is still good. Who wants the same at once waits for one question, and shares its failure."""
        began = time.monotonic()
        async with self._asking.setdefault(scope, asyncio.Lock()):
            token, until = self._tokens.get(scope, ("", 0.0))
            if time.monotonic() < until:
                return token
            failed, error = self._failed.get(scope, (began, None))
            if error is not None and failed > began:
                raise error
            try:
                return await self._fetch_token(challenge, scope)
            except EngineError as error:
                self._failed[scope] = (time.monotonic(), error)
                raise

    def learn(self, header: str, scope: str, sent: str) -> bool:
        """Take in the WWW-Authenticate header of a 401 for scope; whether another try makes sense.

        sent: the Authorization header that was refused, or "".
        """
        offered = {challenge.scheme: challenge for challenge in parse_challenges(header)}
        chosen = offered.get("bearer") or offered.get("basic")
        if chosen is None:
            return False
        self._challenge = chosen
        if sent and self._credentials.registrytoken:
            return False
        if chosen.scheme == "basic":
            return bool(self._credentials.username) and sent != self._basic()
        # of several requests with one old token the first is refused, then the others: a token fetched meanwhile stays
        if sent == f"Bearer {self._tokens.get(scope, ('', 0.0))[0]}":
            self._tokens.pop(scope, None)
        return True

    @property
    def wants_login(self) -> bool:
        """Whether the registry wants a user name and we have none."""
        return self._challenge is not None and self._challenge.scheme == "basic" and not self._credentials.username

    def _basic(self) -> str:
        return basic(self._credentials)

    def _check_realm(self, realm: str) -> None:
        """Refuse a token server that cannot be asked, or to whom the password would go in the clear. Raises SystemFailure."""
        try:
            scheme, host = urlsplit(realm)[:2]
        except ValueError:
            scheme = host = ""
        if scheme not in ("http", "https") or not host:
            raise SystemFailure(f"the registry names no usable token server: realm {realm!r}")
        if scheme == "http" and self._endpoint.url.startswith("https:") and not (self._endpoint.insecure and self._is_insecure(realm)):
            raise SystemFailure(
                f"the registry {self._endpoint.url} names a token server without TLS ({realm}): credentials are not sent there "
                "unless both are of insecure-registries"
            )

    def _is_insecure(self, realm: str) -> bool:
        """Whether a token server may have any certificate: the registry's own host as the registry may, others by their name."""
        there = urlsplit(realm)
        if there.hostname == urlsplit(self._endpoint.url).hostname:
            return self._endpoint.insecure
        return is_insecure(there.netloc, self._endpoint.insecure_registries)

    async def _fetch_token(self, challenge: Challenge, scope: str) -> str:
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        self._check_realm(realm)
        insecure, patience, connect = self._is_insecure(realm), READ_SECONDS, CONNECT_SECONDS
        if self._endpoint.mirror:
            patience, connect = MIRROR_READ_SECONDS, MIRROR_CONNECT_SECONDS
        if self._credentials.identitytoken:
            form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": self._credentials.identitytoken}
            data = _query([*form.items(), ("service", service), *([("scope", scope)] if scope else [])]).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            request = self._transport.request(
                "POST",
                realm,
                data=data,
                headers=kind,
                home=self._endpoint.url,
                insecure=insecure,
                redirects=False,
                patience=patience,
                connect=connect,
            )
        else:
            fields = [("service", service), *(("scope", item) for item in scope.split())]
            if self._offline:
                fields += [("offline_token", "true"), ("client_id", CLIENT_ID)]
            if self._credentials.username:
                fields.insert(0, ("account", self._credentials.username))
            headers = {"Authorization": self._basic()} if self._credentials.username else {}
            url = realm + ("&" if "?" in realm else "?") + _query(fields)
            request = self._transport.request(
                "GET", url, headers=headers, home=self._endpoint.url, insecure=insecure, patience=patience, connect=connect
            )
        async with request as answer:
            body = await answer.read(DOCUMENT_MAX)
            if answer.status == 401:
                wrong = "incorrect username or password" if self._credentials.username else "authentication required"
                raise WrongCredentials(f'Get "{answer.url}": unauthorized: {wrong}')
            if answer.status != 200:
                # a server that is down takes its registry with it: a mirror is set aside, a registry asked again
                kind_of = Unreachable if answer.status >= 500 else SystemFailure
                raise kind_of(f'Get "{answer.url}": unexpected status from token server: {answer.status}')
        try:
            token = decode(body, _Token, "the token server's answer cannot be read")
        except InvalidArgument as error:
            raise SystemFailure(error.message) from error
        text = token.token or token.access_token
        if not text:
            raise SystemFailure("authorization server did not include a token in the response")
        if not _is_token(text):
            raise SystemFailure("the token server's token has characters that no token can have")
        self.refresh_token = token.refresh_token
        seconds = min(max(token.expires_in, TOKEN_SECONDS), TOKEN_SECONDS_MAX)
        self._tokens[scope] = (text, time.monotonic() + seconds - MARGIN_SECONDS)
        return text


def _query(fields: Sequence[tuple[str, str]]) -> str:
    """A query or a form. What the registry's header says goes back as the bytes it was."""
    return urlencode(fields, errors="surrogateescape")


def _is_token(text: str) -> bool:
    """Whether text can stand in a header (RFC 6750 §2.1, generously)."""
    return text.isascii() and text.isprintable() and " " not in text
