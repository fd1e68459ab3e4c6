-- Which compressed blob of a layer which repository had when we pulled or pushed it. Rows of layers that are gone are swept.
CREATE TABLE blob_sources (
    diff_id     TEXT NOT NULL,
    digest      TEXT NOT NULL,             -- sha256 of the compressed blob
    media_type  TEXT NOT NULL,
    size        INTEGER NOT NULL,          -- of the compressed blob, bytes
    repository  TEXT NOT NULL,             -- canonical, docker.io/library/busybox; '': what our own compression makes
    seen        INTEGER NOT NULL,          -- ns since the epoch
    PRIMARY KEY (diff_id, repository, digest)
) STRICT;

-- The manifest by which an image last came or went, byte for byte: pushed again it keeps its digest.
CREATE TABLE image_manifests (
    image_id    TEXT PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    media_type  TEXT NOT NULL,
    body        BLOB NOT NULL
) STRICT;
