-- What recovery, verification and re-sent batches need.

create table checksum (                         -- of a segment; a table of its own, so that `segment` stays as it was
    segment_path text primary key,
    sha256 text not null,                       -- of the whole file, in hexadecimal
    verified_at_us integer not null             -- when the file was last seen to have it
) strict, without rowid;

create trigger checksum_goes_with_its_segment after delete on segment begin
    delete from checksum where segment_path = old.path;
end;

create table batch_key (                        -- batches that bore an idempotency key; the newest, within bounds
    number integer primary key,
    key text not null unique,
    first_seq integer not null,
    event_count integer not null,
    appended_at_us integer not null
) strict;

create index batch_key_by_time on batch_key (appended_at_us);
