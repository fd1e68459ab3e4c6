"""The reaper of a testcontainers session, which runs in a container: what carries a session's label goes once the session has gone.

It is told filters, a line each (`label=key=value`), by whoever connects to port 8080, and answers ACK; when nobody is connected any more it
removes what they match, through the socket that is mounted into it.
"""

import http.client
import json
import os
import select
import socket
import sys
from urllib.parse import quote

DOCKER = "/var/run/docker.sock"
KINDS = (("/containers/json?all=1&filters=", "/containers/%s?force=1&v=1"), ("/networks?filters=", "/networks/%s"))
VOLUMES = "/volumes?filters="


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(DOCKER)


def _ask(method: str, path: str) -> object:
    connection = _Connection("docker")
    try:
        connection.request(method, "/v1.44" + path)
        data = connection.getresponse().read()
    finally:
        connection.close()
    return json.loads(data) if data else None


def _reap(label: str) -> None:
    filters = quote(json.dumps({"label": [label]}))
    for listing, removal in KINDS:
        found = _ask("GET", listing + filters)
        assert isinstance(found, list)
        for item in found:
            if not item.get("Id", "").startswith(os.uname().nodename):  # not itself: it ends by itself
                _ask("DELETE", removal % item["Id"])
    volumes = _ask("GET", VOLUMES + filters)
    assert isinstance(volumes, dict)
    for volume in volumes["Volumes"]:
        _ask("DELETE", f"/volumes/{volume['Name']}")


def main() -> None:
    """Until the last client has gone."""
    listener = socket.create_server(("0.0.0.0", 8080))
    print("reaper: Started!", flush=True)
    clients: set[socket.socket] = set()
    labels: set[str] = set()
    while clients or not labels:
        for ready in select.select([listener, *clients], [], [])[0]:
            if ready is listener:
                clients.add(listener.accept()[0])
                continue
            try:
                data = ready.recv(65536)
            except ConnectionResetError:  # it has not read its ACK
                data = b""
            if not data:
                clients.discard(ready)
                ready.close()
                continue
            labels |= {line.partition("=")[2] for line in data.decode().splitlines() if line.startswith("label=")}
            ready.sendall(b"ACK\n")
    for label in labels:
        _reap(label)


if __name__ == "__main__":
    sys.exit(main())
