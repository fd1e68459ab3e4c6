"""One line for each request, JSON or text. No header and no query: passwords and tokens are in none of the rest."""

import json
import sys
import time
from typing import TextIO

from sampan.registry.http import Request

TEXT_MAX = 300


class AccessLog:
    """kind: `json`, `text` or `off`."""

    def __init__(self, kind: str, stream: TextIO | None = None) -> None:
        self._kind = kind
        self._stream = stream or sys.stdout

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
        self._stream.write(line + "\n")
        self._stream.flush()
