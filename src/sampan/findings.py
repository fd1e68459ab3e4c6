"""What is wrong in a data root or on the host, as those who own the thing say it: for `system check` and for the repair at start."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    kind: str
    """`layer`, `image`, `container`, `cgroup`, `mount`, `file`, `database`, `network`, `bridge`, `interface`"""
    subject: str
    """Its ID, name or path."""
    problem: str
    """`is of no container`: goes on from kind and subject."""
    remedy: str
    """What `mend` does, or what the user can do where there is no `mend`."""
    mend: Callable[[], Awaitable[None] | None] | None = None
    """Puts it right, having looked again whether it is still so. None: nothing that is certain to be right."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """Tells it from others, and is the same when it is found again."""
        return self.kind, self.subject, self.problem

    @property
    def text(self) -> str:
        """One line."""
        return f"{self.kind} {self.subject} {self.problem}"
