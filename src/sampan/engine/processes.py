"""A container's processes and users: `docker top` by the host's ps, and who `exec -u` would be by the container's own files."""

import asyncio
import os
import re

from sampan.errors import InvalidArgument, SystemFailure
from sampan.linux import users
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2
from sampan.runtime import cgroups
from sampan.runtime.cgroups import Layout
from sampan.spec.docker_api.container import TopResponse

_RENAMED = re.compile(r"\s([^\s]*)=\s*(PID[^\s]*)")
"""An option of ps that gives a column the title by which the PIDs are found."""


def parse_ps(text: str, pids: set[int]) -> TopResponse:
    """Rows of ps whose PID is one of pids, and the threads (`-`) below them. Raises SystemFailure: there is no column of PIDs.

    The last column may hold spaces (moby daemon/top_unix.go parsePSOutput).
    """
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise SystemFailure("Couldn't find PID field in ps output")
    index, last = titles.index("PID"), len(titles) - 1
    rows = []
    is_ours = False
    for line in lines[1:]:
        fields = line.split()
        if len(fields) <= index:
            continue
        if fields[index] != "-":
            is_ours = fields[index].isdecimal() and int(fields[index]) in pids
        if is_ours:
            rows.append([*fields[:last], " ".join(fields[last:])])
    return TopResponse(titles=titles, processes=rows)


async def top(layout: Layout, cgroup: str, ps_args: str) -> TopResponse:
    """Run ps with the client's options (default -ef). Raises SystemFailure with ps' own complaint."""
    if "\0" in ps_args:
        raise SystemFailure("ps: invalid argument")
    for name, title in _RENAMED.findall(ps_args):
        if name != "pid":
            raise SystemFailure(f'specifying "{name}={title}" is not allowed')
    pids = cgroups.processes(layout, cgroup)
    options = (ps_args or "-ef").split()
    try:
        code, out, err = await _ps(*options, f"-q{','.join(map(str, pids))}")
    except OSError:  # so many that the kernel takes no such word
        code, out, err = None, "", ""
    if code != 0:  # some options (f) do not go with -q
        code, out, err = await _ps(*options)
    if code:
        raise SystemFailure(f"ps: {err.strip().partition(chr(10))[0]}")
    return parse_ps(out, set(pids))


async def _ps(*options: str) -> tuple[int | None, str, str]:
    """The host's ps: its status, output and complaints."""
    process = await asyncio.create_subprocess_exec(
        "ps",
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "COLUMNS": "4096"},
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


_NUMERIC = re.compile(r"\d{1,9}(:\d{1,9})?")


def _open(root: int, path: bytes) -> int | None:
    """A descriptor, -1 if there is no such file, None if it is not to be looked into."""
    try:
        return openat2(root, path, os.O_RDONLY | os.O_NONBLOCK, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
    except OSError as error:
        return -1 if isinstance(error, FileNotFoundError) else None


def check_user(pid: int, user: str) -> None:
    """Refuse a user that a running container (by its init's pid) does not know. Raises InvalidArgument in docker's words. Blocks briefly.

    Files that a container has mounted are not looked into, as they may hang: the exec itself will tell.
    """
    if not user or _NUMERIC.fullmatch(user):
        return
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    fds = [_open(root, b"etc/passwd"), _open(root, b"etc/group")]
    try:
        passwd, group = fds
        if passwd is not None and group is not None:
            users.check(user, users.passwd_table(passwd), users.group_table(group))
    except users.LookupFailure as failure:
        raise InvalidArgument(failure.message) from None
    finally:
        for fd in (root, *fds):
            if fd is not None and fd >= 0:
                os.close(fd)
