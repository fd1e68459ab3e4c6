"""`filters` of the API, as far as all kinds of objects have them (moby api/types/filters)."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from sampan.errors import InvalidArgument
from sampan.units import NANOSECONDS, parse_duration

D = TypeVar("D", bool, None)
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


def boolean(filters: Filters, key: str, *, default: D) -> bool | D:
    """A filter that is true (`1`, `true`) or false (`0`, `false`); default where it is not given. Raises InvalidArgument.

    moby api/types/filters GetBoolOrDefault: what is neither counts for nothing beside one that is.
    """
    if key not in filters:
        return default
    values = filters[key]
    is_true, is_false = not {"1", "true"}.isdisjoint(values), not {"0", "false"}.isdisjoint(values)
    if is_true == is_false:
        raise InvalidArgument(f"invalid filter '{key}=[{' '.join(values)}]'" if values else f"invalid filter '{key}'")
    return is_true


def check_keys(filters: Filters, known: Iterable[str]) -> None:
    """Raises InvalidArgument for a filter that there is none of."""
    for key in filters:
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")


def moment_ns(text: str, now_ns: int) -> int:
    """A time in nanoseconds since the epoch: Unix seconds, RFC 3339 (this host's time unless it says otherwise), a Go duration before now.

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
    if moment.tzinfo is None:  # as the clocks are now, though summer time may have been different then: that is docker's way
        moment = moment.replace(tzinfo=timezone(timedelta(seconds=time.localtime(now_ns // NANOSECONDS).tm_gmtoff)))
    return int(moment.timestamp() * 1e6) * 1000
