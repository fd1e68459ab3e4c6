"""sampan rmi."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import ApiError, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    min_args=1,
    aliases=("image rm", "image remove", "rmi"),
    complete="images",
    flags=(
        Flag("force", "f", "bool", False, "Force removal of the image"),
        Flag("no-prune", "", "bool", False, "Do not delete untagged parents"),
        Flag(
            "platform",
            "",
            "strings",
            (),
            'Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
            api="1.50",
        ),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove images, or names of images."""
    force = args.bool("force")
    query: dict[str, object] = {"force": force or None, "noprune": args.bool("no-prune") or None}
    if args.list("platform"):
        from sampan.cli.platforms import as_json

        query["platforms"] = [as_json(text) for text in args.list("platform")]
    errors: list[str] = []
    fatal = False
    for name in args.args:
        try:
            removed = ctx.client.request("DELETE", f"/images/{ctx.path(name)}", query).json() or []
        except CliError as error:
            fatal |= not (isinstance(error, ApiError) and error.status == 404)
            errors.append(error.message)
            continue
        for one in removed:
            ctx.print(f"Deleted: {one['Deleted']}" if one.get("Deleted") else f"Untagged: {one.get('Untagged', '')}")
    if errors and (not force or fatal):
        raise CliError("\n".join(errors))
    if errors:
        ctx.error("\n".join(errors))
    return 0
