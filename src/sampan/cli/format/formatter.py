"""docker's `--format`: tables, `json`, `raw` and templates over the contexts of contexts.py.

Plain templates (text and `{{.Field}}`, as all default tables are) are done here without the template engine: `sampan ps` must start fast.
"""

from __future__ import annotations

from sampan.cli.format.table import tabulate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.cli.format.values import Methods


def simple(template: str, methods: tuple[str, ...]) -> list[str] | None:
    """The parts of a plain template, texts at even places and names of fields at odd ones; None if it needs the engine."""
    head, *rest = template.split("{{")
    parts = [head]
    for piece in rest:
        action, closes, text = piece.partition("}}")
        name = action.strip(" ")
        if not closes or name[:1] != "." or name[1:] not in methods or name in (".Label", ".Platform"):
            return None
        parts += [name[1:], text]
    return parts


def expand(parts: list[str], item: Methods) -> str:
    """A plain template for one item."""
    out = parts[0]
    for at in range(1, len(parts), 2):
        value = getattr(item, parts[at])()
        out += (value if value.__class__ is str else "true" if value else "false") + parts[at + 1]
    return out


def render(layout: str, items: Iterable[Methods], context: type[Methods], header: dict[str, str]) -> str:
    """The output for a list of objects. Raises CliError with docker's text for a template that fails."""
    is_table = layout.startswith("table")
    text = layout[5:] if is_table else "{{json .}}" if layout == "json" else layout
    text = text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    parts = simple(text, context.METHODS)
    if parts is not None:
        body = "".join([expand(parts, item) + "\n" for item in items])
        titles = parts[0] + "".join(header.get(part, "<no value>") if at % 2 == 0 else part for at, part in enumerate(parts[1:]))
    else:
        body, titles = _engine(text, items, header, is_table)
    return tabulate(titles + "\n" + body) if is_table else body


def _engine(text: str, items: Iterable[Methods], header: dict[str, str], is_table: bool) -> tuple[str, str]:
    from sampan.cli.http import CliError

    if text == "{{json .}}" and not is_table:
        from sampan.cli.format import gojson

        return "".join(gojson.dumps(item) + "\n" for item in items), ""
    from sampan.cli.format.execute import Template, TemplateError
    from sampan.cli.format.functions import HEADER
    from sampan.cli.format.values import Header

    try:
        template = Template(text)
        body = "".join([template.execute(item) + "\n" for item in items])
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None
    titles = ""
    if is_table:
        try:
            titles = template.execute(Header(header), functions=HEADER)
        except TemplateError as error:
            titles = getattr(error, "partial", "")
    return body, titles


def parse(text: str, name: str = "", functions: dict[str, Any] | None = None) -> Any:
    """A template, parsed. Raises CliError with code 64, as inspect, info, version and events end for a malformed one."""
    from sampan.cli.format.execute import Template, TemplateError
    from sampan.cli.http import CliError

    try:
        return Template(text, name, functions)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", 64) from None
