"""What a case is."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tests.support.builds import BASE, Content

WHY: Final[Mapping[str, str]] = {
    "attributes": "Sampan keeps extended attributes that are not file capabilities, and those too when one file is copied, as BuildKit does",
    "buildkit": "Sampan takes what only BuildKit takes",
    "empty-platform": "Sampan has BuildKit's sentence for a platform that a variable leaves empty",
    "ignore-file": "Sampan knows NAME.dockerignore, as BuildKit does",
    "opaque": "overlayfs calls every new directory opaque; Sampan's layers say so only where a directory is hidden",
    "own-group": "Sampan takes the user's own group where there is none of its name, as BuildKit does",
    "own-link": "Sampan does not make what an archive's own dangling link leads to",
    "owners": "Sampan refuses numbers that no file can have; docker's become root's",
    "stages": "Sampan does not build stages that nothing needs, and does not count them, as BuildKit",
    "target": "Sampan takes a stage's number, as BuildKit does",
    "words": "the words are those of 28.2",
    "work-dir": "Sampan makes a container's working directory when it starts",
    "xz": "the dockerd was one without the program xz",
}
"""Why Sampan differs. docs/dockerfile.md tells users what of it is of use to them."""


class Case(NamedTuple):
    """One build."""

    files: dict[str, Content]
    query: Mapping[str, Any] = {}
    again: bool = False
    """Whether it is the second of two builds that is looked at: that out of the cache."""
    why: str = ""
    """A key of WHY; then sampan.json has what is ours."""


def case(text: str, files: dict[str, Content] | None = None, *, again: bool = False, why: str = "", **query: Any) -> Case:
    """A case with a Dockerfile, in which BASE is the base image's name, and the other files."""
    return Case({"Dockerfile": text.replace("BASE", BASE), **(files or {})}, query, again, why)
