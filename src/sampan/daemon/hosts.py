"""The addresses of -H: what can be one, and which are too open. In docker's words."""

import ipaddress
import socket
from typing import Final, NamedTuple

PORT, TLS_PORT = 2375, 2376
LOOPBACK: Final = "127.0.0.1"
IN_THE_CLEAR: Final = (
    "binding to {host} without --tlsverify gives root access on this machine to everyone who has access to your network: use --tlsverify, "
    "or override this by explicitly specifying '--tls=false' or '--tlsverify=false'"
)


class TcpAddress(NamedTuple):
    """Where tcp:// listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a name that cannot be resolved might be any machine."""
        if self.host == "localhost":
            return True
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return False
        return all(ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback for *_, place in found)


def tcp_address(host: str, *, tls: bool) -> TcpAddress:
    """Of tcp://[ADDRESS][:PORT]. Raises ValueError."""
    rest = host.removeprefix("tcp://")
    name, port = rest, ""
    if rest.startswith("["):
        name, bracket, port = rest[1:].partition("]")
        ipaddress.IPv6Address(name.partition("%")[0])
        if not bracket or port[:1] not in ("", ":"):
            raise ValueError(host)
        port = port[1:]
    elif ":" in rest:
        name, _, port = rest.partition(":")
    default = TLS_PORT if tls else PORT
    if port and not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise ValueError(host)
    return TcpAddress(name or LOOPBACK, int(port) if port else default)


def problem_of_host(host: str, *, tls: bool | None) -> str:
    """Why this cannot be, or must not be, listened on; "" if it can: unix:///path, tcp://address:port, fd://[number].

    tls: None where nothing was said of it; that must not open the engine to the network (moby warns of it, and will refuse it).
    """
    protocol, _, address = host.partition("://")
    if protocol not in ("unix", "tcp", "fd"):
        return f"invalid bind address ({host}): unsupported proto '{protocol}'"
    if protocol == "unix" and not address.startswith("/"):
        return f"invalid bind address ({host}): a unix socket needs an absolute path"
    if protocol == "fd" and address not in ("", "*") and not (address.isascii() and address.isdecimal()):
        return f"failed to parse systemd fd address: should be a number: {address}"
    if protocol != "tcp":
        return ""
    if "/" in address:
        return f"invalid bind address ({host}): should not contain a path element"
    try:
        where = tcp_address(host, tls=bool(tls))
    except ValueError:
        return f"invalid bind address ({host}): invalid port or address"
    return IN_THE_CLEAR.format(host=host) if tls is None and not where.is_loopback else ""
