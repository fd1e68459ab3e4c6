"""Requests' queries and bodies into typed values, with docker's error texts (moby api/server/httputils)."""

import base64
import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from sampan.errors import InvalidArgument
from sampan.reference import Reference, is_tag, parse
from sampan.spec import gojson
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_layout import Platform

S = TypeVar("S", bound=msgspec.Struct)

_FALSE = frozenset(("", "0", "no", "false", "none"))
_INT64_MAX = (1 << 63) - 1
_DECIMAL = re.compile(r"[+-]?[0-9]+")
MAX_QUERY_FIELDS = 1000


def atoi(text: str, function: str = "Atoi") -> int:
    """Go's strconv.Atoi. Raises InvalidArgument with strconv's text (docker itself answers 500 here)."""
    if not _DECIMAL.fullmatch(text) or len(text) > 4000:
        raise InvalidArgument(f"strconv.{function}: parsing {go_quote(text)}: invalid syntax")
    value = int(text) if len(text) < 32 else _INT64_MAX + 1
    if not -_INT64_MAX - 1 <= value <= _INT64_MAX:
        raise InvalidArgument(f"strconv.{function}: parsing {go_quote(text)}: value out of range")
    return value


def go_quote(text: str) -> str:
    """Text as Go's %q writes it (common cases)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


class Query:
    """The decoded query string. The first of several equal keys counts, as in Go's Form.Get."""

    def __init__(self, raw: str) -> None:
        self._pairs: list[tuple[str, str]] = []
        if raw:
            try:
                self._pairs = parse_qsl(raw, keep_blank_values=True, errors="replace", max_num_fields=MAX_QUERY_FIELDS)
            except ValueError:
                raise InvalidArgument("too many query parameters") from None

    def text(self, name: str, default: str = "") -> str:
        """The value, or default if it is absent."""
        return next((value for key, value in self._pairs if key == name), default)

    def texts(self, name: str) -> list[str]:
        """All values."""
        return [value for key, value in self._pairs if key == name]

    def has(self, name: str) -> bool:
        """Whether the key is there at all."""
        return any(key == name for key, _ in self._pairs)

    def flag(self, name: str, default: bool = False) -> bool:
        """httputils.BoolValue: false is empty, 0, no, false, none; default where the key is absent."""
        if not self.has(name):
            return default
        return self.text(name).strip().lower() not in _FALSE

    def number(self, name: str, default: int = 0) -> int:
        """An int, default if absent or empty. Raises InvalidArgument in strconv's words."""
        text = self.text(name)
        return atoi(text) if text else default

    def filters(self) -> dict[str, list[str]]:
        """`filters` in either of docker's forms: {"k": {"v": true}} or the older {"k": ["v"]}."""
        raw = self.text("filters")
        return decode_filters(raw) if raw else {}


def decode_filters(raw: str) -> dict[str, list[str]]:
    """Raises InvalidArgument("invalid filter") on anything but the two forms."""
    try:
        value = gojson.parse(raw.encode("utf-8", "replace"))
    except gojson.GoJsonError:
        raise InvalidArgument("invalid filter") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument("invalid filter")
    return {key: _filter_values(values) for key, values in value.items()}


def _filter_values(values: Any) -> list[str]:
    if values is None:
        return []
    if isinstance(values, dict) and all(isinstance(on, bool) for on in values.values()):
        return list(values)
    if isinstance(values, list) and all(isinstance(item, str) for item in values):
        return values
    raise InvalidArgument("invalid filter")


def platform(query: Query) -> Platform | None:
    """`platform`, an OCI platform in JSON, or None (moby httputils.DecodePlatform). Raises InvalidArgument."""
    texts = query.texts("platform")
    if len(texts) > 1:
        raise InvalidArgument("multiple platform parameters not supported")
    if not texts or not texts[0]:
        return None
    return _platform(texts[0])


def removed_platform(query: Query) -> Platform | None:
    """The one of `platforms`, or None (moby httputils.DecodePlatforms; daemon/images/image_delete.go). Raises InvalidArgument."""
    found = [_platform(text) for text in query.texts("platforms")]
    if len(found) > 1:
        raise InvalidArgument("multiple platforms are not supported")
    return found[0] if found else None


