"""How long a job may compute: a minute, and more by what it has read. What a small archive makes us do comes to an end."""

import resource
import signal
from types import FrameType
from typing import Final

from sampan.archive.compression import Read

SECONDS: Final = 60
"""CPU time that each job has, and again for each STEP bytes it reads: many times what real archives take on slow machines."""
STEP: Final = 100 << 20


class TooMuchWork(Exception):
    """The archive costs far more than its size lets expect."""


def _too_much(_signal: int, _frame: FrameType | None) -> None:
    raise TooMuchWork("the archive takes too long to read for its size")


class Budget:
    """This process's CPU time. TooMuchWork is raised, wherever it is, when it is used up."""

    def __init__(self, seconds: int = SECONDS) -> None:
        self._seconds = seconds
        self._steps = 0
        self._total = 0
        signal.signal(signal.SIGXCPU, _too_much)
        self._allow()

    def _allow(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        wanted = self._seconds * (1 + self._steps)
        resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))

    def passed(self, total: int) -> None:
        """Say how much has been read until now, bytes."""
        if total // STEP > self._steps:
            self._steps = total // STEP
            self._allow()

    def more(self, size: int) -> None:
        """Say how many bytes more have been read."""
        self._total += size
        self.passed(self._total)

    def metered(self, read: Read) -> Read:
        """A stream whose bytes count."""

        def metered(limit: int) -> bytes:
            piece = read(limit)
            self.more(len(piece))
            return piece

        return metered
