"""docker search: images of Docker Hub, or of a registry with the same index, by a word (moby daemon/search.go)."""

from collections.abc import Mapping, Sequence

from sampan.distribution import search as index
from sampan.engine.registries import Registries
from sampan.errors import InvalidArgument
from sampan.reference import DEFAULT_DOMAIN
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.docker_api.image import SearchResult

LIMIT_DEFAULT, LIMIT_MAX = 25, 100
_FILTERS = ("is-automated", "is-official", "stars")


async def search(
    registries: Registries, term: str, *, limit: int, filters: Mapping[str, Sequence[str]], credentials: AuthConfig
) -> Sequence[SearchResult]:
    """Images whose names or descriptions have a word: `nginx`, `registry.example/nginx`. limit: 0 is 25.

    Raises InvalidArgument, SystemFailure in docker's words.
    """
    official, stars = _parsed(filters)
    if not 0 <= limit <= LIMIT_MAX:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {LIMIT_MAX}]")
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    domain, word = _split(term)
    endpoints = [index.HUB_INDEX] if domain == DEFAULT_DOMAIN else registries.endpoints(domain)
    async with registries.transport() as transport:
        found = await index.search(transport, endpoints, word, limit or LIMIT_DEFAULT, credentials)
    if "true" in filters.get("is-automated", ()):
        return []  # the hub has no such builds any more
    return [one for one in found if official in (None, one.is_official) and one.star_count >= stars]


def _split(term: str) -> tuple[str, str]:
    """The registry and the word (moby registry/config.go splitReposSearchTerm)."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost") and first not in ("docker.io", "index.docker.io"):
        return first, rest
    word = rest if slash and first in ("docker.io", "index.docker.io") else term
    return DEFAULT_DOMAIN, word.removeprefix("library/")


def _parsed(filters: Mapping[str, Sequence[str]]) -> tuple[bool | None, int]:
    """(is-official, or None; the fewest stars). Raises InvalidArgument."""
    for key in filters:
        if key not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{key}'")
    flags: dict[str, bool | None] = {}
    for key in ("is-automated", "is-official"):
        values = list(filters.get(key, ()))
        if len(set(values)) > 1 or any(value not in ("true", "false", "1", "0") for value in values):
            raise InvalidArgument(f"invalid filter '{key}=[{' '.join(values)}]'")
        flags[key] = values[0] in ("true", "1") if values else None
    stars = 0
    for value in filters.get("stars", ()):
        if not value.isdecimal():
            raise InvalidArgument(f"invalid filter 'stars={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")
        stars = max(stars, int(value[:9]))
    return flags["is-official"], stars
