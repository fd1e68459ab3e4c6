"""Points in time as users give them (--since, --until), turned into what the API takes: seconds since 1970 with nanoseconds."""

from __future__ import annotations

import time

from sampan.units import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def to_unix(text: str, now: float | None = None) -> str:
    """A duration before now (`42m`), an RFC 3339 time or a part of one (local time without a zone), or seconds as they are.

    ValueError in docker's words for anything else.
    """
    try:
        ago = parse_duration(text)
    except ValueError:
        pass
    else:
        return str((int((time.time() if now is None else now) * 10**9) - ago) // 10**9)
    if "-" not in text:
        seconds, dot, fraction = text.partition(".")
        if not (seconds.isdigit() and (not dot or fraction.isdigit())):
            raise ValueError(f'failed to parse value as time or duration: "{text}"')
        return text
    import datetime

    whole, fraction = _cut_fraction(text)
    moment: Any = None
    for form in ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d%z", "%Y-%m-%d"):
        try:
            moment = datetime.datetime.strptime(whole, form)
            break
        except ValueError:
            continue
    if moment is None:
        raise ValueError(f'failed to parse value as time or duration: "{text}"')
    return f"{int(moment.timestamp())}.{(fraction + '000000000')[:9]}"


def _cut_fraction(text: str) -> tuple[str, str]:
    """The time without its fraction of a second, and the fraction's digits."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text, ""
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return head + tail[digits:], tail[:digits]
