"""sampan context inspect."""

from __future__ import annotations

from sampan.cli.connect import current_context
from sampan.cli.contextstore import ContextStore
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.inspecting import FORMAT_HELP, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    complete="contexts",
    flags=(Flag("format", "f", "string", "", FORMAT_HELP),),
)
_TYPE = "context.contextWithTLSListing"


def run(ctx: Context, args: Parsed) -> int:
    """Print what is stored of the contexts named, else of the current one."""
    from sampan.cli.format import gojson, schema

    store = ContextStore(ctx.options)

    def get(name: str) -> tuple[str, bytes]:
        meta, tls = store.places(name)
        document = {**store.get(name), "TLSMaterial": store.tls_files(name), "Storage": {"MetadataPath": meta, "TLSPath": tls}}
        return _TYPE, gojson.dumps(schema.decode(_TYPE, document), html=True).encode()

    return inspect(args.args or [current_context(ctx.options)], args.str("format"), get, ours=True)
