"""sampan image inspect."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError
from sampan.cli.inspecting import FORMAT_HELP, getter, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    min_args=1,
    complete="images",
    flags=(
        Flag("format", "f", "string", "", FORMAT_HELP),
        Flag(
            "platform",
            "",
            "string",
            "",
            "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not "
            "multi-platform capable, the command will error out if the platform does not match.\n"
            "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
            api="1.49",
        ),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print what the daemon knows of the images named."""
    query = None
    if args.str("platform"):
        from sampan.cli.platforms import as_json

        query = {"platform": as_json(args.str("platform"))}
    get = getter(ctx, "image.InspectResponse", "/images/{}/json", query)

    def named(name: str) -> tuple[str, bytes]:
        if not name:
            raise CliError("Error: No such image: ")
        return get(name)

    return inspect(args.args, args.str("format"), named)
