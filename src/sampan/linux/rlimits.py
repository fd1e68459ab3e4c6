"""Resource limits by docker's names."""

import resource

NUMBERS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9, "locks": 10,
    "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip


def set_limit(name: str, soft: int, hard: int) -> None:
    """Set a limit of this process; -1 is unlimited. Raises OSError or ValueError (soft over hard, no right to raise)."""
    resource.setrlimit(NUMBERS[name], (soft, hard))
