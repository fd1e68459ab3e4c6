"""`userns-remap` of daemon.json: whose subordinate IDs the containers' users are, by /etc/subuid and /etc/subgid.

Source: moby daemon/daemon_unix.go setupRemappedRoot.
"""

import grp
import itertools
import logging
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from sampan.errors import SystemFailure
from sampan.runtime.plan import UserMaps

log = logging.getLogger("sampand")

DEFAULT = "default"
REMAP_USER = "dockremap"
"""Who `default` is: docker's own name for him."""
_LENGTH = 65536
_FIRST = 100000
_IDS = 2**32 - 1
_DIGITS = 10
_RANGES_MAX, _MAP_BYTES_MAX = 340, 4095
"""Of one map, and of its text (user_namespaces(7))."""
Range = tuple[int, int]
"""(first ID, how many)"""


class Accounts:
    """The host's users and groups."""

    def __init__(self, etc: Path = Path("/etc")) -> None:
        self._etc = etc

    def ranges(self, file: str) -> list[tuple[str, Range]]:
        """The (name or number, range) in subuid or subgid. Raises SystemFailure."""
        try:
            lines = (self._etc / file).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SystemFailure(f"error creating ID mappings: open {self._etc / file}: {(error.strerror or '').lower()}") from error
        found = []
        for fields in (line.strip().split(":") for line in lines if line.strip() and not line.startswith("#")):
            numbers = [int(field) for field in fields[1:3] if field.isascii() and field.isdigit() and len(field) <= _DIGITS]
            if len(numbers) == 2 and numbers[1]:
                found.append((fields[0], (numbers[0], numbers[1])))
        return found

    @staticmethod
    def user(name: str) -> pwd.struct_passwd | None:
        """By name or number."""
        try:
            return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        except (KeyError, OverflowError):
            return None

    @staticmethod
    def has_group(name: str) -> bool:
        """By name or number."""
        try:
            return bool(grp.getgrgid(int(name)) if name.isdecimal() else grp.getgrnam(name))
        except (KeyError, OverflowError):
            return False

    @staticmethod
    def run(command: Sequence[str]) -> None:
        """One of the host's programs for accounts. Raises SystemFailure with its complaint."""
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SystemFailure(f'Error during "{REMAP_USER}" user creation: {error}') from error
        if done.returncode:
            complaint = (done.stderr or done.stdout).strip()
            raise SystemFailure(f'Error during "{REMAP_USER}" user creation: {" ".join(command)}: {complaint}')


def maps_of(setting: str, accounts: Accounts | None = None) -> UserMaps | None:
    """What `userns-remap` says: `default`, `user[:group]` or `uid[:gid]`; None: the containers' users are the host's own.

    Makes the user of `default`, with his ranges, where he is missing. Raises SystemFailure in docker's words.
    """
    if not setting:
        return None
    accounts = accounts or Accounts()
    user, separator, group = setting.partition(":")
    if ":" in group:
        raise SystemFailure(f'Invalid user/group specification in --userns-remap: "{setting}"')
    if user == DEFAULT:
        user = REMAP_USER
        _make(accounts)
    found = accounts.user(user)
    if found is None:
        where = f'getent unable to find entry "{user}" in passwd database'
        raise SystemFailure(
            f"Uid {user} has no entry in /etc/passwd: {where}" if user.isdecimal() else f'Error during uid lookup for "{user}": {where}'
        )
    _check_group(accounts, group if separator else user, given=bool(separator))
    if found.pw_name == "root":
        log.warning("User namespaces: root cannot be remapped with itself; user namespaces are OFF")
        return None
    names = (found.pw_name, str(found.pw_uid))
    maps = [_map_of([part for name, part in accounts.ranges(file) if name in names], found.pw_name) for file in ("subuid", "subgid")]
    log.info("User namespaces: ID ranges will be mapped to subuid/subgid ranges of: %s", found.pw_name)
    return UserMaps(*maps)


def _check_group(accounts: Accounts, group: str, *, given: bool) -> None:
    if not accounts.has_group(group):
        where = f'getent unable to find entry "{group}" in group database'
        kind = "groupname" if given else "gid"
        raise SystemFailure(
            f"Gid {group} has no entry in /etc/group: {where}"
            if group.isdecimal()
            else f'Error during {kind} lookup for "{group}": {where}'
        )


def _map_of(ranges: Iterable[Range], user: str) -> tuple[tuple[int, int, int], ...]:
    """The ranges one after the other, from the container's root on. Raises SystemFailure."""
    found: list[tuple[int, int, int]] = []
    inside = 0
    for first, count in ranges:
        if first + count > _IDS or inside + count > _IDS:
            raise SystemFailure(f'error creating ID mappings: the range {first}:{count} of user "{user}" has IDs that there are not')
        if first == 0:
            log.warning("User namespaces: the range %d:%d of user %s has the host's root: he is in containers then", first, count, user)
        found.append((inside, first, count))
        inside += count
    if len(found) > _RANGES_MAX or sum(len("{} {} {}\n".format(*entry)) for entry in found) > _MAP_BYTES_MAX:
        raise SystemFailure(f'error creating ID mappings: user "{user}" has more ranges than a user namespace can')
    if any(first + count > after for (first, count), (after, _) in itertools.pairwise(sorted(entry[1:] for entry in found))):
        raise SystemFailure(f'error creating ID mappings: the ranges of user "{user}" overlap')
    if not found:
        raise SystemFailure(f'error creating ID mappings: no subuid ranges found for user "{user}"')
    return tuple(found)


def _make(accounts: Accounts) -> None:
    """The user of `default`, his group and his ranges, whatever of them is missing: a start that was killed is gone on with."""
    if accounts.user(REMAP_USER) is None:
        if shutil.which("adduser"):
            options = ("--system", "--shell", "/bin/false", "--no-create-home", "--disabled-login", "--disabled-password", "--group")
            accounts.run(["adduser", *options, REMAP_USER])
        elif shutil.which("useradd"):
            accounts.run(["useradd", "-r", "-U", "-s", "/bin/false", REMAP_USER])
        else:
            raise SystemFailure(f'Error during "{REMAP_USER}" user creation: cannot add user; no useradd/adduser binary found')
    for file, option in (("subuid", "-v"), ("subgid", "-w")):
        taken = accounts.ranges(file)
        if not any(name == REMAP_USER for name, _ in taken):
            first = _free([part for _, part in taken])
            accounts.run(["usermod", option, f"{first}-{first + _LENGTH - 1}", REMAP_USER])


def _free(taken: Iterable[Range]) -> int:
    """Where a range of the usual length begins that nobody else has."""
    start = _FIRST
    for first, count in sorted(taken):
        if first < start + _LENGTH and start < first + count:
            start = first + count
    return start
