"""sampan tag."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed, quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    min_args=2,
    max_args=2,
    aliases=("image tag", "tag"),
    complete="images",
)


def run(ctx: Context, args: Parsed) -> int:
    """Give an image another name."""
    from sampan.errors import InvalidArgument
    from sampan.reference import parse

    source, target = args.args
    for name in (source, target):
        try:
            if name == target or not (len(name) == 64 and all(char in "0123456789abcdef" for char in name)):
                parse(name if not name.startswith("sha256:") or name == target else "x@" + name)
        except InvalidArgument as error:
            raise CliError(f"Error parsing reference: {quote(name)} is not a valid repository/tag: {error.message}") from None
    reference = parse(target)
    if reference.digest:
        raise CliError("refusing to create a tag with a digest reference")
    query = {"repo": reference.name, "tag": reference.tag or "latest"}
    ctx.client.request("POST", f"/images/{ctx.path(source)}/tag", query).read()
    return 0
