"""docker search: images of Docker Hub, or of a registry with the same index, by a word (moby daemon/search.go)."""

from collections.abc import Sequence
from typing import NamedTuple

from sampan.distribution import search as index
from sampan.engine.registries import Registries
from sampan.errors import InvalidArgument
from sampan.filters import Filters, boolean, check_keys
from sampan.reference import DEFAULT_DOMAIN
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.docker_api.image import SearchResult

LIMIT_DEFAULT, LIMIT_MAX = 25, 100
_FILTERS = ("is-automated", "is-official", "stars")


class _Wanted(NamedTuple):
    """What is to be found."""

    automated: bool
    """Only what Docker Hub builds"""
    official: bool | None
    stars: int
    """At least"""


async def search(registries: Registries, term: str, *, limit: int, filters: Filters, credentials: AuthConfig) -> Sequence[SearchResult]:
    """Images whose names or descriptions have a word: `nginx`, `registry.example/nginx`. limit: 0 is 25.

    Raises InvalidArgument, SystemFailure in docker's words.
    """
    wanted = _parsed(filters)
    if not 0 <= limit <= LIMIT_MAX:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {LIMIT_MAX}]")
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    domain, word = _split(term)
    endpoints = [index.HUB_INDEX] if domain == DEFAULT_DOMAIN else registries.endpoints(domain)
    async with registries.transport() as transport:
        found = await index.search(transport, endpoints, word, limit or LIMIT_DEFAULT, credentials)
    if wanted.automated:
        return []  # the hub has no such builds any more
    return [one for one in found if wanted.official in (None, one.is_official) and one.star_count >= wanted.stars]


def _split(term: str) -> tuple[str, str]:
    """The registry and the word (moby registry/config.go splitReposSearchTerm)."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost") and first not in ("docker.io", "index.docker.io"):
        return first, rest
    word = rest if slash and first in ("docker.io", "index.docker.io") else term
    return DEFAULT_DOMAIN, word.removeprefix("library/")


def _parsed(filters: Filters) -> _Wanted:
    """Raises InvalidArgument."""
    check_keys(filters, _FILTERS)
    stars = 0
    for value in filters.get("stars", ()):
        if not value.isdecimal():
            raise InvalidArgument(f"invalid filter 'stars={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")
        stars = max(stars, int(value[:9]))
    return _Wanted(
        automated=boolean(filters, "is-automated", default=False), official=boolean(filters, "is-official", default=None), stars=stars
    )
