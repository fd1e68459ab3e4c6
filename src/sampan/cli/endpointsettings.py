"""EndpointSettings of a request: what a container is to have on one network."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def endpoint_settings(**asked: Any) -> dict[str, Any]:
    """All fields, as docker's client sends them: `asked` by name, what only the daemon fills empty."""
    return {
        **asked,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }
