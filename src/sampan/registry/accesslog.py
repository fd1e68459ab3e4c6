"""One line for each request, JSON or text. No header and no query: passwords and tokens are in none of the rest."""

import json
import logging
import os
import time

from sampan.registry.http import Request

TEXT_MAX = 300
STDOUT = 1
log = logging.getLogger("sampan.registry")


class AccessLog:
    """kind: `json`, `text` or `off`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._lost = 0
        """Lines, since one could be written."""

    def write(self, request: Request, status: int, received: int, sent: int, seconds: float) -> None:
        """received, sent: bytes of bodies."""
        if self._kind == "off":
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        agent = request.headers.get("User-Agent", "")[:TEXT_MAX]
        if self._kind == "json":
            fields = {
                "time": stamp, "remote": request.remote, "user": request.user.name, "method": request.method, "path": request.path[:1024],
                "status": status, "received": received, "sent": sent, "seconds": round(seconds, 6), "agent": agent,
            }  # fmt: skip
            line = json.dumps(fields, ensure_ascii=True)
        else:
            path, name = ascii(request.path[:1024])[1:-1], ascii(request.user.name[:100])[1:-1]
            line = f'{stamp} {request.remote} {name or "-"} "{request.method} {path}" {status} {received} {sent} {seconds:.3f} {agent!a}'
        self._write(line + "\n")

    def _write(self, line: str) -> None:
        """A full disk, or a reader that has gone, stops nothing: what is asked for is answered all the same."""
        try:
            os.write(STDOUT, line.encode())
        except OSError as error:
            if not self._lost:
                log.error("the access log cannot be written: %s", error.strerror)
            self._lost += 1
        else:
            if self._lost:
                log.warning("the access log has lost %d lines", self._lost)
            self._lost = 0
