-- The head of a ledger: the newest events as frames (the tail), and the catalogue of sealed segments.

create table ledger (
    id text not null,                       -- a UUID, repeated in the footer of every segment
    created_at_us integer not null,
    next_seq integer not null               -- the seq that the next event will get
) strict;

create table frame (
    first_seq integer primary key,
    event_count integer not null,
    kind text not null,
    version integer not null,
    host text not null,
    boot_id text not null,
    first_observed_at_us integer not null,
    last_observed_at_us integer not null,
    columns blob not null
) strict;

create table segment (
    path text primary key,                  -- relative to the ledger's folder
    kind text not null,
    version integer not null,
    level integer not null,
    host text not null,
    first_seq integer not null,
    last_seq integer not null,
    event_count integer not null,
    first_observed_at_us integer not null,
    last_observed_at_us integer not null,
    size_bytes integer not null
) strict, without rowid;

create index segment_by_time on segment (kind, last_observed_at_us, first_observed_at_us);

create table unfinished_segment (           -- announced before it is written, gone once it is in the catalogue
    path text primary key
) strict, without rowid;
