"""Time as a value that tests can set, and docker's way of writing it."""

import time
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """A source of wall-clock and monotonic time."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""


class SystemClock:
    """The machine's own clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time: what docker writes for 'never'."""


@lru_cache(1024)
def rfc3339nano(ns: int) -> str:
    """UTC time with nine digits less trailing zeros, as Go's time.RFC3339Nano; 0 is Go's zero time."""
    if not ns:
        return ZERO_TIME
    seconds, fraction = divmod(ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{stamp}.{digits}Z" if digits else f"{stamp}Z"


def rfc3339_fixed(ns: int) -> str:
    """UTC time with always nine digits: the time stamps of `docker logs -t` and of events."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"
