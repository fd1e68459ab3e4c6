"""Who a request comes from, and whether they may: Basic, or a Bearer token of ours."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import msgspec

from sampan.registry.access.brake import Brake
from sampan.registry.access.htpasswd import Htpasswd
from sampan.registry.access.rules import Rules, User
from sampan.registry.access.tokens import SCOPES_MAX, Grant, Tokens, parse_scope
from sampan.registry.errors import RegistryError
from sampan.registry.http import Answer, Request, source_of

log = logging.getLogger("sampan.registry")
KNOWN_SECONDS = 60.0
"""How long a password that was right need not be hashed again."""
KNOWN_MAX = 10_000
HASHING_THREADS = 2
HASHING_MAX = 64
"""Logins that wait for a thread."""
REFRESH_SECONDS = 30 * 86400
FORM_MAX = 64 * 1024
FIELDS_MAX = 100
TOKEN_PATH = "/token"


class Logins:
    """Checks passwords: not more at once than the machine bears, slower after failures, and remembers for a minute."""

    def __init__(self, users: Htpasswd, brake: Brake, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._users = users
        self._brake = brake
        self._sleep = sleep
        self._threads = ThreadPoolExecutor(HASHING_THREADS, "bcrypt")
        self._waiting = 0
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[tuple[str, bytes, int], float] = OrderedDict()
        self.failures = 0

    def mark(self, name: str) -> str:
        """Changes with the user's password, and is "" when there is no such user: what refresh tokens are good for."""
        self._users.refresh()
        return self._users.mark(name)

    async def check(self, name: str, password: str, remote: str) -> None:
        """Raises RegistryError UNAUTHORIZED, TOOMANYREQUESTS."""
        self._users.refresh()
        key = (name, hmac.digest(self._secret, password.encode(), hashlib.sha256), self._users.generation)
        if self._known.get(key, 0.0) > time.monotonic():
            return
        keys = (f"address {source_of(remote)}", f"user {name}")
        if self._brake.refuses(keys[0]) or self._waiting >= HASHING_MAX:
            raise RegistryError("TOOMANYREQUESTS", message="too many failed logins: try again later", headers={"Retry-After": "300"})
        self._waiting += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._threads, self._users.check, name, password)
        finally:
            self._waiting -= 1
        if not right:
            self.failures += 1
            log.warning("failed login of %r from %s", name[:100], remote)
            await self._sleep(self._brake.failed(*keys))
            raise RegistryError("UNAUTHORIZED", message="incorrect username or password")
        self._brake.succeeded(*keys)
        self._known[key] = time.monotonic() + KNOWN_SECONDS
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


class _TokenAnswer(msgspec.Struct, omit_defaults=True):
    """distribution spec/auth/token.md, oauth.md."""

    token: str
    access_token: str
    expires_in: int
    issued_at: str
    refresh_token: str = ""


