"""Users and their passwords: a file as `htpasswd -B` writes it, read again when it changes. bcrypt only, as docker-registry."""

import hashlib
import logging
import os
import re
import secrets
from pathlib import Path

from sampan.linux.crypt import crypt, matches

log = logging.getLogger("sampan.registry")
_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}", re.ASCII)
_SALT = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
COST = 10
LEAST_COST = 4
FILE_MAX = 4 << 20


def hashed(password: str, cost: int = COST) -> str:
    """A line's second half. Raises OSError: the C library here cannot (ENOSYS), or the password is too long."""
    # 16 bytes are 21 characters and two bits, so the last one has four values
    salt = "".join(secrets.choice(_SALT) for _ in range(21)) + secrets.choice(".Oeu")
    found = crypt(password.encode(), f"$2y${cost:02}${salt}".encode())
    if found is None:
        raise OSError(38, "bcrypt is not to be had of this system's C library, or the password is too long")
    return found.decode()


def _of_nobody(cost: int) -> bytes:
    """No password's hash, which takes as long to compare as one."""
    text = "".join(secrets.choice(_SALT) for _ in range(21)) + "." + "".join(secrets.choice(_SALT) for _ in range(31))
    return f"$2y${cost:02}${text}".encode()


def parse(text: str) -> tuple[dict[str, bytes], list[str]]:
    """Users with their hashes, and complaints."""
    users: dict[str, bytes] = {}
    complaints = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name, colon, password = entry.partition(":")
        if not colon or not name:
            complaints.append(f"line {number}: not NAME:HASH")
        elif not _BCRYPT.fullmatch(password):
            complaints.append(f"line {number}: the password of {name} is not bcrypt (htpasswd -B): the user cannot log in")
        else:
            users[name] = password.encode()
    return users, complaints


class Htpasswd:
    """One such file. Raises OSError at its start when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._users: dict[str, bytes] = {}
        self._nobody = b""
        """Whoever does not exist takes as long as the others."""
        hashed("", LEAST_COST)  # whether the C library can
        self.generation = 0
        """Changes when the file does."""
        self._read()

    def _read(self) -> None:
        found = os.stat(self._path)
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp == self._stamp:
            return
        with self._path.open("rb") as file:
            text = file.read(FILE_MAX).decode("utf-8", "replace")
        self._users, complaints = parse(text)
        self._nobody = _of_nobody(max((int(known[4:6]) for known in self._users.values()), default=COST))
        self._stamp = stamp
        self.generation += 1
        for complaint in complaints:
            log.warning("%s: %s", self._path, complaint)
        log.info("%s: %d users", self._path, len(self._users))

    def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be read leaves the users as they were."""
        try:
            self._read()
        except OSError as error:
            log.error("%s: %s", self._path, error.strerror)

    def mark(self, name: str) -> str:
        """Changes with the user's password; "": no such user."""
        known = self._users.get(name)
        return hashlib.sha256(known).hexdigest()[:16] if known is not None else ""

    def check(self, name: str, password: str) -> bool:
        """Whether this is the user's password. Takes as long as bcrypt does: call it in a thread."""
        return matches(password.encode(), self._users.get(name, self._nobody)) and name in self._users
