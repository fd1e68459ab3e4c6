"""sampan update."""

from __future__ import annotations

from typing import Any

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    min_args=1,
    complete="containers:all",
    aliases=("container update", "update"),
    flags=(
        Flag("blkio-weight", "", "uint16", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)"),
        Flag("cpu-period", "", "int", 0, "Limit CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "", "int", 0, "Limit CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-rt-period", "", "int", 0, "Limit the CPU real-time period in microseconds", api="1.25"),
        Flag("cpu-rt-runtime", "", "int", 0, "Limit the CPU real-time runtime in microseconds", api="1.25"),
        Flag("cpu-shares", "c", "int", 0, "CPU shares (relative weight)"),
        Flag("cpus", "", "decimal", 0, "Number of CPUs", api="1.29"),
        Flag("cpuset-cpus", "", "string", "", "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "", "string", "", "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("memory", "m", "bytes", 0, "Memory limit"),
        Flag("memory-reservation", "", "bytes", 0, "Memory soft limit"),
        Flag("memory-swap", "", "swap-bytes", 0, "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
        Flag("pids-limit", "", "int", 0, "Tune container pids limit (set -1 for unlimited)", api="1.40"),
        Flag("publish-add", "", "list", (), "Publish a container's port to the host beside those that are (not of docker)"),
        Flag("publish-rm", "", "list", (), "Publish a port of the container (80, 53/udp) no more (not of docker)"),
        Flag("restart", "", "string", "", "Restart policy to apply when a container exits", complete="always no on-failure unless-stopped"),
    ),
)


def _body(args: Parsed) -> dict[str, Any]:
    """The UpdateConfig asked for. Raises CliError."""
    from sampan.cli.createbody import restart_policy

    try:
        policy = restart_policy(args.str("restart"))
    except ValueError as error:
        raise CliError(str(error)) from None
    return {
        "BlkioWeight": args.int("blkio-weight"),
        "CpuPeriod": args.int("cpu-period"),
        "CpuQuota": args.int("cpu-quota"),
        "CpuRealtimePeriod": args.int("cpu-rt-period"),
        "CpuRealtimeRuntime": args.int("cpu-rt-runtime"),
        "CpuShares": args.int("cpu-shares"),
        "NanoCpus": args.int("cpus"),
        "CpusetCpus": args.str("cpuset-cpus"),
        "CpusetMems": args.str("cpuset-mems"),
        "Memory": args.int("memory"),
        "MemoryReservation": args.int("memory-reservation"),
        "MemorySwap": args.int("memory-swap"),
        "PidsLimit": args.int("pids-limit") or None,
        "RestartPolicy": policy,
        **_ports(args),
    }


def _ports(args: Parsed) -> dict[str, Any]:
    """What is asked for of ports, if anything is. Raises CliError."""
    from sampan.cli.ports import publish

    if not _asks_for_ports(args):
        return {}
    try:
        return {"PublishAdd": publish(args.list("publish-add"))[1], "PublishRm": args.list("publish-rm")}
    except ValueError as error:
        raise CliError(str(error)) from None


def _asks_for_ports(args: Parsed) -> bool:
    return args.changed("publish-add") or args.changed("publish-rm")


def run(ctx: Context, args: Parsed) -> int:
    """Change limits, the restart policy and published ports of every container named."""
    if not any(args.changed(flag.name) for flag in SPEC.flags):
        raise CliError("you must provide one or more flags when using this command")
    body = _body(args)
    warnings: list[str] = []

    def update(name: str) -> None:
        answer = ctx.client.request("POST", f"/containers/{ctx.path(name)}/update", body=body).json()
        warnings.extend(answer.get("Warnings") or ())
        if _asks_for_ports(args) and "PortBindings" not in answer:
            raise CliError("this daemon cannot publish other ports of a container that is there (dockerd cannot): they are as they were")

    code = ctx.each(args.args, update)
    if warnings:
        ctx.print("\n".join(warnings))
    return code
