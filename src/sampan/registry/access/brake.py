"""Failed logins are slowed: each one of an address or for a user makes the next answer wait longer, up to a refusal."""

import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 3
"""Failures without consequences: fingers slip."""
STEP_SECONDS = 0.5
MAX_SECONDS = 8.0
REFUSE_AT = 30
FORGET_SECONDS = 300.0
KNOWN_MAX = 20_000


class Brake:
    """Counts failures by key (an address, a name)."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def _count(self, key: str) -> int:
        count, last = self._failures.get(key, (0, 0.0))
        return count if self._now() - last < FORGET_SECONDS else 0

    def failed(self, *keys: str) -> float:
        """One more; seconds that the answer should take."""
        worst = 0
        for key in keys:
            count = self._count(key) + 1
            self._failures[key] = (count, self._now())
            self._failures.move_to_end(key)
            worst = max(worst, count)
        while len(self._failures) > KNOWN_MAX:
            self._failures.popitem(last=False)
        return float(min(MAX_SECONDS, STEP_SECONDS * 2 ** min(worst - FREE - 1, 10))) if worst > FREE else 0.0

    def refuses(self, *keys: str) -> bool:
        """Whether there were so many that the password is not even looked at."""
        return any(self._count(key) >= REFUSE_AT for key in keys)

    def succeeded(self, *keys: str) -> None:
        """Forget."""
        for key in keys:
            self._failures.pop(key, None)
