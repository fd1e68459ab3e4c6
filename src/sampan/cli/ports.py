"""`-p [ip:][host]:container[/proto]` and `--expose`: go-connections' nat.ParsePortSpecs, with its messages."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def publish(given: list[str]) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """-p values: (exposed ports, port bindings) as the API wants them. ValueError in docker's words."""
    ports: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in given:
        for port, binding in _parse(_standard(text)):
            ports[port] = {}
            bindings.setdefault(port, []).append(binding)
    return ports, bindings


def expose(given: list[str]) -> dict[str, Any]:
    """--expose values: ports or ranges of them. ValueError in docker's words."""
    ports: dict[str, Any] = {}
    for text in given:
        if ":" in text:
            raise ValueError(f"invalid port format for --expose: {text}")
        protocol, port = _split_protocol(text)
        try:
            start, end = _range(port)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {text}, error: {error}") from None
        for number in range(start, end + 1):
            ports[f"{number}/{protocol}"] = {}
    return ports


def _standard(text: str) -> str:
    """`published=8080,target=80,protocol=tcp` in the short form."""
    if "=" not in text:
        return text
    params = {"protocol": "tcp", "published": "", "target": ""}
    for param in text.split(","):
        key, equals, value = param.partition("=")
        if not equals or not key:
            raise ValueError(f"invalid publish opts format (should be name=value but got '{param}')")
        params[key] = value
    return f"{params['published']}:{params['target']}/{params['protocol']}"


def _split_protocol(text: str) -> tuple[str, str]:
    parts = text.split("/")
    if not parts[0]:
        return "", ""
    return (parts[1] if len(parts) > 1 and parts[1] else "tcp"), parts[0]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _range(text: str) -> tuple[int, int]:
    if not text:
        raise ValueError("empty string specified for ports")
    if "-" not in text:
        return _number(text), _number(text)
    first, last = text.split("-")[:2]
    start, end = _number(first), _number(last)
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def _parse(text: str) -> list[tuple[str, dict[str, str]]]:
    *address, host, container = ["", "", *text.split(":")][-max(3, text.count(":") + 1) :]
    ip = _address(":".join(address))
    protocol, container = _split_protocol(container)
    if not container:
        raise ValueError(f"no port specified: {text}<empty>")
    try:
        start, end = _range(container)
    except ValueError:
        raise ValueError(f"invalid containerPort: {container}") from None
    host_start = host_end = 0
    if host:
        try:
            host_start, host_end = _range(host)
        except ValueError:
            raise ValueError(f"invalid hostPort: {host}") from None
        if end - start != host_end - host_start and end != start:
            raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    if protocol.lower() not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {protocol}")
    result: list[tuple[str, dict[str, str]]] = []
    for offset in range(end - start + 1):
        port = str(host_start + offset) if host else ""
        if start == end and host_start != host_end:
            port += f"-{host_end}"
        result.append((f"{start + offset}/{protocol.lower()}", {"HostIp": ip, "HostPort": port}))
    return result


def _address(text: str) -> str:
    if not text:
        return ""
    plain = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    import ipaddress

    try:
        ipaddress.ip_address(plain.partition("%")[0] if text.startswith("[") else plain)
    except ValueError:
        raise ValueError(f"invalid IP address: {text}") from None
    return plain
