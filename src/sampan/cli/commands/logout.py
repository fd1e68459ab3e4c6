"""sampan logout."""

from __future__ import annotations

from sampan.cli import credentials
from sampan.cli.flags import Command, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[SERVER]",
    "Log out from a registry",
    long="Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    max_args=1,
    complete="none",
)


def run(ctx: Context, args: Parsed) -> int:
    """Forget the credentials for a registry, under whatever name they were kept."""
    given = args.args[0] if args.args else ""
    if not given:
        print("Removing login credentials for", credentials.INDEX_SERVER)
        credentials.erase(ctx, credentials.INDEX_SERVER)
        return 0
    host = credentials.hostname(given)
    print("Removing login credentials for", host)
    for name in (given, host, f"http://{host}", f"https://{host}"):
        credentials.erase(ctx, name)
    return 0
