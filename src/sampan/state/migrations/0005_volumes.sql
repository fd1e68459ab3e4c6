-- Volumes. Their data is in volumes/<name>/_data below the data root; a directory without a row is never removed by itself.
CREATE TABLE volumes (
    name     TEXT PRIMARY KEY,
    driver   TEXT NOT NULL,
    created  INTEGER NOT NULL,        -- ns since the epoch
    labels   BLOB NOT NULL,           -- JSON: object or null
    options  BLOB NOT NULL,           -- JSON: object or null
    status   TEXT NOT NULL CHECK (status IN ('pending', 'ready', 'removing'))
                                      -- pending: made for a container whose row is still to come; removing: the user said so
) STRICT;

-- Which containers a volume is of. A volume with a row here cannot be deleted.
CREATE TABLE volume_references (
    volume        TEXT NOT NULL REFERENCES volumes (name),
    container_id  TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    PRIMARY KEY (volume, container_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX volume_references_of_container ON volume_references (container_id);

-- JSON: what is mounted into it, as decided at create (engine/mounting.py); NULL: from before there were volumes, see host_config.
ALTER TABLE containers ADD COLUMN mounts BLOB;
