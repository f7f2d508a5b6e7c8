-- Trend of one gauge over a long window: from its cells per minute and per hour, and the events that are in no cell.
-- The same rows as of trend_of_gauge. Percentiles are of the sketches, which only the cells of an hour bear, so hours
-- count for them that the window may only touch. The slope is of the cells' means, each at the middle of its samples.
with cell as (
    select {keys}, {name} as name, seq as last_seq, observed_at as last_at, {interval} as covered_seconds,
           1 as n, cast({value} as double) as minimum, cast({value} as double) as maximum,
           cast({value} as double) as total, cast({value} as double) as last,
           {bucket} as bucket, {hours} as hours, true as is_event
    from {relation}
    where {in_window} and {not_rolled} and {filter} and {value} is not null
    union all
    select {keys}, name, last_seq, last_at, covered_seconds, n, minimum, maximum, total, last,
           {cell_bucket} as bucket, {cell_hours} as hours, false as is_event
    from {minute_cells}
    where {in_minute_cells} and field = {field} and {cell_filter}
    union all
    select {keys}, name, last_seq, last_at, covered_seconds, n, minimum, maximum, total, last,
           {cell_bucket} as bucket, {cell_hours} as hours, false as is_event
    from {hour_cells}
    where {in_hour_cells} and field = {field} and {cell_filter}
),
statistic as (
    select {keys}, max_by(name, (last_at, last_seq)) as newest_name,
           cast(sum(n) as bigint) as n, min(minimum) as min, sum(total) / sum(n) as avg, max(maximum) as max,
           max_by(last, (last_at, last_seq)) as last,
           (sum(n) * sum(total * hours) - sum(total) * sum(n * hours))
               / nullif(sum(n) * sum(n * hours * hours) - sum(n * hours) * sum(n * hours), 0) as slope_per_hour,
           sum(covered_seconds) as covered_seconds,
           max({last_us}) as newest_us
    from cell
    group by {keys}
),
point as (
    select {keys}, bucket, sum(total) / sum(n) as bucket_value
    from cell
    group by all
),
sketched as (
    select {keys}, unnest(sketch) as part
    from {hour_cells}
    where {in_sketched} and field = {field} and {cell_filter}
),
part as (
    select {keys}, part.bucket as bucket, part.n as n
    from sketched
    union all
    select {keys}, {sketch_bucket} as bucket, 1 as n
    from (select *, last as value from cell where is_event)
),
{percentile}
select statistic.*, {percentiles}, bucket, bucket_value
from statistic join point on {same_series} left join percentile on {same_percentile}
