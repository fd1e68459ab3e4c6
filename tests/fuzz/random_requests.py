"""Seeded random requests: bad JSON, types, sizes, paths, framing; mostly well-framed."""

import json
import random
import re

from sampan.api.app import ROUTES
from sampan.spec.docker_api.container import CreateRequest, HostConfig

NAMES = ["c", "busybox", "nope", "bridge", "a" * 300, "..", "%2e%2e", "%00", "%ff", "x%2Fy", "a b", "é", "%0a", "{id}", "-1", "'\""]
VALUES = [
    "",
    "0",
    "1",
    "true",
    "-1",
    "99999999999999999999",
    "1.5",
    "x",
    "all",
    "%7B%7D",
    "%7B%22a%22:1%7D",
    "[",
    "%00",
    "bad%zz",
    "1e9",
    "é",
]
QUERY = [
    "all",
    "limit",
    "size",
    "filters",
    "name",
    "t",
    "signal",
    "h",
    "w",
    "stdout",
    "stderr",
    "stdin",
    "since",
    "until",
    "tail",
    "condition",
    "force",
    "v",
    "platform",
    "fromSrc",
    "fromImage",
    "repo",
    "tag",
    "ps_args",
    "logs",
    "stream",
    "detachKeys",
]
KEYS = [*CreateRequest.__struct_encode_fields__, *HostConfig.__struct_encode_fields__, "Cmd", "Detach", "Tty", "", "é", "nope"]
TYPES = ["application/json", "application/json", "application/json", "text/plain", "", "application/json; charset=utf-8", "\xff"]


def value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return None
    if kind == 1:
        return rng.choice([0, -1, 1 << 63, 10**30, 1.5, 1e300])
    if kind == 2:
        return rng.random() < 0.5
    if kind in (3, 4, 5):
        return rng.choice(["", "busybox", "a" * 100, "\0", "80/tcp", "\ud800"])
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(6))}


def body(rng: random.Random) -> bytes:
    kind = rng.randrange(12)
    if kind == 0:
        return b""
    if kind == 1:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(50)))
    if kind == 2:
        return b"[" * rng.choice([10, 300, 100_000])
    if kind == 3:
        return b'{"Image":"' + b"x" * rng.choice([10, 100_000]) + b'"}'
    if kind == 4:
        return b'{"Memory":' + b"9" * rng.choice([10, 6000]) + b"}"
    good = {"Image": rng.choice(["busybox", "busybox", "\ud800", "é"])} if rng.random() < 0.4 else {}
    text = json.dumps(good | {rng.choice(KEYS): value(rng) for _ in range(rng.randrange(5))}).encode()
    return text[: rng.randrange(len(text))] if kind == 5 else text


def random_request(rng: random.Random) -> bytes:
    """One request, mostly well-framed."""
    route = rng.choice(ROUTES)
    path = route.path
    for name in ("{id}", "{name:.*}", "{id:.*}", "{checkpoint}"):
        path = path.replace(name, rng.choice(NAMES))
    if rng.random() < 0.3:
        path = f"/v{rng.choice(['1.24', '1.30', '1.41', '1.44', '1.51', '1.52', '0', '9' * 5000, '1.', '.', '1.1.1'])}{path}"
    if rng.random() < 0.05:
        path = rng.choice(["/", "//", "*", "/" + "a/" * 500, path + "/", "http://x" + path, path[1:], "/%"])
    query = "&".join(f"{rng.choice(QUERY)}={rng.choice(VALUES)}" for _ in range(rng.randrange(4)))
    method = route.method if rng.random() < 0.9 else rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "BREW"])
    payload = body(rng) if method in ("POST", "PUT") or rng.random() < 0.1 else b""
    headers = f"Host: d\r\nContent-Type: {rng.choice(TYPES)}\r\n"
    if rng.random() < 0.1:
        headers += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    if rng.random() < 0.05:
        headers += rng.choice(
            ["Expect: 100-continue\r\n", "X: \x01\r\n", "Content-Length: 7\r\n", "Transfer-Encoding: x\r\n", " fold\r\n", ": v\r\n"]
        )
    if rng.random() < 0.2:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(payload), payload) if payload else b"0\r\n\r\n"
        headers += "Transfer-Encoding: chunked\r\n"
    else:
        framed = payload
        headers += f"Content-Length: {len(payload)}\r\n"
    target = path + (f"?{query}" if query else "")
    return f"{method} {target} HTTP/1.1\r\n{headers}\r\n".encode("utf-8", "replace") + framed


_DOCKERS = re.compile(rb"(POST|GET) (http://\w+)?(/v[\d.]+)?/(build|containers/create|containers/[^/ ]+/top)[ ?]")
_WORDS = re.compile(rb'\{"message":"(bad nameserver address |Cannot restart container \w+: (?![A-Z]\w*: ))')
"""Of a start, for which dockerd has 500 too, and of a restart whose start fails, whatever the reason."""
_EXCEPTION = re.compile(rb'\{"message":"[A-Z]\w*(Error|Exception|Exit|Interrupt)?: ')


def is_dockers(data: bytes, got: bytes) -> bool:
    """Whether a 500 is dockerd's own status: wrong contexts of builds, storage options, what ps refuses, name servers.

    An exception of ours shows its type.
    """
    dockers = _DOCKERS.match(data) is not None or _WORDS.search(got) is not None
    return got.split(b" ", 2)[1] == b"500" and dockers and _EXCEPTION.search(got) is None
