"""Kinds of error an engine call can end with; api/errors.py alone maps a kind to an HTTP status.

EngineError
 ├── NotFound            no such container, image, network, ...
 ├── InvalidArgument     the request itself is wrong
 ├── Conflict            the state of the object forbids it (name in use, is running)
 ├── NotModified         already in the state asked for
 ├── Forbidden           never allowed (predefined network)
 ├── Unauthorized        credentials missing or wrong
 ├── Unavailable         a needed service is away (not a swarm manager)
 ├── NotImplementedYet   a feature of docker that Sampan does not have yet
 └── SystemFailure       the host or a process of ours failed
"""

import errno
import os

_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""Unicode's other spaces (category Zs), which str.isprintable refuses. They are as harmless as the one it takes."""


def printable(text: str, kept: str = "") -> str:
    """Text for a terminal, whoever wrote it: nothing in it moves the cursor or turns the direction of writing. kept: let pass as well."""
    if text.isprintable():
        return text
    kept += _SPACES
    return "".join(char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text)


class EngineError(Exception):
    """An error with a message meant for the user, in docker's words where docker has them. What others wrote in it is made printable."""

    def __init__(self, message: str) -> None:
        self.message = printable(message, "\n\t")
        super().__init__(self.message)


class NotFound(EngineError):
    """The object named does not exist."""


class InvalidArgument(EngineError):
    """The request is malformed or asks for something impossible."""


class Conflict(EngineError):
    """The object's state forbids the operation."""


class NotModified(EngineError):
    """The object already is in the state asked for."""


class Forbidden(EngineError):
    """The operation is never allowed on this object."""


class Unauthorized(EngineError):
    """Credentials are missing or wrong."""


class Unavailable(EngineError):
    """A service this needs is not there (now)."""


class NotImplementedYet(EngineError):
    """Docker has this; Sampan does not, yet. The message names the feature."""


class SystemFailure(EngineError):
    """The host, the kernel or one of our own processes failed."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def full_disk(error: BaseException) -> SystemFailure | None:
    """A full disk, or a used-up quota, in docker's words; None for anything else."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    words = os.strerror(error.errno).lower()
    return SystemFailure(f"{error.filename}: {words}" if isinstance(error.filename, str) else words)
