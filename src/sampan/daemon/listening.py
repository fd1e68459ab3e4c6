"""The sockets of -H, with or without TLS, made here or inherited of systemd."""

import logging
import os
import socket
import ssl
from contextlib import ExitStack

from sampan.api.server import group_id, tcp_listener, tls_context, unix_listener
from sampan.daemon.config import DaemonConfig
from sampan.daemon.hosts import problem_of_host, tcp_address
from sampan.daemon.options import DEFAULT_GROUP
from sampan.errors import EngineError, SystemFailure
from sampan.systemd import FIRST_DESCRIPTOR

log = logging.getLogger("sampand")

Listener = tuple[socket.socket, ssl.SSLContext | None]


def open_listeners(config: DaemonConfig, inherited: list[int]) -> list[Listener]:
    """A socket for every address of the configuration, or none at all. Raises SystemFailure, OSError."""
    tls = _tls(config)
    with ExitStack() as undo:
        found: list[Listener] = []
        for host in config.hosts:
            for listener in _sockets(config, host, inherited):
                undo.callback(listener.close)
                found.append((listener, None if listener.family == socket.AF_UNIX else tls))
        undo.pop_all()
        return found


def shown(listener: socket.socket) -> str:
    """As an address of -H."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix://{os.fsdecode(name)}"
    return f"tcp://[{name[0]}]:{name[1]}" if listener.family == socket.AF_INET6 else f"tcp://{name[0]}:{name[1]}"


def _sockets(config: DaemonConfig, host: str, inherited: list[int]) -> list[socket.socket]:
    protocol, _, address = host.partition("://")
    if protocol == "fd":
        found = _inherited_sockets(address, inherited)
        for open_one in (one for one in found if one.family != socket.AF_UNIX):
            if problem := problem_of_host(shown(open_one), tls=config.tls):
                raise SystemFailure(problem)
        return found
    if protocol == "unix":
        os.makedirs(os.path.dirname(address), 0o755, exist_ok=True)
        return [unix_listener(address, gid=_group(config.group))]
    if not (config.tls and config.tlsverify):
        log.warning("%s is open to everybody who can reach it: whoever connects is root on this host", host)
    return [tcp_listener(*tcp_address(host, tls=bool(config.tls)))]


def _group(name: str) -> int | None:
    """Whose the unix sockets are; docker's own group need not be there. Raises SystemFailure."""
    try:
        return group_id(name) if name else None
    except EngineError:
        if name != DEFAULT_GROUP:
            raise
        return None


def _inherited_sockets(address: str, inherited: list[int]) -> list[socket.socket]:
    """fd:// is all of them, fd://N that one. Raises SystemFailure."""
    if not inherited:
        raise SystemFailure("no sockets found via socket activation: make sure the service was started by systemd")
    wanted = inherited if address in ("", "*") else [int(address)]
    if wanted[-1] not in inherited:
        text = "too few socket activated files passed in by systemd"
        raise SystemFailure(text if wanted[-1] >= FIRST_DESCRIPTOR else f"failed to listen on systemd activated file: fd {wanted[-1]}")
    return [_inherited_socket(fd) for fd in wanted]


def _inherited_socket(fd: int) -> socket.socket:
    """Raises SystemFailure."""
    try:
        listener = socket.socket(fileno=os.dup(fd))
    except OSError:
        raise SystemFailure(f"failed to listen on systemd activated file: fd {fd}") from None
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise SystemFailure(f"failed to listen on systemd activated file: fd {fd}")
    listener.setblocking(False)
    return listener


def _tls(config: DaemonConfig) -> ssl.SSLContext | None:
    """Raises SystemFailure: the files cannot be used."""
    if not config.tls:
        return None
    place = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    cert, key, ca = (
        path or f"{place}/{name}.pem" for path, name in ((config.tlscert, "cert"), (config.tlskey, "key"), (config.tlscacert, "ca"))
    )
    verify = bool(config.tlsverify)
    if not verify and not config.tlscacert and not os.path.exists(ca):
        ca = ""
    try:
        return tls_context(cert, key, ca or None, verify=verify)
    except (OSError, ssl.SSLError) as error:
        raise SystemFailure(f"invalid TLS configuration: {', '.join(filter(None, (cert, key, ca)))}: {error}") from None
