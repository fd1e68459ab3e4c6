-- One row a container. The JSON columns hold frozen documents: config and host_config as given at create (defaults merged),
-- state as the engine last knew it.
CREATE TABLE containers (
    id           TEXT PRIMARY KEY CHECK (length(id) = 64),
    name         TEXT NOT NULL UNIQUE,
    created      INTEGER NOT NULL,          -- ns since the epoch
    image_id     TEXT NOT NULL,             -- sha256:<hex> of the image's config
    image_name   TEXT NOT NULL,             -- as the user wrote it
    chain_id     TEXT,                      -- parent of the writable layer; NULL: an image without layers
    config       BLOB NOT NULL,             -- JSON: docker's Config
    host_config  BLOB NOT NULL,             -- JSON: docker's HostConfig
    networking   BLOB NOT NULL,             -- JSON: docker's NetworkingConfig
    state        BLOB NOT NULL              -- JSON: sampan.state.containers.ContainerState
) STRICT;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
