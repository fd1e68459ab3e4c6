"""Errors of the distribution API, as data: code → status, message, what it means (OCI distribution-spec, "Error Codes").

docs/registry.md has the same table, and a test compares the two.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec


class Kind(NamedTuple):
    """One row of the table."""

    status: int
    message: str
    meaning: str


TABLE: dict[str, Kind] = {
    "BLOB_UNKNOWN": Kind(404, "blob unknown to registry", "The repository has no such blob."),
    "BLOB_UPLOAD_INVALID": Kind(400, "blob upload invalid", "The upload cannot go on like this."),
    "BLOB_UPLOAD_UNKNOWN": Kind(404, "blob upload unknown to registry", "The upload never began, has ended, or was idle for too long."),
    "DIGEST_INVALID": Kind(400, "provided digest did not match uploaded content", "The digest is malformed, or not that of the content."),
    "MANIFEST_BLOB_UNKNOWN": Kind(404, "manifest references a manifest or blob unknown to registry", "What it names must be pushed first."),
    "MANIFEST_INVALID": Kind(400, "manifest invalid", "The manifest cannot be read, or is not of the type it is sent as."),
    "MANIFEST_UNKNOWN": Kind(404, "manifest unknown to registry", "The repository has no such tag or digest."),
    "NAME_INVALID": Kind(400, "invalid repository name", "The name is not one that a repository can have."),
    "NAME_UNKNOWN": Kind(404, "repository name not known to registry", "There is no such repository."),
    "PAGINATION_NUMBER_INVALID": Kind(400, "invalid number of results requested", "`n` is not a number, or is negative."),
    "RANGE_INVALID": Kind(416, "invalid content range", "A chunk that does not follow the last one, or a range beyond the blob's end."),
    "REQUEST_INVALID": Kind(400, "invalid request", "The query or the form has too many fields."),
    "SIZE_INVALID": Kind(400, "provided length did not match content length", "More or fewer bytes came than were announced."),
    "TAG_INVALID": Kind(400, "manifest tag did not match URI", "The tag is not one that a manifest can have."),
    "UNAUTHORIZED": Kind(401, "authentication required", "Nobody has logged in, or the password is wrong."),
    "DENIED": Kind(403, "requested access to the resource is denied", "The user may not do this there."),
    "UNSUPPORTED": Kind(405, "The operation is unsupported.", "No such operation here, or not on a mirrored repository."),
    "TOOMANYREQUESTS": Kind(429, "too many requests", "Too many failed logins, or too many uploads at once."),
    "TOOLARGE": Kind(413, "content too large", "The body is larger than the registry takes."),
    "UNAVAILABLE": Kind(503, "service unavailable", "The mirrored registry cannot be reached, or refuses."),
    "STORAGE_FULL": Kind(507, "insufficient storage", "The disk of the registry is full; an upload goes on where it ended."),
    "UNKNOWN": Kind(500, "unknown error", "The registry failed; its log says how."),
}
# The spec has no code for these; clients read the status.
SENT_AS = {
    "RANGE_INVALID": "BLOB_UPLOAD_INVALID",
    "TOOLARGE": "SIZE_INVALID",
    "PAGINATION_NUMBER_INVALID": "UNSUPPORTED",
    "REQUEST_INVALID": "UNSUPPORTED",
    "TAG_INVALID": "MANIFEST_INVALID",
    "STORAGE_FULL": "UNAVAILABLE",
}


class RegistryError(Exception):
    """What a request ends with when it does not succeed. code: a row of TABLE."""

    def __init__(self, code: str, detail: object = None, *, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        kind = TABLE[code]
        super().__init__(message or kind.message)
        self.code = code
        self.status = kind.status
        self.message = message or kind.message
        self.detail = detail
        self.headers = dict(headers or {})

    def document(self) -> bytes:
        """The body: `{"errors":[{"code","message","detail"}]}`."""
        item: dict[str, object] = {"code": SENT_AS.get(self.code, self.code), "message": self.message}
        if self.detail is not None:
            item["detail"] = self.detail
        return msgspec.json.encode({"errors": [item]}) + b"\n"
