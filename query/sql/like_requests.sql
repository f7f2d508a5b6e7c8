-- Requests like one, that ended well before it: evenly spread over the window, some thousands at most.
with numbered as (
    select *, row_number() over (order by seq) as place, count(*) over () as total
    from {relation}
    where {in_window} and {filter} and status = 'ok' and duration_seconds is not null and seq <> {seq}
)
select {columns}
from numbered
where place % cast(greatest(1, floor(total / 4000.0)) as bigint) = 0
order by seq
