"""The table of errors is what docs/registry.md says."""

import json
from pathlib import Path

import pytest

from sampan.registry.errors import SENT_AS, TABLE, RegistryError

DOCUMENT = (Path(__file__).parents[3] / "docs/registry.md").read_text()
SPECIFIED = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
]


@pytest.mark.parametrize("code", TABLE)
def test_each_is_documented_and_sent_by_a_known_code(code: str) -> None:
    shown = f"`{SENT_AS[code]}` ({code.lower().replace('_', ' ')})" if code in SENT_AS else f"`{code}`"
    assert f"| {shown} | {TABLE[code].status} | {TABLE[code].meaning} |\n" in DOCUMENT
    sent = json.loads(RegistryError(code).document())["errors"][0]["code"]
    assert sent in SPECIFIED or sent in ("UNKNOWN", "UNAVAILABLE")
