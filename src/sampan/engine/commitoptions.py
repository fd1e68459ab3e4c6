"""What `POST /commit` asks for."""

from collections.abc import Sequence

import msgspec


class CommitOptions(msgspec.Struct, frozen=True):
    """Its parameters but the container. epoch: SOURCE_DATE_EPOCH in seconds, for an image that is the same each time."""

    repo: str = ""
    tag: str = ""
    author: str = ""
    comment: str = ""
    changes: Sequence[str] = ()
    pause: bool = True
    epoch: int | None = None
