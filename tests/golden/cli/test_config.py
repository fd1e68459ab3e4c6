"""config.json: what it sets is what docker's client makes of it, against the stub daemon."""

import json
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.golden.cli.stub import Handler, Stub
from tests.support.engine import CLI

CONFIG = {
    "psFormat": "{{.ID}}|{{.Names}}",
    "imagesFormat": "table {{.Repository}}\t{{.ID}}",
    "networksFormat": "{{.Name}}",
    "volumesFormat": "{{json .}}",
    "pluginsFormat": "{{.Name}}",
    "statsFormat": "{{.Name}}",
    "pruneFilters": ["until=24h", "bad"],
    "detachKeys": "ctrl-x",
    "HttpHeaders": {"X-Meta": "v", "User-Agent": "nothing"},
    "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "a", "allProxy": "z"}},
}
COMMANDS = [
    ["ps"],
    ["ps", "-q"],
    ["ps", "--format", "table {{.ID}}"],
    ["images"],
    ["network", "ls"],
    ["network", "ls", "-q"],
    ["volume", "ls"],
    ["plugin", "ls"],
    ["stats", "--no-stream", "c-one"],
    ["exec", "c-one", "x"],
    ["create", "busybox"],
    ["container", "prune", "-f", "--filter", "until=1h"],
    ["volume", "prune", "-a"],
    ["volume", "prune", "-a", "--filter", "all=1"],
    ["container", "prune"],
    ["network", "prune"],
    ["image", "prune"],
    ["image", "prune", "-a"],
    ["volume", "prune"],
    ["builder", "prune"],
    ["builder", "prune", "-a"],
    ["system", "prune"],
    ["system", "prune", "-a", "--volumes", "--filter", "label=x"],
    ["system", "prune", "-a", "-f", "--filter", "label=x", "--filter", "until=2h"],
]


class Heard(Handler):
    """The stub, with what it hears besides."""

    def parse_request(self) -> bool:
        """Note the headers that come from the configuration."""
        good = super().parse_request()
        if good:
            agents = self.headers.get_all("User-Agent") or []
            self.server.log.append([self.headers.get("X-Meta"), len(agents), "nothing" in agents])  # type: ignore[attr-defined]
        return good


def seen(client: Sequence[str], words: list[str], folder: Path, server: Stub) -> list[Any]:
    """What a client asks and prints."""
    server.log.clear()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOCKER_CONFIG": str(folder), "DOCKER_API_VERSION": "1.50"}
    environment["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    done = subprocess.run([*client, *words], input=b"y\n", capture_output=True, env=environment, timeout=30, check=False)
    asked = [[*rest, decoded(body)] for *rest, body in server.log]
    problems = done.stderr.decode().replace("sampan", "docker").partition("DEPRECATED: The legacy builder")[0]
    return [done.returncode, done.stdout.decode(), problems, sorted(asked, key=repr)]


def decoded(body: Any) -> Any:
    """A create's environment is in no order; the rest of a body has tests of its own."""
    if not isinstance(body, str) or not body:
        return body
    document = json.loads(body)
    return [sorted(document["Env"] or ()), document.get("DetachKeys")]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stub daemon beside a configuration."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with Stub(f"{folder}/docker.sock", Heard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, server
        server.shutdown()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_configured_command_is_dockers(words: list[str], stub: tuple[Path, Stub], docker_path: str) -> None:
    assert seen(CLI, words, *stub) == seen([docker_path], words, *stub)
