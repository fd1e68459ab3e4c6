"""Parts that no start needs: made by whoever first asks for them, in the event loop's thread."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Late(Generic[T]):
    """Something that is made once, when it is first asked for."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.made: T | None = None
        """For those who would not have it made."""

    def __call__(self) -> T:
        """It; made now, if it was not. Raises what making raises; then the next one tries again."""
        if self.made is None:
            self.made = self._make()
        return self.made


class _StandIn:
    __slots__ = ("_get",)

    def __init__(self, get: Callable[[], object]) -> None:
        self._get = get

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)


def stand_in(get: Callable[[], T]) -> T:
    """What has all attributes of an object that is got when the first of them is asked for."""
    return cast("T", _StandIn(get))
