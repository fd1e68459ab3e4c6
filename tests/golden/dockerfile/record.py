"""Record what a dockerd 28's classic builder makes of the Dockerfiles here: python -m tests.golden.dockerfile.record SOCKET

Rewrites the answers in docker28.jsonl and expansions28.jsonl. SOCKET: the path of its socket. Review the diff.
"""

import http.client
import io
import json
import socket
import sys
import tarfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEPT = (
    "Env",
    "Labels",
    "Cmd",
    "Entrypoint",
    "ExposedPorts",
    "Volumes",
    "User",
    "WorkingDir",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
)
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
    "set": "value", "empty": "", "path": "/usr/local/lib/x.tar.gz", "abc": "abcabc", "sp": "a b", "star": "a*b?c", "uni": "äöü",
    "bs": "a\\b", "q": "'", "A1": "one", "_u": "under", "nested": "value-x", "dollar": "a$b", "brace": "a}b", "slash": "a/b/c",
}  # fmt: skip
"""What expansions see."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _request(path: str, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = _Connection(path)
    try:
        connection.request(method, target, body, {"Content-Type": "application/x-tar"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def build(path: str, dockerfile: str) -> dict[str, Any]:
    """The answer: `error` and its status, or steps and the image's config; a stream that ends with an error has both."""
    data = dockerfile.encode("utf-8", "surrogateescape")
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    target = "/v1.50/build?version=1&rm=1&forcerm=1&dockerfile=Dockerfile&nocache=1"
    try:
        status, answer = _request(path, "POST", target, context.getvalue())
    except http.client.IncompleteRead:
        return {"panic": True}
    if status != 200:
        return {"status": status, "error": json.loads(answer)["message"]}
    messages = [json.loads(line) for line in answer.splitlines()]
    text = "".join(message.get("stream", "") for message in messages)
    result: dict[str, Any] = {"steps": [line for line in text.split("\n") if line.startswith("Step ")]}
    errors = [message["errorDetail"]["message"] for message in messages if "error" in message]
    if errors:
        return result | {"error": errors[0]}
    image = next(message["aux"]["ID"] for message in reversed(messages) if "aux" in message)
    config = json.loads(_request(path, "GET", f"/v1.50/images/{image}/json")[1])["Config"]
    _request(path, "DELETE", f"/v1.50/images/{image}?force=1")
    config["Env"] = [entry for entry in config.get("Env") or () if entry != PATH]
    return result | {"config": {key: config[key] for key in KEPT if config.get(key)}}


def expansion(path: str, word: str) -> dict[str, str]:
    """What ENV makes of a word."""
    assignments = " ".join(f'{name}="{value}"' if "'" in value else f"{name}='{value}'" for name, value in ENVIRONMENT.items())
    answer = build(path, f"FROM scratch\nENV {assignments}\nENV result {word}\n")
    if "error" in answer:
        return {"error": answer["error"]}
    return {"value": next(entry for entry in answer["config"]["Env"] if entry.startswith("result="))[7:]}


def rewrite(path: Path, key: str, ask: Any) -> None:
    """One file with new answers."""
    lines = []
    for line in path.read_text().splitlines():
        case = json.loads(line)
        kept = {name: case[name] for name in case if name in ("name", "dockerfile", "word", "why", "ours")}
        # a byte that is no UTF-8 is a lone surrogate here, which a file cannot hold as it is
        text = json.dumps(
            kept | {"docker28": ask(case[key])}, ensure_ascii=not case[key].isascii() and "\udc80" <= max(case[key]) <= "\udcff"
        )
        lines.append(text + "\n")
    path.write_text("".join(lines))


if __name__ == "__main__":
    rewrite(HERE / "docker28.jsonl", "dockerfile", lambda text: build(sys.argv[1], text))
    rewrite(HERE / "expansions28.jsonl", "word", lambda text: expansion(sys.argv[1], text))
