"""--platform on the wire: JSON of an OCI platform, or containerd's text."""

from __future__ import annotations

from sampan.cli import fastjson
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.platforms import Specifier


def as_json(text: str, prefix: str = "") -> str:
    """`os[/arch[/variant]]` as the JSON object that the API takes. Raises CliError in containerd's words, after prefix."""
    found = _parsed(text, prefix)
    keys = {"architecture": found.architecture, "os": found.os, "os.version": found.os_version, "variant": found.variant}
    return fastjson.dumps({key: value for key, value in keys.items() if value or key in ("architecture", "os")})


def as_text(text: str, prefix: str) -> str:
    """`linux/x86_64` as `linux/amd64`, "" as "". Raises CliError in containerd's words, after prefix."""
    return str(_parsed(text, prefix)) if text else ""


def _parsed(text: str, prefix: str) -> Specifier:
    from sampan.errors import InvalidArgument
    from sampan.platforms import parse

    try:
        return parse(text)
    except InvalidArgument as error:
        raise CliError(f"{prefix}{error.message}") from None
