-- How many samples of one gauge in a long window fell into each bucket of a sketch: from the sketches of its hours, and
-- the events that are in no cell. One row per series and bucket.
with sketched as (
    select {keys}, unnest(sketch) as part
    from {hour_cells}
    where {in_sketched} and {cell_filter}
),
sample as (
    select {keys}, cast({value} as double) as value
    from {relation}
    where {in_window} and {not_rolled} and {filter} and {value} is not null
)
select {keys}, part.bucket as sketch_bucket, cast(sum(part.n) as bigint) as n
from sketched
group by {keys}, sketch_bucket
union all
select {keys}, {sketch_bucket} as sketch_bucket, count(*) as n
from sample
group by {keys}, sketch_bucket
