-- What recovery, verification and re-sent batches need.

alter table segment add column sha256 text;     -- of the whole file, in hexadecimal; NULL where it was never taken

create table batch_key (                        -- batches that bore an idempotency key; the newest, within bounds
    number integer primary key,
    key text not null unique,
    first_seq integer not null,
    event_count integer not null,
    appended_at_us integer not null
) strict;

create index batch_key_by_time on batch_key (appended_at_us);
