"""Strings as Go counts them."""

from __future__ import annotations


def byte_len(text: str) -> int:
    """How long Go thinks the string is."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
