"""JSON as Go decodes it into interface {} with UseNumber: numbers keep their text."""

from __future__ import annotations

import json

from sampan.cli.format.values import GoStr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def loads(raw: bytes) -> Any:
    """The document; every number is a json.Number."""
    return json.loads(raw.decode("utf-8", "surrogateescape"), parse_int=GoStr, parse_float=GoStr)
