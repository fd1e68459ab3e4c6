"""The route table's entries, and finding the one a request is for."""

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any, Literal

import msgspec

from sampan.api.http import Request, Response
from sampan.api.services import Services

Handler = Callable[[Request, Services], Response | Awaitable[Response | None] | None]
Coverage = Literal["served", "partial", "refused", "missing"]
"""served: as docker does. partial: some parameters answer 501. refused: docker's words for a feature that is off. missing: 501."""


class Route(msgspec.Struct, frozen=True):
    """One endpoint. In the path `{id}` is one segment, `{name:.*}` may hold slashes."""

    method: str
    path: str
    handler: Handler
    tag: str
    coverage: Coverage = "served"
    cancel: bool = False
    """End the handler when the client goes away: for answers without an end."""
    note: str = ""


_VARIABLE = re.compile(r"\{(\w+)(:\.\*)?\}")


@cache
def _pattern(path: str) -> re.Pattern[str]:
    """Compiled when it is first asked for: all of them are milliseconds of a start."""
    pattern = ""
    place = 0
    for match in _VARIABLE.finditer(path):
        pattern += re.escape(path[place : match.start()])
        pattern += f"(?P<{match[1]}>.+)" if match[2] else f"(?P<{match[1]}>[^/]+)"
        place = match.end()
    # DOTALL: a %0A in a name is part of the name, and then simply not found.
    return re.compile(pattern + re.escape(path[place:]), re.DOTALL)


class Router:
    """Routes by method; exact paths first, then patterns in table order (longer suffixes are listed first)."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: dict[tuple[str, str], list[Route]] = {}
        for route in routes:
            if "{" not in route.path:
                self._exact[route.method, route.path] = route
                continue
            first = route.path.split("/", 2)[1]
            self._patterns.setdefault((route.method, first), []).append(route)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, Any]] | None:
        """The route and the path's variables, or None (docker answers 404 for a wrong method too)."""
        route = self._exact.get((method, path))
        if route is not None:
            return route, {}
        first = path[1:].partition("/")[0]
        for candidate in self._patterns.get((method, first), ()):
            match = _pattern(candidate.path).fullmatch(path)
            if match is not None:
                return candidate, match.groupdict()
        return None
