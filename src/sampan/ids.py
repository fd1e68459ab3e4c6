"""Identifiers of containers, execs and networks: 64 hex digits."""

import os
import re
from typing import NewType

ContainerId = NewType("ContainerId", str)
ExecId = NewType("ExecId", str)

_FULL = re.compile(r"[0-9a-f]{64}")
SHORT_LENGTH = 12


def new_id() -> str:
    """A random 64-digit identifier whose first 12 digits are not all decimal.

    Docker avoids all-decimal short IDs because a hostname may not be a number (moby stringid.GenerateRandomID).
    """
    while True:
        value = os.urandom(32).hex()
        if not value[:SHORT_LENGTH].isdecimal():
            return value


def is_full_id(text: str) -> bool:
    """Whether text is 64 lower-case hex digits."""
    return _FULL.fullmatch(text) is not None


def short_id(value: str) -> str:
    """The first 12 digits, without an algorithm prefix."""
    return value.partition(":")[2][:SHORT_LENGTH] if ":" in value else value[:SHORT_LENGTH]