class Access:
    """Decides about requests.

    logins=None: there are no users, the rules speak of everybody. url: ours, as clients see it; "": as they ask.
    """

    def __init__(self, rules: Rules, logins: Logins | None, tokens: Tokens, *, bearer: bool, url: str = "", service: str = "") -> None:
        self._rules = rules
        self.logins = logins
        self._tokens = tokens
        self._bearer = bearer
        self._url = url
        self._service = service

    async def admit(self, request: Request, action: str, name: str) -> None:
        """Fill in who the request comes from and what they may. action: "" is any (`GET /v2/`).

        Raises RegistryError UNAUTHORIZED with the challenge, DENIED, TOOMANYREQUESTS.
        """
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            if scheme.lower() == "bearer":
                request.user = self._bearer_of(value.strip())
            else:
                named = scheme.lower() == "basic" and self.logins is not None
                request.user = User(await self._basic(value, request.remote) if named else "", self._rules)
        except RegistryError as error:
            if error.code == "UNAUTHORIZED":
                error.headers.update(self._challenge(request, action, name))
            raise
        # `GET /v2/`: also where anonymous users may pull. Clients learn here, and only here, how to log in.
        refused = not request.user.may(action, name) if action else self.logins is not None and scheme.lower() not in ("basic", "bearer")
        if not refused:
            return
        if self.logins is not None and (not request.user.name or scheme.lower() == "bearer"):
            raise RegistryError("UNAUTHORIZED", self._detail(action, name), headers=self._challenge(request, action, name))
        raise RegistryError("DENIED", self._detail(action, name))

    def admit_to_mirror(self, request: Request, action: str, name: str) -> None:
        """Once more, for the name that a mirrored repository has here: `?ns=` and the default are not in the path.

        Raises RegistryError DENIED.
        """
        if not self._rules.allows(request.user.name, action, name):
            raise RegistryError("DENIED", self._detail(action, name))

    @staticmethod
    def _detail(action: str, name: str) -> object:
        return [{"Type": "repository", "Name": name, "Action": action}] if name else None

    async def _basic(self, value: str, remote: str) -> str:
        try:
            name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = name = password = ""
        if not colon or not name or self.logins is None:
            raise RegistryError("UNAUTHORIZED")
        await self.logins.check(name, password, remote)
        return name

    def _bearer_of(self, token: str) -> User:
        """Raises RegistryError UNAUTHORIZED."""
        claims = self._tokens.read(token)
        if claims is None:
            raise RegistryError("UNAUTHORIZED", message="the token is not valid, or has run out")
        return User(claims.sub, self._rules, frozenset((grant.name, action) for grant in claims.access for action in grant.actions))

    def _challenge(self, request: Request, action: str, name: str) -> dict[str, str]:
        if not self._bearer or not request.path.startswith("/v2"):  # what browsers understand
            return {"WWW-Authenticate": f'Basic realm="{self._service or "sampan"}"'}
        base = self._url or f"http{'s' if request.secure else ''}://{_quotable(request.host)}"
        text = f'Bearer realm="{base}{TOKEN_PATH}",service="{self._service or _quotable(request.host)}"'
        if action == "catalogue":
            text += ',scope="registry:catalog:*"'
        elif name:
            wanted = {"pull": "pull", "push": "pull,push", "delete": "pull,delete"}.get(action, action)
            text += f',scope="repository:{name}:{wanted}"'
        return {"WWW-Authenticate": text}

    async def token(self, request: Request) -> Answer:
        """`GET /token` (token.md) and `POST /token` (oauth.md). What is asked for and not allowed is left out. Raises RegistryError."""
        scopes, name, offline, refresh = request.query.get("scope", []), "", bool(request.one("offline_token")), ""
        if request.method == "POST":
            form = _form(await request.body.read(FORM_MAX))
            scopes = form.get("scope", [])
            offline = form.get("access_type") == ["offline"]
            if form.get("grant_type") == ["refresh_token"]:
                refresh = form.get("refresh_token", [""])[0]
                claims = self._tokens.read(refresh, "refresh")
                if claims is None or self.logins is None or claims.mark != self.logins.mark(claims.sub):
                    raise RegistryError("UNAUTHORIZED", message="the refresh token is not valid, or has run out")
                name = claims.sub
            elif self.logins is not None:
                name = form.get("username", [""])[0]
                await self.logins.check(name, form.get("password", [""])[0], request.remote)
        elif request.headers.get("Authorization", "").lower().startswith("basic "):
            name = await self._basic(request.headers["Authorization"].partition(" ")[2], request.remote)
        elif not self._rules.anonymous:
            raise RegistryError("UNAUTHORIZED", headers={"WWW-Authenticate": 'Basic realm="sampan"'})
        request.user = User(name, self._rules)
        grants = []
        for scope in [word for item in scopes for word in item.split()][:SCOPES_MAX]:
            wanted = parse_scope(scope)
            if wanted is not None and wanted.type == "repository":
                asked = ["pull", "push", "delete"] if "*" in wanted.actions else wanted.actions
                allowed = [action for action in asked if self._rules.allows(name, action, wanted.name)]
                grants.append(Grant(wanted.name, allowed))
        token = self._tokens.make(name, grants)
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        answer = _TokenAnswer(token, token, self._tokens.lifetime, issued)
        if name and self.logins is not None and (offline or refresh):
            mark = self.logins.mark(name)
            answer.refresh_token = refresh or self._tokens.make(name, [], use="refresh", lifetime=REFRESH_SECONDS, mark=mark)
        return Answer.json(msgspec.json.encode(answer), headers={"Cache-Control": "no-store"})


def _form(body: bytes) -> dict[str, list[str]]:
    """Raises RegistryError REQUEST_INVALID."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=FIELDS_MAX)
    except ValueError:
        raise RegistryError("REQUEST_INVALID", f"a form may have {FIELDS_MAX} fields") from None


def _quotable(host: str) -> str:
    """A Host header between quotes."""
    return "".join(letter for letter in host if letter.isalnum() or letter in ".-:[]_")
