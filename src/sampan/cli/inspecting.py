"""What all inspect commands do with the daemon's documents: indented JSON, `json`, or a template (docker's inspect.Inspector)."""

from __future__ import annotations

import sys

from sampan.cli.http import CliError, parse_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.cli.format.execute import Template

FORMAT_HELP = (
    "Format output using a custom template:\n'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
)


def inspect(names: Sequence[str], layout: str, get: Callable[[str], tuple[str, bytes]], *, ours: bool = False) -> int:
    """Print the documents of all `names`; `get` gives a name's Go type (for templates) and the document. Errors come last.

    ours: they are no daemon's, and have nothing that their type has not. A malformed template is exit code 64, any object that fails 1.
    """
    template = None
    if layout not in ("", "json"):
        from sampan.cli.format.formatter import parse

        template = parse(layout)
    errors: list[str] = []
    texts: list[str] = []
    for name in names:
        try:
            go_type, raw = get(name)
            document = parse_answer(raw)
            texts.append(_execute(template, go_type, document, raw, ours) + "\n" if template else raw.decode("utf-8", "surrogateescape"))
        except CliError as error:
            errors.append(error.message)
    if template:
        out = "".join(texts) or "\n"
    elif not texts:
        out = "[]\n"
    else:
        from sampan.cli.format import gojson

        whole = "[" + ",".join(texts) + "]"
        out = (gojson.compact(whole) if layout == "json" else gojson.indent(whole)) + "\n"
    sys.stdout.write(out)
    if errors:
        raise CliError("\n".join(errors))
    return 0


def _execute(template: Template, go_type: str, document: Any, raw: bytes, ours: bool) -> str:
    """The template over the typed object; when that fails over the plain document, as docker does (there a missing key is an error)."""
    from sampan.cli.format import schema
    from sampan.cli.format.lex import TemplateError
    from sampan.cli.format.untyped import loads

    try:
        return template.execute(schema.decode(go_type, document))
    except TemplateError as error:
        if ours:
            raise CliError(f"template parsing error: {error}") from None
    try:
        return template.execute(loads(raw), missing_error=True)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None


def getter(ctx: Any, go_type: str, path: str, query: dict[str, Any] | None = None) -> Callable[[str], tuple[str, bytes]]:
    """A `get` for objects at `path` (with {} for the name)."""

    def get(name: str) -> tuple[str, bytes]:
        return go_type, ctx.client.request("GET", path.format(ctx.path(name)), query).read()

    return get
