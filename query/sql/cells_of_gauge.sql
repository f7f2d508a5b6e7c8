-- What one gauge did in each bucket of a long window: from its cells per minute and per hour, and the events in no cell.
-- One row per series and bucket. The last three sums are for the least-squares line through the cells' means.
with sample as (
    select {keys}, {name} as name, seq, observed_at, {interval} as interval_seconds, cast({value} as double) as value
    from {relation}
    where {in_window} and {not_rolled} and {filter} and {value} is not null
),
cell as (
    select {keys}, name, max(seq) as last_seq, max({epoch_us}) as last_us, sum(interval_seconds) as covered_seconds,
           count(*) as n, min(value) as minimum, max(value) as maximum,
           sum(value) as total, max_by(value, (observed_at, seq)) as last, {bucket} as bucket, avg({hours}) as hours
    from sample
    group by {keys}, name, bucket
    union all
    select {keys}, name, last_seq, {last_us} as last_us, covered_seconds, n, minimum, maximum,
           total, last, {cell_bucket} as bucket, {cell_hours} as hours
    from {minute_cells}
    where {in_minute_cells} and {cell_filter}
    union all
    select {keys}, name, last_seq, {last_us} as last_us, covered_seconds, n, minimum, maximum,
           total, last, {cell_bucket} as bucket, {cell_hours} as hours
    from {hour_cells}
    where {in_hour_cells} and {cell_filter}
)
select {keys}, bucket, max_by(name, (last_us, last_seq)) as name, max(last_us) as last_us,
       sum(covered_seconds) as covered_seconds, cast(sum(n) as bigint) as n,
       min(minimum) as min, max(maximum) as max, sum(total) as total, cast(sum(n) as double) as weight,
       max_by(last, (last_us, last_seq)) as last,
       sum(n * hours) as sum_x, sum(n * hours * hours) as sum_xx, sum(total * hours) as sum_xy, sum(total) as sum_y
from cell
group by {keys}, bucket
