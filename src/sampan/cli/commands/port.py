"""sampan port."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed
from sampan.cli.http import CliError
from sampan.units import natural_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    min_args=1,
    max_args=2,
    complete="containers:running",
    aliases=("container port", "port"),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print where a container's ports are published."""
    name = args.args[0]
    ports = ctx.client.request("GET", f"/containers/{ctx.path(name)}/json").json()["NetworkSettings"]["Ports"] or {}
    lines: list[str] = []
    if len(args.args) > 1 and args.args[1]:
        number, _, protocol = args.args[1].partition("/")
        if not (number.isascii() and number.isdigit()):
            raise CliError(f'Error: invalid port ({number}): strconv.ParseUint: parsing "{number}": invalid syntax')
        if int(number) > 65535:
            raise CliError(f'Error: invalid port ({number}): strconv.ParseUint: parsing "{number}": value out of range')
        bindings = ports.get(f"{number}/{protocol or 'tcp'}")
        if not bindings:
            raise CliError(f"Error: No public port '{args.args[1]}' published for {name}")
        lines = [_join(binding) for binding in bindings]
    else:
        lines = [f"{port} -> {_join(binding)}" for port, bindings in ports.items() for binding in bindings or ()]
    if lines:
        ctx.print("\n".join(sorted(lines, key=natural_key)))
    return 0


def _join(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"
