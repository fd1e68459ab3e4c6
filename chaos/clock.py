"""sampand with a clock that jumps: `python -I -c "..."` of world.py starts it. The machine's own clock is never touched.

The offset, in nanoseconds, is the content of the file that CHAOS_CLOCK names, looked at each time. Keeper and supervisor keep true time.
"""

import os
import time


def bend() -> None:
    """Have the wall clock of this process show what it is told."""
    path, true_ns = os.environ["CHAOS_CLOCK"], time.time_ns

    def now_ns() -> int:
        with open(path) as file:
            return true_ns() + int(file.read() or 0)

    time.time_ns = now_ns
    time.time = lambda: now_ns() / 1e9
