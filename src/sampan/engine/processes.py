"""`docker top`: the host's ps, its rows those of the container's cgroup."""

import asyncio

from sampan.errors import InvalidArgument
from sampan.runtime import cgroups
from sampan.runtime.cgroups import Layout
from sampan.spec.docker_api.container import TopResponse


def parse_ps(text: str, pids: set[int]) -> TopResponse:
    """Rows of ps whose PID is one of pids. Raises InvalidArgument when ps was told to leave the PID out.

    The last column may hold spaces (moby daemon/top_unix.go parsePSOutput).
    """
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    index = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > index and fields[index].isdecimal() and int(fields[index]) in pids:
            rows.append(fields)
    return TopResponse(titles=titles, processes=rows)


async def top(layout: Layout, cgroup: str, ps_args: str) -> TopResponse:
    """Run ps with the client's options (default -ef). Raises InvalidArgument with ps' own complaint."""
    if "\0" in ps_args:
        raise InvalidArgument("ps: invalid argument")
    process = await asyncio.create_subprocess_exec(
        "ps",
        *(ps_args or "-ef").split(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "COLUMNS": "4096"},
    )
    out, err = await process.communicate()
    if process.returncode:
        raise InvalidArgument(f"ps: {err.decode(errors='replace').strip().partition(chr(10))[0]}")
    return parse_ps(out.decode(errors="replace"), set(cgroups.processes(layout, cgroup)))
