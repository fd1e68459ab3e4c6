"""--platform on the wire."""

from __future__ import annotations

from sampan.cli import fastjson
from sampan.cli.http import CliError

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}


def as_json(text: str, prefix: str = "") -> str:
    """`os[/arch[/variant]]` as the JSON object that the API takes."""
    parts = text.split("/")
    if len(parts) > 3 or not all(part and part.replace("-", "").replace("_", "").replace(".", "").isalnum() for part in parts):
        raise CliError(f'{prefix}"{text}": invalid platform specifier: invalid argument')
    found = {"architecture": "", "os": parts[0].lower()}
    if len(parts) == 1:
        found["architecture"] = "amd64"
    else:
        found["architecture"] = _ARCHITECTURES.get(parts[1].lower(), parts[1].lower())
    if len(parts) == 3:
        found["variant"] = parts[2].lower()
    return fastjson.dumps(found)
