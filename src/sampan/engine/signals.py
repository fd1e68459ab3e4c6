"""Signals by the names users give them."""

import signal as signals

from sampan.errors import InvalidArgument
from sampan.spec.docker_api.container import Config

_STOP_SIGNAL = "SIGTERM"
_ENDS = frozenset((signals.SIGINT, signals.SIGQUIT, signals.SIGABRT, signals.SIGTERM))


def signal_number(text: str) -> int:
    """A signal by name (with or without SIG) or number. Raises InvalidArgument in docker's words."""
    word = text.upper()
    if len(word) > 16:
        raise InvalidArgument(f"invalid signal: {text[:64]}...")
    if word.isdecimal():
        number = int(word)
        if 0 < number <= 64:
            return number
        raise InvalidArgument(f"invalid signal: {text}")
    name = word if word.startswith("SIG") else f"SIG{word}"
    base, _, offset = name.partition("+" if "+" in name else "-")
    if base in ("SIGRTMIN", "SIGRTMAX"):
        real = int(signals.SIGRTMIN) if base == "SIGRTMIN" else int(signals.SIGRTMAX)
        number = real + (int(offset) if "+" in name else -int(offset)) if offset.isdecimal() else real
        if int(signals.SIGRTMIN) <= number <= int(signals.SIGRTMAX):
            return number
    elif name in signals.Signals.__members__:
        return int(signals.Signals[name])
    raise InvalidArgument(f"invalid signal: {text}")


def stop_signal(config: Config) -> int:
    """What a container is asked to end by; 0: by none, for it has a number that is no signal's, as docker lets it have."""
    try:
        return signal_number(config.stop_signal or _STOP_SIGNAL)
    except InvalidArgument:
        return 0


def means_end(config: Config, number: int) -> bool:
    """Whether who sends that signal wants the container to end, and to stay so whatever its restart policy.

    Docker takes any signal for that where a container has no stop signal of its own, even the SIGHUP of a reload, and then does not
    restart what fails weeks later (moby daemon/kill.go).
    """
    return number in (signals.SIGKILL, stop_signal(config)) or (not config.stop_signal and number in _ENDS)
