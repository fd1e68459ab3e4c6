-- Networks that users made, and several end-points of a container in place of one.
CREATE TABLE networks (
    id       TEXT PRIMARY KEY CHECK (length(id) = 64),
    name     TEXT NOT NULL UNIQUE,
    created  INTEGER NOT NULL,              -- ns since the epoch
    document BLOB NOT NULL                  -- JSON: sampan.state.networks.NetworkRow
) STRICT;

UPDATE containers
   SET state = CAST(json_remove(json_set(CAST(state AS TEXT),
                                         '$.endpoints', json_array(json_extract(CAST(state AS TEXT), '$.endpoint'))),
                                '$.endpoint') AS BLOB)
 WHERE json_extract(CAST(state AS TEXT), '$.endpoint') IS NOT NULL;

-- {} meant "that of the mode" until containers could leave their last network.
UPDATE containers
   SET networking = CAST(json_remove(CAST(networking AS TEXT), '$.EndpointsConfig') AS BLOB)
 WHERE json_extract(CAST(networking AS TEXT), '$.EndpointsConfig') = '{}';
