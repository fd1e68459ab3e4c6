"""Which version of the API a request speaks (moby api/server/middleware/version.go)."""

from functools import lru_cache

from sampan.errors import InvalidArgument
from sampan.version import API_VERSION, MIN_API_VERSION

Version = tuple[int, int]


def _parse(text: str) -> Version:
    major, _, minor = text.partition(".")
    return (int(major or "0"), int(minor.partition(".")[0] or "0"))


NEWEST: Version = _parse(API_VERSION)
OLDEST: Version = _parse(MIN_API_VERSION)


@lru_cache(64)
def _checked(text: str) -> Version:
    # Longer than any version there is: int() of thousands of digits costs, and says so with a ValueError.
    asked = _parse(text) if len(text) <= 12 else (1 << 30, 0)
    if asked < OLDEST:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )
    if asked > NEWEST:
        raise InvalidArgument(f"client version {text} is too new. Maximum supported API version is {API_VERSION}")
    return asked


def split_version(path: str) -> tuple[Version, str]:
    """(version, path without it); a path without `/vN.N` speaks the newest. Raises InvalidArgument if too old or too new."""
    if not path.startswith("/v"):
        return NEWEST, path
    text, slash, rest = path[2:].partition("/")
    if not text or not slash or text.strip("0123456789."):
        return NEWEST, path
    return _checked(text), "/" + rest
