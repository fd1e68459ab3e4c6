"""`sampan registry serve`, as users start it, on a port of loopback that was free."""

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPAN = str(Path(sys.executable).with_name("sampan"))


class RegistryProgram:
    """Running. settings: of its configuration file. namespace: of the network, by its name. log: in place of a file."""

    def __init__(
        self,
        directory: Path,
        *flags: str,
        settings: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        namespace: str = "",
        log: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.root = directory / "data"
        config = directory / "registry.json"
        config.write_text(json.dumps({"listen": ["127.0.0.1:0"], "root": str(self.root), **(settings or {})}))
        self.access_log = log or directory / "access.log"
        with self.access_log.open("wb") as log:
            inside = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
            self.process = subprocess.Popen(
                [*inside, SAMPAN, "registry", "serve", "--config", str(config), *flags],
                stdout=log, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})},
            )  # fmt: skip
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.metrics_host = self.wait_for(r"metrics at http://(\S+?)/") if "metrics-listen" in (settings or {}) else ""
        self.host = self.wait_for(r"registry listens on (\S+?),")

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put("")

    def wait_for(self, pattern: str) -> str:
        """The group of a pattern in the log, once it is there. What was said before it is skipped."""
        while line := self._lines.get(timeout=20):
            self.said.append(line)
            if match := re.search(pattern, line):
                return match[1] if match.groups() else match[0]
        raise AssertionError("".join(self.said))

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    def accesses(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def accesses_until(self, wanted: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The access log, once it is as it should be: a line is written after its answer."""
        deadline = time.monotonic() + 20
        while not wanted(found := self.accesses()):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Until it ends; the exit code."""
        code = self.process.wait(20)
        self._listener.join(20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def close(self) -> None:
        """kill -9, if it still runs."""
        self.process.kill()
        self.wait()
