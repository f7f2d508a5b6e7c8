-- Rollups: the catalogue of their files, and how far they reach.

create table rollup (
    path text primary key,                  -- relative to the ledger's folder
    kind text not null,
    step text not null,                     -- minute or hour: the width of its cells
    first_begins_at_us integer not null,    -- of its earliest cell
    last_ends_at_us integer not null,       -- of its latest
    row_count integer not null,
    size_bytes integer not null
) strict, without rowid;

create index rollup_by_time on rollup (kind, step, last_ends_at_us, first_begins_at_us);

create table rolled (                       -- its rollups hold all events of a kind that were observed before
    kind text primary key,                  -- `before_us` with a seq up to `upto_seq`, and no others
    before_us integer not null,
    upto_seq integer not null,
    revision integer not null               -- of its files; each change of them has the next
) strict, without rowid;

create table rolling (                      -- one row: when the rollups were last up to date
    done_at_us integer not null
) strict;

create table rolled_hour (                  -- how many events of a kind went into the cells of one hour
    kind text not null,
    begins_at_us integer not null,
    event_count integer not null,
    primary key (kind, begins_at_us)
) strict, without rowid;
