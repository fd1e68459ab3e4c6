"""How fast a mirror answers: `GET /v2/` and `HEAD` of a manifest, with an anonymous token, the engine's certificates and proxies.

The engine itself is not asked: a mirror can be tried before it is named, and where sampand does not run.
"""

from __future__ import annotations

import os
import re
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode, urlsplit

from sampan.errors import EngineError, printable
from sampan.proxies import Proxies
from sampan.reference import DEFAULT_DOMAIN
from sampan.registryhosts import is_insecure, tls_context

if TYPE_CHECKING:
    from typing import Any

SECONDS = 5.0
"""For a connection, and for each silence."""
ACCEPT = ", ".join((
    "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
))  # fmt: skip
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class Probe:
    """One mirror, or a registry itself. `ping` and `manifest`: seconds, or why there was no answer, or "" before and where not asked."""

    def __init__(self, registry: str, url: str, keys: dict[str, Any], *, mirror: bool = True) -> None:
        """keys: those of daemon.json. url: with a slash at its end."""
        self.registry, self.url, self.mirror = registry, url, mirror
        self.ping: float | str = ""
        self.manifest: float | str = ""
        self._query = f"?ns={quote(registry, safe=':[]')}" if mirror and registry != DEFAULT_DOMAIN else ""
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _ByProxy(Proxies.of(os.environ, keys.get("proxies") or keys)), _ByHost(url, keys)
        )
        self._token = ""

    @property
    def works(self) -> bool:
        """Whether all that was asked was answered."""
        return isinstance(self.ping, float) and (self.manifest == "" or isinstance(self.manifest, float))

    def run(self, path: str, reference: str) -> None:
        """Ask for the registry, then for a manifest of a repository, if one is named."""
        self.ping = self._timed("GET", "v2/", path)
        if path and isinstance(self.ping, float):
            self.manifest = "no answer"
            self.manifest = self._timed("HEAD", f"v2/{path}/manifests/{reference}", path)

    def _timed(self, method: str, target: str, path: str) -> float | str:
        began = time.monotonic()
        try:
            try:
                self._ask(method, self.url + target + self._query, self._token)
            except urllib.error.HTTPError as error:
                challenge = error.headers.get("WWW-Authenticate", "")
                if error.code != 401 or not challenge.lower().startswith("bearer "):
                    if error.code == 401 and method == "GET":
                        return time.monotonic() - began  # a registry, and one that wants a login
                    raise
                if path:
                    self._token = self._ask_token(challenge, path)
                    self._ask(method, self.url + target + self._query, self._token)
        except urllib.error.HTTPError as error:
            return printable(f"{error.code} {error.reason}".strip())
        except urllib.error.URLError as error:
            return printable(_words(error.reason))
        except (OSError, ValueError, HTTPException) as error:
            return printable(_words(error))
        except EngineError as error:
            return error.message
        return time.monotonic() - began

    def _ask(self, method: str, url: str, token: str) -> bytes:
        request = urllib.request.Request(url, method=method, headers={"Accept": ACCEPT, "User-Agent": "sampan"})
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with self._opener.open(request, timeout=SECONDS) as answer:
            body: bytes = answer.read(1 << 20)
            return body

    def _ask_token(self, challenge: str, path: str) -> str:
        import json

        given = dict(_PARAMETER.findall(challenge))
        query = urlencode({"service": given.get("service", ""), "scope": f"repository:{path}:pull"})
        if urlsplit(given.get("realm", "")).scheme not in ("http", "https"):
            raise ValueError("the mirror names no usable token server")
        try:
            answer = json.loads(self._ask("GET", f"{given['realm']}?{query}", ""))
        except RecursionError:
            raise ValueError("the token server's answer cannot be read") from None
        return str(answer.get("token") or answer.get("access_token") or "") if isinstance(answer, dict) else ""


class _ByHost(urllib.request.HTTPSHandler):
    """Speaks to each host with the engine's certificates for it; only the one that was named sees a client certificate."""

    def __init__(self, home: str, keys: dict[str, Any]) -> None:
        super().__init__()
        self._home = urlsplit(home).netloc
        self._insecure = keys.get("insecure-registries") or ()
        self._contexts: dict[str, ssl.SSLContext] = {}
        """By host: the system's CAs take some 50 ms to read."""

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        """See BaseHandler. Raises SystemFailure for files that are no certificates."""
        host = urlsplit(request.full_url).netloc
        if host not in self._contexts:
            self._contexts[host] = tls_context(host, insecure=is_insecure(host, self._insecure), client=host == self._home)
        return self.do_open(HTTPSConnection, request, context=self._contexts[host])


class _ByProxy(urllib.request.BaseHandler):
    """Sends each request through the engine's proxy for its URL: urllib's own choice knows only NO_PROXY of the environment."""

    handler_order = 100
    """Before those that connect."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies

    def http_open(self, request: urllib.request.Request) -> None:
        """See BaseHandler: the handlers behind it go on."""
        proxy = self._proxies.proxy_for(request.full_url)
        if proxy is None:
            return
        parts = urlsplit(proxy)
        user, at, host = parts.netloc.rpartition("@")
        if at:
            request.add_unredirected_header("Proxy-Authorization", "Basic " + b64encode(unquote(user).encode()).decode())
        request.set_proxy(host, parts.scheme)

    https_open = http_open


def _words(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return f"no answer in {SECONDS:.0f} s"
    if isinstance(reason, ssl.SSLError):
        return getattr(reason, "verify_message", "") or (reason.reason or str(reason)).lower().replace("_", " ")
    return (getattr(reason, "strerror", None) or str(reason) or type(reason).__name__).lower()
