-- Committed layers. Their files are in a directory of the snapshot driver that made them; a directory without a row is garbage.
CREATE TABLE layers (
    chain_id   TEXT PRIMARY KEY,
    parent     TEXT REFERENCES layers (chain_id),
    diff_id    TEXT NOT NULL,
    driver     TEXT NOT NULL,
    directory  TEXT NOT NULL UNIQUE,      -- name below the driver's own directory
    size       INTEGER NOT NULL,          -- sum of the sizes of its regular files
    entries    INTEGER NOT NULL
) STRICT;

CREATE TABLE images (
    id          TEXT PRIMARY KEY,         -- sha256 of config
    config      BLOB NOT NULL,            -- the config document, byte for byte
    parent      TEXT NOT NULL DEFAULT '', -- image it was committed from, if it is ours
    added       INTEGER NOT NULL,         -- ns since the epoch
    last_tagged INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE image_tags (
    repository  TEXT NOT NULL,            -- canonical: docker.io/library/busybox
    tag         TEXT NOT NULL,
    image_id    TEXT NOT NULL REFERENCES images (id),
    PRIMARY KEY (repository, tag)
) STRICT;

CREATE TABLE image_digests (
    repository  TEXT NOT NULL,
    digest      TEXT NOT NULL,            -- of the manifest as the registry knows it
    image_id    TEXT NOT NULL REFERENCES images (id),
    PRIMARY KEY (repository, digest)
) STRICT;
