"""Regular expressions that a client gives, with an end to the time they may take."""

import re
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeVar

from sampan.errors import InvalidArgument

SECONDS: Final = 0.2
"""CPU time; a search among thousands of names takes some milliseconds."""


T = TypeVar("T")


class _Expired(BaseException):
    pass


def _expire(number: int, frame: FrameType | None) -> None:
    raise _Expired


def bounded(work: Callable[[], T], seconds: float = SECONDS) -> T:
    """The result of a search with a client's patterns, on the main thread. Raises InvalidArgument when it takes too long.

    docker's expressions take linear time (RE2), Python's may take for ever, and keep the interpreter's lock: no other thread could
    end them. The matcher looks for signals, though; a timer of this process's CPU time is one that a busy machine does not set off.
    """
    before = signal.signal(signal.SIGVTALRM, _expire)
    try:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            return work()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _Expired:
        raise InvalidArgument("a regular expression takes too long to match: use a simpler one") from None
    finally:
        signal.signal(signal.SIGVTALRM, before)


def compiled(pattern: str) -> re.Pattern[str]:
    """re.compile; raises re.error also for what is too deep or too large for it."""
    try:
        return re.compile(pattern)
    except (RecursionError, OverflowError) as error:
        raise re.error(str(error), pattern) from None