def _platform(text: str) -> Platform:
    try:
        found = gojson.convert(gojson.parse(text.encode("utf-8", "replace")), Platform)
    except gojson.GoJsonError as problem:
        raise InvalidArgument(f"failed to parse platform: {problem}") from None
    if not found.os and not found.architecture and found.variant:
        raise InvalidArgument("optional platform components provided, but OS and Architecture are missing")
    if not found.os or not found.architecture:
        raise InvalidArgument("both OS and Architecture must be provided")
    return found


def dimension(query: Query, name: str, field: str) -> int:
    """h or w of a resize: uint32 (moby httputils.Uint32Value)."""
    text = query.text(name)
    digits = text.removeprefix("-")
    problem = ""
    if not digits or not digits.isascii() or not digits.isdecimal():
        problem = "invalid syntax"
    elif len(digits) > 30 or int(digits) >= 1 << 32 or text.startswith("-"):
        problem = "value out of range"
    if problem:
        raise InvalidArgument(f"invalid resize {field} {go_quote(text)}: {problem}")
    return int(digits)


def timestamp_ns(text: str) -> int:
    """`seconds[.nanoseconds]` as nanoseconds; "" is 0 (moby api/types/time.ParseTimestamps)."""
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    whole = atoi(seconds, "ParseInt")
    if not fraction:
        return whole * 1_000_000_000
    part = atoi(fraction, "ParseInt")
    # Go scales by the digits given: ".5" is half a second.
    scale: int = 10 ** max(0, 9 - len(fraction))
    return whole * 1_000_000_000 + part * scale


def check_json_type(content_type: str, has_body: bool) -> None:
    """httputils.CheckForJSON: a body must say it is JSON; no header without a body is fine."""
    if not content_type:
        if has_body:
            raise InvalidArgument("malformed Content-Type header (): mime: no media type")
        return
    media = content_type.partition(";")[0].strip().lower()
    if media != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({content_type}): must be 'application/json'")


def decode_body(data: bytes, cls: type[S]) -> S:
    """A JSON body. Raises InvalidArgument with docker's `invalid JSON: ...`."""
    return convert_body(parse_body(data), cls)


def parse_body(data: bytes) -> Any:
    """The body's JSON value, untyped. No text in it has a NUL, which no path, argument or name can have."""
    try:
        value = gojson.parse(data)
    except gojson.TrailingData as problem:
        raise InvalidArgument(str(problem)) from None
    except gojson.GoJsonError as problem:
        raise InvalidArgument(f"invalid JSON: {problem}") from None
    if b"\\u0000" in data and _has_nul(value):
        raise InvalidArgument("invalid JSON: a NUL character in a string")
    return value


def _has_nul(value: Any) -> bool:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            left.extend(item)
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return False


def convert_body(value: Any, cls: type[S]) -> S:
    """A parsed body as a struct. Raises InvalidArgument as decode_body does."""
    try:
        return gojson.convert(value, cls)
    except gojson.GoJsonError as problem:
        raise InvalidArgument(f"invalid JSON: {problem}") from None


def registry_auth(header: str) -> AuthConfig:
    """X-Registry-Auth: base64 of JSON, in either alphabet, padded or not. What cannot be read is nobody, as in dockerd."""
    try:
        return msgspec.json.decode(_unwrapped(header), type=AuthConfig)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return AuthConfig()


def registry_config(header: str) -> dict[str, AuthConfig]:
    """X-Registry-Config of a build: credentials by registry, encoded as X-Registry-Auth. What cannot be read is nobody's, as in dockerd."""
    try:
        return msgspec.json.decode(_unwrapped(header), type=dict[str, AuthConfig])
    except (ValueError, msgspec.DecodeError, RecursionError):
        return {}


def _unwrapped(header: str) -> bytes:
    """The JSON in a header. Raises ValueError."""
    text = header.rstrip("=").replace("+", "-").replace("/", "_")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def registry_reference(name: str, tag: str) -> Reference:
    """What a name and a tag (a digest too) mean at a registry; with neither, every tag. Raises InvalidReference, InvalidArgument."""
    reference = parse(name)
    if not tag:
        return reference
    if ":" in tag:
        return parse(f"{reference.name}@{tag}")
    if not is_tag(tag):
        raise InvalidArgument("invalid reference format")
    return reference.repository().with_tag(tag)
