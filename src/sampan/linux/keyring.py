"""The session keyring."""

from sampan.linux.libc import syscall

_JOIN_SESSION_KEYRING = 1


def join_session(name: str) -> None:
    """A new session keyring of this name, so that a container does not hold the engine's keys."""
    syscall("keyctl", _JOIN_SESSION_KEYRING, name.encode(), 0, 0, 0)
