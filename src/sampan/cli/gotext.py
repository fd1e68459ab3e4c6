"""Go's words for what Python words differently. Imported only where there is something to complain about."""

from __future__ import annotations

from sampan.spec import gojson


def json_error(raw: bytes) -> str:
    """Why raw is no JSON, as encoding/json says it."""
    try:
        gojson.parse(raw)
    except gojson.GoJsonError as error:
        return str(error)
    return "invalid JSON"
