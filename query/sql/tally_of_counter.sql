-- How many rates of one counter in a long window fell into each bucket of a sketch: from the sketches of its hours, the
-- events that are in no cell, and the steps between runs that are in no sketch. One row per series and bucket.
with
{runs},
sketched as (
    select {keys}, unnest(sketch) as part
    from {hour_cells}
    where {in_sketched} and {cell_filter}
),
rate as (
    select {keys}, value from sample where value is not null
    union all
    select {keys}, value from between_runs where is_event or is_event_before or hour <> hour_before
)
select {keys}, part.bucket as sketch_bucket, cast(sum(part.n) as bigint) as n
from sketched
group by {keys}, sketch_bucket
union all
select {keys}, {sketch_bucket} as sketch_bucket, count(*) as n
from rate
group by {keys}, sketch_bucket
