-- A fragment: p50 and p95 of each series from how many values fell into each bucket of a sketch (the relation `part`).
-- Interpolated between the two neighbours of the rank, as the exact ones are.
tally as (
    select {keys}, bucket, sum(n) as n
    from part
    group by all
),
ranked as (
    select {keys}, {sketch_value} as value,
           sum(n) over (partition by {keys} order by bucket) as upto,
           sum(n) over (partition by {keys}) as whole
    from tally
),
percentile as (
    select {keys},
           min(value) filter (where upto > floor(0.5 * (whole - 1))) as below_p50,
           min(value) filter (where upto > ceil(0.5 * (whole - 1))) as above_p50,
           max(0.5 * (whole - 1) - floor(0.5 * (whole - 1))) as share_p50,
           min(value) filter (where upto > floor(0.95 * (whole - 1))) as below_p95,
           min(value) filter (where upto > ceil(0.95 * (whole - 1))) as above_p95,
           max(0.95 * (whole - 1) - floor(0.95 * (whole - 1))) as share_p95
    from ranked
    group by {keys}
)
