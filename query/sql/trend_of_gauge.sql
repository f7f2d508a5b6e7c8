-- Trend of one gauge: statistics over the samples of each series, and the mean of each bucket.
-- One row per series and bucket; the statistics stand in each of a series' rows.
-- Percentiles are exact, interpolated between neighbours. The slope is the least-squares line's, per hour.
-- covered_seconds is the time that the samples stand for: the sum of the intervals they were taken at.
with sample as (
    select {keys}, {name} as name, seq, observed_at, {interval} as interval_seconds,
           cast({value} as double) as value
    from {relation}
    where {in_window} and {filter} and {value} is not null
),
statistic as (
    select {keys}, max_by(name, (observed_at, seq)) as newest_name,
           count(*) as n, min(value) as min, avg(value) as avg,
           {p50} as p50, {p95} as p95, max(value) as max,
           max_by(value, (observed_at, seq)) as last,
           regr_slope(value, {hours}) as slope_per_hour,
           sum(interval_seconds) as covered_seconds,
           max({epoch_us}) as newest_us
    from sample
    group by {keys}
),
point as (
    select {keys}, {bucket} as bucket, avg(value) as bucket_value,
           sum(interval_seconds) as bucket_covered_seconds
    from sample
    group by all
)
select statistic.*, bucket, bucket_value, bucket_covered_seconds
from statistic join point on {same_series}
