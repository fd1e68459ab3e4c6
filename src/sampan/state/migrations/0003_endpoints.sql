-- Addresses and ports of an end-point were stored twice: once more in the network's own words, of which only the veth's name is new.
UPDATE containers
   SET state = CAST(json_remove(json_set(CAST(state AS TEXT),
                                         '$.endpoint.veth', json_extract(CAST(state AS TEXT), '$.endpoint.saved.veth')),
                                '$.endpoint.saved') AS BLOB)
 WHERE json_extract(CAST(state AS TEXT), '$.endpoint.saved.veth') IS NOT NULL;
