"""How long to wait before a registry is asked for the same again."""

import asyncio
from collections.abc import Callable

from sampan.distribution.registry import Refused
from sampan.errors import EngineError

RETRY_AFTER_MAX = 60


async def pause(failed: int, error: EngineError, progress: Callable[[str], None]) -> None:
    """Wait before another attempt: longer every time; as long as the registry asks for, within reason. progress: told docker's lines."""
    asked = error.retry_after if isinstance(error, Refused) else 0
    seconds = min(RETRY_AFTER_MAX, max(asked, 2 ** (failed - 1)))
    for left in range(seconds, 0, -1):
        progress(f"Retrying in {left} second{'s' if left != 1 else ''}")
        await asyncio.sleep(1)
