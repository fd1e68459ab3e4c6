"""What `sampan stats` shows: one request for each container, each read by a thread of its own; containers come and go by events."""

from __future__ import annotations

import threading
import time

from sampan.cli import fastjson
from sampan.cli.filters import encode
from sampan.cli.http import MISSHAPEN, CliError, misshapen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.http import Connection, Response
    from sampan.cli.main import Context

_SILENCE = 2.0
"""Seconds without a document after which nothing is known."""
_SHUT_RDWR = 2
EOF = "EOF"
UNEXPECTED_EOF = "unexpected EOF"


class Row:
    """One container, as somebody named it. Written by its thread."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.stats: dict[str, Any] = {}
        self.error = ""
        self.first = threading.Event()
        """Set once there is a document, or none is to be expected."""
        self.heard: float | None = None
        """When the daemon last said something; None before it has answered."""
        self._connection: Connection | None = None

    @property
    def is_silent(self) -> bool:
        """Whether a document is overdue."""
        return self.heard is not None and time.monotonic() - self.heard > _SILENCE

    @property
    def known(self) -> bool:
        """Whether the figures are to be believed."""
        return not self.error and not self.is_silent

    def follow(self, ctx: Context, *, stream: bool) -> None:
        """Read until the daemon ends. Never raises."""
        try:
            pending = ctx.client.begin("GET", f"/containers/{ctx.path(self.container)}/stats", {"stream": stream})
            self._connection = pending.connection
            response = pending.response()
            self.heard = time.monotonic()
            for line in response.lines():
                self.stats, self.error, self.heard = fastjson.loads(line), "", time.monotonic()
                self.first.set()
                if not stream:
                    self.heard = None
                    return
            self.error = EOF
        except (CliError, OSError, *MISSHAPEN) as error:
            self.error = _reason(error)
        finally:
            self.first.set()

    def wait(self) -> None:
        """For the first document, or for what says that there is none in time."""
        while not self.first.wait(0.05):
            if self.is_silent:
                self.error = self.error or "timeout waiting for stats"
                return

    def stop(self) -> None:
        """Have the thread end."""
        if self._connection is not None:
            try:
                self._connection.sock.shutdown(_SHUT_RDWR)
            except OSError:
                pass


class Rows:
    """In the order in which they came."""

    def __init__(self, ctx: Context, *, all: bool, stream: bool) -> None:
        self._ctx, self._all, self._stream = ctx, all, stream
        self._rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        self.ended: str | None = None
        """Why there are no more events."""
        ctx.client.negotiate()  # before there are threads

    def now(self) -> list[Row]:
        """Those that are to be shown."""
        with self._lock:
            return list(self._rows.values())

    def add(self, container: str) -> None:
        """One more, unless it is there."""
        with self._lock:
            if container in self._rows:
                return
            row = self._rows[container] = Row(container)
        threading.Thread(target=row.follow, args=(self._ctx,), kwargs={"stream": self._stream}, daemon=True).start()

    def remove(self, container: str) -> None:
        """It is not to be shown any more."""
        with self._lock:
            row = self._rows.pop(container, None)
        if row is not None:
            row.stop()

    def wait(self) -> None:
        """For the first figures of all."""
        for row in self.now():
            row.wait()

    def add_all(self) -> None:
        """All containers, or all that run; those to come as well."""
        events = self._ctx.client.begin("GET", "/events", {"filters": encode({"type": ["container"]})}).response()
        threading.Thread(target=self._watch, args=(events,), daemon=True).start()
        found = self._ctx.client.request("GET", "/containers/json", {"all": True if self._all else None}).json() or []
        for container in found:
            self.add(container["Id"])

    def _watch(self, events: Response) -> None:
        try:
            for line in events.lines():
                event = fastjson.loads(line)
                action, container = event.get("Action"), (event.get("Actor") or {}).get("ID") or ""
                if container and (action == "start" or (action == "create" and self._all)):
                    self.add(container)
                elif action == "die" and not self._all:
                    self.remove(container)
            self.ended = EOF
        except (CliError, OSError, *MISSHAPEN) as error:
            self.ended = _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, CliError):
        return error.message
    return str(error) if isinstance(error, OSError) else misshapen(error)
