"""Requests of attach and logs, decoded."""

from collections.abc import AsyncIterator

import msgspec


class AttachOptions(msgspec.Struct, frozen=True):
    """Query of an attach."""

    stream: bool = False
    logs: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""
    raw: bool = False
    """Standard output and error one after the other without frames, as with a terminal."""


class LogOptions(msgspec.Struct, frozen=True):
    """Query of GET /containers/{id}/logs. since and until in nanoseconds since the epoch, 0 = no bound; tail -1 = all."""

    stdout: bool = False
    stderr: bool = False
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    since: int = 0
    until: int = 0
    tail: int = -1


class LogStream(msgspec.Struct, frozen=True):
    """A valid log request under way: chunks are sent as they come, each flushed."""

    multiplexed: bool
    chunks: AsyncIterator[bytes]
