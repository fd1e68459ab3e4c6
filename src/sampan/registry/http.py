"""Requests and answers as the handlers see them: no HTTP library in here. server.py makes the ones and sends the others."""

import ipaddress
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sampan.registry.access.rules import User
from sampan.registry.errors import RegistryError
from sampan.registry.storage import Stored

JSON = "application/json"
IPV6_NETWORK = 64
"""Bits. Whoever has one address of it has all (RFC 6177)."""


def source_of(address: str) -> str:
    """What is counted as one client: an address of IPv4, a network of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network((int(found), IPV6_NETWORK), strict=False))


class Body(Protocol):
    """A request's body as it arrives."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Raises ConnectionError when the client is gone."""

    received: int
    """Bytes, so far."""

    async def read(self, limit: int) -> bytes:
        """All of it. Raises RegistryError TOOLARGE."""


@dataclass
class Request:
    """One request."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in any case."""
    body: Body
    remote: str = ""
    host: str = ""
    secure: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    """The path's parts by name."""
    user: User = field(default_factory=User)
    """Without rules until access.py has looked: nobody, who may nothing."""
    route: str = "none"
    """The name of the path's kind, for metrics."""

    def one(self, name: str, default: str = "") -> str:
        """A value of the query, the first."""
        return self.query.get(name, [default])[0]

    @property
    def name(self) -> str:
        """The repository's."""
        return self.variables["name"]


class ByteRange(NamedTuple):
    """A range of something stored."""

    content: Stored
    start: int
    length: int


@dataclass
class Answer:
    """What is sent. body: bytes, a part of something stored, or pieces (headers has a Content-Length then, if it is known)."""

    status: int = 200
    body: bytes | ByteRange | AsyncIterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = JSON) -> "Answer":
        """A JSON document."""
        return cls(status, content, {"Content-Type": kind, **(headers or {})})

    @classmethod
    def failure(cls, error: RegistryError) -> "Answer":
        """That to an error."""
        return cls.json(error.document(), error.status, error.headers)
