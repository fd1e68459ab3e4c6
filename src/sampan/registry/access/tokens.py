"""Bearer tokens: what a user may do, signed by us, for us (distribution spec/auth/token.md). JSON Web Tokens with HMAC-SHA256."""

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
KEY_BYTES = 32
SCOPES_MAX = 64
TOKEN_MAX = 32 * 1024


class Grant(msgspec.Struct, frozen=True):
    """What a token lets one do in a repository."""

    name: str
    actions: list[str]
    type: str = "repository"


class Claims(msgspec.Struct, frozen=True):
    """A token's content. use: `access`, or `refresh`: it is good for others only."""

    sub: str
    exp: int
    use: str = "access"
    access: list[Grant] = []
    mark: str = ""
    """Of the user's password, in a refresh token."""


def parse_scope(text: str) -> Grant | None:
    """`repository:library/busybox:pull,push`; None for what is no scope."""
    kind, _, rest = text.partition(":")
    name, _, actions = rest.rpartition(":")
    kind = kind.partition("(")[0]  # `repository(plugin)`
    if kind not in ("repository", "registry") or not name:
        return None
    return Grant(name, [action for action in actions.split(",") if action], kind)


def key_in(path: Path) -> bytes:
    """The secret that signs: made at the first start, so that tokens outlive the next one. Raises OSError."""
    try:
        key = path.read_bytes()
        if len(key) >= KEY_BYTES:
            return key
    except FileNotFoundError:
        pass
    key = secrets.token_bytes(KEY_BYTES)
    temporary = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, key)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    return key


class Tokens:
    """Makes and reads them. lifetime: seconds."""

    def __init__(self, key: bytes, lifetime: int, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self.lifetime = lifetime
        self._now = now

    def _signature(self, text: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(self._key, text.encode(), hashlib.sha256)).rstrip(b"=").decode()

    def make(self, user: str, access: list[Grant], *, use: str = "access", lifetime: int = 0, mark: str = "") -> str:
        """A token. lifetime: seconds, when it is not the usual one."""
        claims = Claims(user, int(self._now()) + (lifetime or self.lifetime), use, access, mark)
        payload = base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
        return f"{_HEADER}.{payload}.{self._signature(f'{_HEADER}.{payload}')}"

    def read(self, token: str, use: str = "access") -> Claims | None:
        """None: it is not ours, has run out, or is for another use."""
        body, _, signature = token.rpartition(".")
        if len(token) > TOKEN_MAX or not token.isascii() or not hmac.compare_digest(signature, self._signature(body)):
            return None
        payload = body.partition(".")[2]
        try:
            claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Claims)
        except (ValueError, msgspec.DecodeError):
            return None
        return claims if claims.use == use and claims.exp > self._now() else None
