"""Which files of a context a Dockerfile is likely to copy, at a glance. It decides when a large file is hashed, and nothing else.

Too many rather than too few; what comes before the Dockerfile in the archive, or what a base's ONBUILD copies, cannot be known.
"""

import re
from typing import Final

_CONTINUED: Final = re.compile(rb"\\[ \t]*\r?\n")
_COPY: Final = re.compile(rb"^[ \t]*(?:COPY|ADD)[ \t]+(.*)$", re.IGNORECASE | re.MULTILINE)
_MOUNT: Final = re.compile(rb"^[ \t]*RUN[ \t].*--mount=\S*bind", re.IGNORECASE | re.MULTILINE)
_BETWEEN_WORDS: Final = re.compile(rb'[\s,"\[\]]+')
_NO_NAME: Final = re.compile(rb"[*?$\\]|(?:^|/)\.\.?(?:/|$)|^/*$")


class Meant:
    """The names that its COPYs and ADDs have."""

    def __init__(self, dockerfile: bytes) -> None:
        text = _CONTINUED.sub(b" ", dockerfile)
        self._all = _MOUNT.search(text) is not None
        self._names: set[bytes] = set()
        for line in _COPY.finditer(text):
            words = [word for word in _BETWEEN_WORDS.split(line[1]) if word]
            if any(word.startswith(b"--from=") for word in words):
                continue
            for word in [word.removeprefix(b"./") for word in words if not word.startswith(b"--")][:-1]:  # the last one is where to
                self._all = self._all or _NO_NAME.search(word) is not None
                self._names.add(word.strip(b"/"))

    def has(self, path: bytes) -> bool:
        """Whether it may mean a file by this path, or a directory that it is in."""
        return self._all or any(path == name or path.startswith(name + b"/") for name in self._names)
