"""`filters` of the API, as far as all kinds of objects have them (moby api/types/filters)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from sampan.errors import InvalidArgument
from sampan.units import NANOSECONDS, parse_duration

Filters = Mapping[str, Sequence[str]]
"""Values by key: those of one key OR together, keys AND together."""
_UNIX = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?")


def labels_match(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether every `key` or `key=value` holds."""
    for text in wanted:
        key, separator, value = text.partition("=")
        if key not in labels or (separator and labels[key] != value):
            return False
    return True


def moment_ns(text: str, now_ns: int) -> int:
    """A time in nanoseconds since the epoch: Unix seconds, RFC 3339 (UTC unless it says otherwise), or a Go duration before now.

    Raises InvalidArgument (moby api/types/time.GetTimestamp).
    """
    unix = _UNIX.fullmatch(text)
    if unix is not None:
        return int(unix[1]) * NANOSECONDS + int((unix[2] or "").ljust(9, "0"))
    try:
        return now_ns - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1e6) * 1000
