"""sampan inspect: an object of any kind."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed, quote
from sampan.cli.http import ApiError, CliError
from sampan.cli.inspecting import FORMAT_HELP, getter, inspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

# in the order in which docker looks: kind, Go type, path, whether only a swarm manager has it
_KINDS = (
    ("container", "*container.InspectResponse", "/containers/{}/json", False),
    ("image", "image.InspectResponse", "/images/{}/json", False),
    ("network", "network.Inspect", "/networks/{}", False),
    ("volume", "volume.Volume", "/volumes/{}", False),
    ("service", "interface {}", "/services/{}", True),
    ("task", "interface {}", "/tasks/{}", True),
    ("node", "interface {}", "/nodes/{}", True),
    ("plugin", "interface {}", "/plugins/{}/json", False),
    ("secret", "interface {}", "/secrets/{}", True),
    ("config", "interface {}", "/configs/{}", True),
)
_NAMES = tuple(sorted(kind for kind, *_ in _KINDS))
SPEC = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on Docker objects",
    min_args=1,
    complete="containers:all",
    flags=(
        Flag("format", "f", "string", "", FORMAT_HELP),
        Flag("size", "s", "bool", False, "Display total file sizes if the type is container"),
        Flag("type", "", "string", "", "Only inspect objects of the given type", complete="words:" + ",".join(_NAMES)),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print what the daemon knows of the objects named, whatever they are."""
    kind = args.str("type")
    choices = '", "'.join(_NAMES)
    if args.changed("type") and not kind:
        raise CliError(f'type is empty: must be one of "{choices}"')
    if kind and kind not in _NAMES:
        raise CliError(f'unknown type: {quote(kind)}: must be one of "{choices}"')
    size = args.bool("size")

    def get(name: str) -> tuple[str, bytes]:
        return _find(ctx, name, kind, size)

    return inspect(args.args, args.str("format"), get)


def _find(ctx: Context, name: str, wanted: str, size: bool) -> tuple[str, bytes]:
    manager: bool | None = None
    for kind, go_type, path, swarm in _KINDS:
        if wanted and kind != wanted:
            continue
        if not wanted and swarm:
            manager = _is_manager(ctx) if manager is None else manager
            if not manager:
                continue
        try:
            found = getter(ctx, go_type, path, {"size": True} if size and kind == "container" else None)(name)
        except CliError as error:
            missing = isinstance(error, ApiError) and error.status == 404
            if not wanted and (missing or "not supported" in error.message or "invalid reference format" in error.message):
                continue
            raise
        if size and kind != "container":
            ctx.error(f"WARNING: --size ignored for {kind}")
        return found
    raise CliError(f"Error: No such object: {name}")


def _is_manager(ctx: Context) -> bool:
    try:
        info = ctx.client.request("GET", "/info").json()
    except CliError as error:
        ctx.error(error.message)
        return False
    return bool((info.get("Swarm") or {}).get("ControlAvailable"))
