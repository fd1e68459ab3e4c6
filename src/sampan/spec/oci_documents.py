"""Reading JSON documents that others wrote: what archives hold and registries send."""

import re
from typing import Final, TypeVar

import msgspec

from sampan.errors import InvalidArgument

NESTING_MAX: Final = 100
"""Lists and objects within each other. Real documents have six. Far below Python's limit of recursion, so that what was read once can be
read again wherever the stack is deeper: at the next start."""
ELEMENTS_MAX: Final = 200_000
"""Values of one document: each may take 100 times its length in memory."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE = bytes.maketrans(b"{}", b"[]")

T = TypeVar("T")


def elements(document: bytes) -> int:
    """How many values a document may have: not less than it has."""
    return document.count(b",") + document.count(b"[") + document.count(b"{") + 1


def decode(document: bytes, kind: type[T], what: str) -> T:
    """Read a document; fields that kind does not have are ignored. Raises InvalidArgument, `what: why`, whatever the bytes are."""
    if elements(document) > ELEMENTS_MAX:
        raise InvalidArgument(f"{what}: more than {ELEMENTS_MAX} values")
    if _is_deep(document):
        raise InvalidArgument(f"{what}: lists and objects within each other, more than {NESTING_MAX} deep")
    try:
        return msgspec.json.decode(document, type=kind)
    except ValueError as error:  # msgspec's own, and UnicodeDecodeError
        raise InvalidArgument(f"{what}: {error}") from error


def _is_deep(document: bytes) -> bool:
    if document.count(b"[") + document.count(b"{") <= NESTING_MAX:
        return False
    rest = _STRING.sub(b"", document).translate(_ALIKE, _NO_BRACKETS)
    for _ in range(NESTING_MAX):
        former = rest
        rest = rest.replace(b"[]", b"")
        if rest == former:  # nothing is left, or what does not match: no JSON, which the decoder says better where it is short
            return len(rest) > NESTING_MAX
    return bool(rest)
