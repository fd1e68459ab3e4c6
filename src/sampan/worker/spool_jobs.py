"""Jobs on whole image archives: take one in, give a member of it out. Both read hostile bytes and touch no path."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sampan.archive import compression
from sampan.archive.room import Room
from sampan.archive.spool import Member, SpoolSource, spool
from sampan.worker import confine
from sampan.worker.budget import Budget
from sampan.worker.jobs import Decompressor, checked, reader_of

Report = Callable[[dict[str, Any]], None]

_BATCH: Final = 1 << 15
"""Bytes of JSON; a packet holds four times that."""
_STEP = 1 << 20
_REPORT_EVERY = 1 << 19


def take_in(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """fds: a pipe with the archive, compressed or not; the file to write; an empty directory. -> size; reports {"members": [...]}."""
    archive, output, root_fd = fds
    head, _ = compression.peek(reader_of(archive))
    kind = compression.detect(head)
    child = Decompressor(kind, head, archive, root_fd) if kind else None
    confine.into_nothing(root_fd, writes=True)
    source = SpoolSource(archive if child is None else child.output, output, Room(output))
    if child is None:
        source.begin(head)
    with checked(child):
        _report_members(source, report)
    return {"size": source.consumed}


def _report_members(source: SpoolSource, report: Report) -> None:
    """Tell of each member soon after its bytes are there; many small ones together."""
    batch: list[Member] = []
    size = 0
    budget = Budget()
    for member in spool(source):
        budget.passed(source.consumed)
        batch.append(member)
        size += len(json.dumps(member))
        if member.layer or size > _BATCH:
            report({"members": batch})
            batch, size = [], 0
    report({"members": batch})


def give_out(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """fds: a file, a pipe, an empty directory. args: offset, size. -> size given.

    Reports {"current": bytes}. A pipe that nobody reads any more ends the job: its reader knows why.
    """
    file, pipe, root_fd = fds
    confine.into_nothing(root_fd)
    position, end = args["offset"], args["offset"] + args["size"]
    reported = position
    with suppress(BrokenPipeError):
        while position < end:
            moved = os.splice(file, pipe, min(end - position, _STEP), offset_src=position)
            if not moved:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            position += moved
            if position - reported >= _REPORT_EVERY or position == end:
                reported = position
                report({"current": position - args["offset"]})
    return {"size": position - args["offset"]}


JOBS: dict[str, Callable[[dict[str, Any], list[int], Report], dict[str, Any]]] = {"take_in": take_in, "give_out": give_out}
