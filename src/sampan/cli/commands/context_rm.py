"""sampan context rm."""

from __future__ import annotations

from sampan.cli.commands.context_use import set_current
from sampan.cli.connect import current_context
from sampan.cli.contextstore import DEFAULT, ContextStore
from sampan.cli.flags import Command, Flag, Parsed, quote
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "CONTEXT [CONTEXT...]",
    "Remove one or more contexts",
    min_args=1,
    aliases=("context rm", "context remove"),
    complete="contexts",
    flags=(Flag("force", "f", "bool", False, "Force the removal of a context in use"),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Remove contexts, and print the name of each that is gone."""
    store = ContextStore(ctx.options)
    current = current_context(ctx.options)

    def remove(name: str) -> None:
        if name == DEFAULT:
            raise CliError('context "default" cannot be removed')
        if name == current:
            if not args.bool("force"):
                raise CliError(f"context {quote(name)} is in use, set -f flag to force remove")
            set_current(ctx, "")
        if not args.bool("force") and not store.exists(name):
            raise CliError(f"context {quote(name)} does not exist")
        store.remove(name)

    return ctx.each(args.args, remove)
