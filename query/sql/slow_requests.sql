-- The requests furthest beyond the limit of their own operation and model.
-- What cannot be beyond any limit is left out first, by a constant with which a scan skips whole blocks.
with judged as (
    select {columns}, {expected} as expected_seconds, {limit} as limit_seconds
    from {relation}
    where {in_window} and {filter} and duration_seconds >= {least}
)
select *, duration_seconds - expected_seconds as excess_seconds, count(*) over () as slow_count
from judged
where duration_seconds >= limit_seconds
order by excess_seconds desc, seq
limit {top}
