"""Counters in /proc: the host's processors (/proc/stat) and a netns' interfaces (/proc/PID/net/dev)."""

from typing import NamedTuple

_TICK_NS = 10_000_000
"""USER_HZ is 100 on every architecture that we know."""


class Traffic(NamedTuple):
    """What went through an interface, as seen from its netns."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def processors(text: str) -> tuple[int, int]:
    """Of /proc/stat: the nanoseconds of all processors since boot, the idle ones too, but without those of guests; how many there are."""
    total = count = 0
    for line in text.splitlines():
        name, *words = line.split()
        if not name.startswith("cpu"):
            break
        if name == "cpu":
            total = sum(map(int, words[:7])) * _TICK_NS
        else:
            count += 1
    return total, count


def interfaces(text: str) -> dict[str, Traffic]:
    """Of /proc/net/dev: by the interface's name."""
    found = {}
    for line in text.splitlines()[2:]:
        name, colon, rest = line.rpartition(":")
        words = rest.split()
        if colon and len(words) >= 16:
            numbers = [int(word) for word in words]
            found[name.strip()] = Traffic(*numbers[:4], *numbers[8:12])
    return found
