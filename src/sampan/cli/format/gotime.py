"""Times as Go prints them."""

from __future__ import annotations

import time


def local(seconds: int) -> str:
    """time.Unix(seconds, 0).String(): `2006-01-02 15:04:05 -0700 MST` in the local zone."""
    parts = time.localtime(seconds)
    return f"{_date(parts)} {_offset(parts.tm_gmtoff, '')} {parts.tm_zone}"


def _date(parts: time.struct_time, middle: str = " ") -> str:
    return f"{parts.tm_year:04d}-{parts.tm_mon:02d}-{parts.tm_mday:02d}{middle}{parts.tm_hour:02d}:{parts.tm_min:02d}:{parts.tm_sec:02d}"


def _offset(seconds: int, colon: str) -> str:
    sign = "-" if seconds < 0 else "+"
    seconds = abs(seconds)
    return f"{sign}{seconds // 3600:02d}{colon}{seconds % 3600 // 60:02d}"


def rfc3339(seconds: int, nanoseconds: int | None = None) -> str:
    """A moment in the local zone as RFC 3339; nanoseconds: always with nine digits of fraction."""
    parts = time.localtime(seconds)
    fraction = "" if nanoseconds is None else f".{nanoseconds:09d}"
    zone = "Z" if parts.tm_gmtoff == 0 else _offset(parts.tm_gmtoff, ":")
    return _date(parts, "T") + fraction + zone


def go_string(text: str) -> str:
    """An RFC 3339 text as time.Time's String shows it once parsed; other texts unchanged."""
    if len(text) < 20 or text[10] != "T":
        return text
    date, clock, rest = text[:10], text[11:19], text[19:]
    end = len(rest)
    for mark in "Z+-":
        at = rest.find(mark)
        end = min(end, at) if at >= 0 else end
    fraction, zone = rest[:end].rstrip("0"), rest[end:]
    fraction = "" if fraction == "." else fraction
    offset = "+0000" if zone == "Z" else zone.replace(":", "")
    local_offset = ""
    if zone != "Z":
        parts = time.localtime()
        local_offset = parts.tm_zone if _offset(parts.tm_gmtoff, "") == offset else offset
    return f"{date} {clock}{fraction} {offset} {'UTC' if zone == 'Z' else local_offset}"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def ansic(text: str) -> str:
    """An RFC 3339 text as `Mon Jan _2 15:04:05 2006`; other texts unchanged (docker's reformatDate)."""
    if len(text) < 20 or text[10] != "T" or text[19] not in "Z.+-" or not text[:4].isdecimal():
        return text
    try:
        year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
        weekday = _DAYS[(time.gmtime(_days(year, month, day) * 86400)).tm_wday]
        return f"{weekday} {_MONTHS[month - 1]} {day:2d} {text[11:19]} {year}"
    except (ValueError, IndexError, OverflowError):
        return text


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 (Howard Hinnant's days_from_civil)."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
