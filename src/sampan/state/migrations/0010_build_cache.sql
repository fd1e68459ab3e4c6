-- What a build step came to, by everything it was made of: an image that is there already need not be built again.
CREATE TABLE build_cache (
    key         TEXT PRIMARY KEY,         -- sha256 of the parent image, the command, the config and what the step reads
    image_id    TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    description TEXT NOT NULL,            -- created_by of its history
    created     INTEGER NOT NULL,         -- ns since the epoch
    last_used   INTEGER NOT NULL,         -- ns since the epoch
    uses        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX build_cache_images ON build_cache (image_id);
