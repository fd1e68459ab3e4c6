"""Through which proxy a URL is reached: HTTP_PROXY, HTTPS_PROXY, NO_PROXY with Go's meaning (golang.org/x/net/http/httpproxy). Pure."""

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from sampan.errors import SystemFailure


class Proxies(NamedTuple):
    """URLs of proxies; empty: none."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""
    """Hosts reached directly, with commas between them: `host`, `host:port`, `.domain`, `*.domain`, an address, a CIDR, `*`."""

    @classmethod
    def of(cls, environment: Mapping[str, str], given: Mapping[str, object]) -> "Proxies":
        """daemon.json's `proxies` over the environment's variables (either case)."""

        def chosen(key: str) -> str:
            name = key.replace("-", "_")
            return str(given.get(key) or environment.get(name.upper()) or environment.get(name) or "")

        return cls(chosen("http-proxy"), chosen("https-proxy"), chosen("no-proxy"))

    def problem(self) -> str:
        """Why one of them cannot be a proxy, or ""."""
        return next(filter(None, map(_problem, (self.http, self.https))), "")

    def proxy_for(self, url: str) -> str | None:
        """The proxy's URL, or None: go there directly. Loopback never goes through a proxy. Raises SystemFailure: it cannot be one."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or self._direct(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)):
            return None
        if problem := _problem(proxy):
            raise SystemFailure(problem)
        return proxy if "://" in proxy else f"http://{proxy}"

    def shown(self) -> tuple[str, str, str]:
        """http, https and the exceptions for everybody's eyes: without passwords (moby daemon/info.go maskCredentials)."""
        return _masked(self.http), _masked(self.https), self.no_proxy

    def _direct(self, host: str, port: int) -> bool:
        host = host.rstrip(".").lower()
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(_matches(item.strip().lower(), host, address, port) for item in self.no_proxy.split(",") if item.strip())


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _matches(item: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> bool:
    """Whether one entry of NO_PROXY means a host."""
    if item == "*":
        return True
    if "/" in item:
        try:
            return address is not None and address in ipaddress.ip_network(item, strict=False)
        except ValueError:
            return False
    name, colon, number = item.rpartition(":")
    if colon and number.isdecimal() and _address(item) is None:
        if int(number[:6]) != port:
            return False
        item = name
    if address is not None:
        return _address(item) == address
    item = item.removeprefix("*")
    return host.endswith(item) if item.startswith(".") else host == item or host.endswith("." + item)


def _problem(proxy: str) -> str:
    scheme, separator, _ = proxy.partition("://")
    if not separator or scheme.lower() in ("http", "https"):
        return ""
    return f'invalid proxy "{_masked(proxy)}": only http:// and https:// proxies are spoken to'


def _masked(url: str) -> str:
    """A URL with `xxxxx` for its user and password."""
    scheme, separator, rest = url.rpartition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at and user else url
