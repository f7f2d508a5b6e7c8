-- Trend of one gauge over a long window: from its cells per minute and per hour, and the events that are in no cell.
-- The same rows as of trend_of_gauge. Percentiles are of the sketches, which only the cells of an hour bear, so hours
-- count for them that the window may only touch. The slope is of the cells' means, each at the middle of its samples.
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
    select {keys}, name, last_seq, {last_us} as last_us, covered_seconds, n, minimum, maximum, total, last,
           {cell_bucket} as bucket, {cell_hours} as hours
    from {minute_cells}
    where {in_minute_cells} and field = {field} and {cell_filter}
    union all
    select {keys}, name, last_seq, {last_us} as last_us, covered_seconds, n, minimum, maximum, total, last,
           {cell_bucket} as bucket, {cell_hours} as hours
    from {hour_cells}
    where {in_hour_cells} and field = {field} and {cell_filter}
),
statistic as (
    select {keys}, max_by(name, (last_us, last_seq)) as newest_name,
           cast(sum(n) as bigint) as n, min(minimum) as min, sum(total) / sum(n) as avg, max(maximum) as max,
           max_by(last, (last_us, last_seq)) as last,
           (sum(n) * sum(total * hours) - sum(total) * sum(n * hours))
               / nullif(sum(n) * sum(n * hours * hours) - sum(n * hours) * sum(n * hours), 0) as slope_per_hour,
           sum(covered_seconds) as covered_seconds,
           max(last_us) as newest_us
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
    select {keys}, {sketch_bucket} as bucket, count(*) as n
    from sample
    group by {keys}, bucket
),
{percentile}
select statistic.*, {percentiles}, bucket, bucket_value
from statistic join point on {same_series} left join percentile on {same_percentile}
