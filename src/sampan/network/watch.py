"""Notices that somebody changed the host's packet filter, so that what the bridge needs can be put back.

`iptables -F`, a restart of ufw or of nftables (Debian's unit begins with `flush ruleset`), a dockerd that starts and sets FORWARD to DROP:
the kernel announces all of them on netlink (NFNLGRP_NFTABLES). Only the old iptables-legacy changes its tables in silence: while its
modules are in use, the host's rules are looked at from time to time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from sampan.linux.nftables import Monitor
from sampan.network.firewall import legacy_is_in_use

log = logging.getLogger(__name__)

SETTLE: Final = 0.3
"""Seconds of quiet to wait for: one command of an administrator makes many changes."""
PATIENCE: Final = 5.0
"""The longest wait for quiet, in seconds."""
LEGACY_INTERVAL: Final = 30.0
REMOVED: Final = "somebody removed rules"
UNKNOWN: Final = "more changed in the packet filter than could be followed"


class RulesetWatch:
    """Calls restore(why) after the bridge's own table lost something or may have, and restore("") after the host's filter changed."""

    def __init__(self, table: str, restore: Callable[[str], Awaitable[None]]) -> None:
        """table: the bridge's own. Raises OSError when the kernel has no nftables."""
        self._table = table
        self._restore = restore
        self._monitor = Monitor()
        self._ours, self._theirs = "", False
        self._news = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._monitor.fileno(), self._read)
        self._task = loop.create_task(self._watch())

    async def stop(self) -> None:
        """No call comes after this."""
        asyncio.get_running_loop().remove_reader(self._monitor.fileno())
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._monitor.close()

    def made_anew(self) -> None:
        """What was removed so far is there again, and what the making itself removed was not somebody's doing."""
        self._read()
        self._ours = ""

    def _read(self) -> None:
        for change in self._monitor.read():
            if change.is_deletion and change.table in (self._table, ""):
                self._ours = REMOVED if change.table else self._ours or UNKNOWN
            self._theirs = self._theirs or change.table in ("filter", "")
        if self._ours or self._theirs:
            self._news.set()

    async def _watch(self) -> None:
        while True:
            await self._quiet()
            ours, theirs = self._ours, self._theirs
            self._ours, self._theirs = "", False
            try:
                if ours:
                    await self._restore(ours)
                if ours or theirs or legacy_is_in_use():
                    await self._restore("")
            except Exception:
                log.exception("the rules of the bridge could not be put back")

    async def _quiet(self) -> None:
        """Until something has changed and nothing more does, or it is time to look anyway."""
        loop = asyncio.get_running_loop()
        timeout = LEGACY_INTERVAL
        deadline = loop.time() + timeout
        while loop.time() < deadline:
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                return
            self._news.clear()
            if timeout != SETTLE:
                timeout, deadline = SETTLE, loop.time() + PATIENCE
