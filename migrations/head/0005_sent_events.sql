-- Events that a source may send again: what was stored, by source and the source's own id.

create table event_key (                    -- of two generations: the newer fills up, then the older goes as a whole
    generation integer not null,
    key integer not null,                   -- 64 bits of BLAKE2b over source and source_event_id
    primary key (generation, key)
) strict, without rowid;

create table event_key_generation (
    generation integer primary key,
    key_count integer not null
) strict;
