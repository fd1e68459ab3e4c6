"""Where everything lies: the one place that knows the layout. It is docker-registry's, so that a registry changes hands by its directory.

    docker/registry/v2/
      blobs/ALGORITHM/XX/HEX/data                            content: layers, configs, manifests
      repositories/NAME/
        _layers/ALGORITHM/HEX/link                           this repository has the blob
        _manifests/revisions/ALGORITHM/HEX/link              this repository has the manifest
        _manifests/tags/TAG/current/link                     the manifest's digest
        _manifests/referrers/ALGORITHM/HEX/ALGORITHM/HEX/link    ours: manifests (last) whose subject is (first)
        _manifests/damaged/link                            ours: all that manifests that cannot be read may name
        _uploads/ID/{data,startedat}                       docker-registry's: on their way in when it ended
    sampan/uploads/ID/{data,upload.json}                     ours: on their way in
    sampan/tmp/                                              ours: half-written files

A link's content is a digest, or some, one on each line. Keys have "/" between their parts, and no part comes from a request without the
check of `names.py`.
"""

from sampan.digest import Digest
from sampan.registry.names import is_digest, parts_of

V2 = "docker/registry/v2"
BLOBS = f"{V2}/blobs"
REPOSITORIES = f"{V2}/repositories"
UPLOADS = "sampan/uploads"
TEMPORARY = "sampan/tmp"
MARKS = ("_layers", "_manifests", "_uploads")
"""What makes a directory a repository; no part of a name begins with `_`."""


def link_of(*digests: str) -> bytes:
    """A link's content."""
    return "\n".join(digests).encode()


def digests_in(link: bytes) -> list[Digest]:
    """Those of a link's content that are digests: a damaged disk, or another program, may have left anything."""
    return [Digest(line) for line in link.decode("ascii", "replace").split() if is_digest(line)]


def digest_in(link: bytes) -> Digest | None:
    """The one that a link has; None: it has none."""
    found = digests_in(link)
    return found[0] if len(found) == 1 else None


def blob(digest: str) -> str:
    """Content."""
    algorithm, encoded = parts_of(digest)
    return f"{BLOBS}/{algorithm}/{encoded[:2]}/{encoded}/data"


def repository(name: str) -> str:
    """The directory of a repository, and of those below its name."""
    return f"{REPOSITORIES}/{name}"


def layers(name: str) -> str:
    """The directory of a repository's links to blobs."""
    return f"{REPOSITORIES}/{name}/_layers"


def layer(name: str, digest: str) -> str:
    """The link of one blob."""
    algorithm, encoded = parts_of(digest)
    return f"{layers(name)}/{algorithm}/{encoded}/link"


def revisions(name: str) -> str:
    """The directory of a repository's links to manifests."""
    return f"{REPOSITORIES}/{name}/_manifests/revisions"


def revision(name: str, digest: str) -> str:
    """The link of one manifest."""
    algorithm, encoded = parts_of(digest)
    return f"{revisions(name)}/{algorithm}/{encoded}/link"


def tags(name: str) -> str:
    """The directory of a repository's tags."""
    return f"{REPOSITORIES}/{name}/_manifests/tags"


def tag(name: str, text: str) -> str:
    """The link of one tag."""
    return f"{tags(name)}/{text}/current/link"


def tag_directory(name: str, text: str) -> str:
    """All of one tag; docker-registry has its history there, too."""
    return f"{tags(name)}/{text}"


def subjects(name: str) -> str:
    """The directory of those that manifests of a repository refer to."""
    return f"{REPOSITORIES}/{name}/_manifests/referrers"


def referrers(name: str, subject: str) -> str:
    """The directory of the links to manifests with this subject."""
    algorithm, encoded = parts_of(subject)
    return f"{subjects(name)}/{algorithm}/{encoded}"


def referrer(name: str, subject: str, digest: str) -> str:
    """The link of one of them."""
    algorithm, encoded = parts_of(digest)
    return f"{referrers(name, subject)}/{algorithm}/{encoded}/link"


def left_uploads(name: str) -> str:
    """The directory of docker-registry's own unfinished uploads; ours are elsewhere."""
    return f"{REPOSITORIES}/{name}/_uploads"


def damaged(name: str) -> str:
    """What the collector has noted of manifests that cannot be read."""
    return f"{REPOSITORIES}/{name}/_manifests/damaged/link"
