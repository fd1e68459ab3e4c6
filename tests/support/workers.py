"""Workers for tests without an engine: one zygote for all of them, which takes longer to start than most of those tests."""

import socket
import subprocess
from typing import ClassVar

from sampan.worker.client import WorkerPool


class LentWorkers(WorkerPool):
    """A pool of a test's own loop, whose zygote is the one that the last such pool had: stop() keeps it for the next, unless it has a job.

    Whoever looks at the zygote's own start and end takes a WorkerPool.
    """

    _kept: ClassVar[tuple[socket.socket | None, subprocess.Popen[bytes] | None]] = (None, None)

    def __init__(self) -> None:
        super().__init__()
        self._control, self._process = LentWorkers._kept
        LentWorkers._kept = (None, None)

    async def stop(self) -> None:
        """Give the zygote back, or end it with its jobs."""
        if not self._jobs:
            LentWorkers._kept, (self._control, self._process) = (self._control, self._process), (None, None)
        await super().stop()

    @classmethod
    def end(cls) -> None:
        """End the zygote, as closing its control socket does."""
        control, process = cls._kept
        if control is not None:
            control.close()
        if process is not None:
            process.wait(60)
        cls._kept = (None, None)
