-- Compaction and retention: files on their way out, windows that are held, and when upkeep last ran.

create table removable_file (               -- out of the catalogue; removed once no reader can have it in its list
    path text primary key,                  -- relative to the ledger's folder
    size_bytes integer not null,
    removable_at_us integer not null
) strict, without rowid;

create table hold (                         -- retention leaves what meets a held window
    id integer primary key,
    started_at_us integer not null,
    ended_at_us integer not null,           -- half-open
    why text not null,
    created_at_us integer not null
) strict;

create table upkeep (                       -- one row: tells a clock that leapt from time that passed
    last_run_at_us integer not null,
    age_rests_until_us integer not null     -- retention by age waits until then
) strict;
