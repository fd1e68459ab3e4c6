"""sampan context update."""

from __future__ import annotations

from sampan.cli.commands.context_create import DESCRIPTION, ENDPOINT, endpoint_of, long_help
from sampan.cli.contextstore import DOCKER, ContextStore, check_name
from sampan.cli.flags import Command, Parsed, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] CONTEXT",
    "Update a context",
    long=long_help("update"),
    min_args=1,
    max_args=1,
    complete="contexts",
    flags=(DESCRIPTION, ENDPOINT),
)


def run(ctx: Context, args: Parsed) -> int:
    """Give a context another description or endpoint."""
    name, given = args.args[0], args.get("docker")
    check_name(name)
    store = ContextStore(ctx.options)
    document = store.get(name)
    if args.str("description"):
        document["Metadata"] = {**(document["Metadata"] or {}), "Description": args.str("description")}
    files = None
    if given is not None:
        document["Endpoints"][DOCKER], contents = endpoint_of(store, given)
        files = {DOCKER: contents}
    store.save(document, files)
    ctx.print(name)
    ctx.error(f"Successfully updated context {quote(name)}")
    return 0
