"""JSON without the `json` package: that one imports `re` at a cost of several milliseconds, this one only the C accelerators it is made of.

Falls back to `json` on an interpreter without them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json

    class _Scan:
        strict = False
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float
        memo: dict[str, str] = {}  # noqa: RUF012  # the scanner's own cache of key strings

    _scan = _json.make_scanner(_Scan())  # type: ignore[arg-type]

    def loads(raw: bytes | str) -> Any:
        """Parse a JSON document. Raises ValueError for anything else."""
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        text = text.strip(" \t\r\n")
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            raise ValueError("not a JSON document") from None
        except RecursionError:
            raise ValueError("exceeded max depth") from None
        if end != len(text):
            raise ValueError(f"data after the JSON document at {end}")
        return value

    def dumps(value: Any) -> str:
        """Compact JSON; other alphabets are left readable."""
        if isinstance(value, str):
            return _json.encode_basestring(value)
        encode = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, True)
        return "".join(encode(value, 0))

except ImportError:  # pragma: no cover - CPython always has them
    import json

    def loads(raw: bytes | str) -> Any:
        """Parse a JSON document. Raises ValueError for anything else."""
        try:
            return json.loads(raw)
        except RecursionError:
            raise ValueError("exceeded max depth") from None

    def dumps(value: Any) -> str:
        """Compact JSON; other alphabets are left readable."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")
