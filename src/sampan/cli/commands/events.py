"""sampan events."""

from __future__ import annotations

import sys

from sampan.cli import fastjson
from sampan.cli.filters import encode
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.gotime import rfc3339
from sampan.cli.http import CliError
from sampan.cli.inspecting import FORMAT_HELP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Get real time events from the server",
    max_args=0,
    aliases=("system events", "events"),
    flags=(
        Flag("filter", "f", "filter", None, "Filter output based on conditions provided"),
        Flag("format", "", "string", "", FORMAT_HELP),
        Flag("since", "", "string", "", "Show all events created since timestamp"),
        Flag("until", "", "string", "", "Stream events until this timestamp"),
    ),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print events as they come."""
    template = _template(args.str("format"))
    query: dict[str, object] = {"filters": encode(args.get("filter"))}
    for name in ("since", "until"):
        if args.str(name):
            from sampan.cli.timestamps import to_unix

            try:
                query[name] = to_unix(args.str(name))
            except ValueError as error:
                raise CliError(str(error)) from None
    for line in ctx.client.request("GET", "/events", query).lines():
        event = fastjson.loads(line)
        sys.stdout.write((_formatted(template, event) if template else _pretty(event)) + "\n")
        sys.stdout.flush()
    return 0


def _template(layout: str) -> Any:
    if not layout:
        return None
    from sampan.cli.format import schema
    from sampan.cli.format.execute import Template
    from sampan.cli.format.lex import TemplateError

    try:
        template = Template("{{json .}}" if layout == "json" else layout)
        template.execute(schema.decode("*events.Message", {}))
    except TemplateError as error:
        raise CliError(f"Error parsing format: {error}", 64) from None
    return template


def _formatted(template: Any, event: dict[str, Any]) -> str:
    from sampan.cli.format import schema
    from sampan.cli.format.lex import TemplateError

    try:
        text: str = template.execute(schema.decode("events.Message", event))
    except TemplateError as error:
        sys.stdout.write(getattr(error, "partial", "") + "\n")
        raise CliError(str(error)) from None
    return text


def _pretty(event: dict[str, Any]) -> str:
    actor = event.get("Actor") or {}
    nanoseconds = event.get("timeNano") or (event.get("time") or 0) * 10**9
    stamp = rfc3339(nanoseconds // 10**9, nanoseconds % 10**9) + " " if nanoseconds else ""
    attributes = actor.get("Attributes") or {}
    shown = ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    text = f"{stamp}{event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    return f"{text} ({shown})" if shown else text
