-- Trend of one gauge: statistics over the samples of each series, and the mean of each bucket.
-- One row per series and bucket; the statistics stand in each of a series' rows.
-- Percentiles are exact, interpolated between neighbours. The slope is the least-squares line's, per hour.
-- covered_seconds is the time that the samples stand for: the sum of the intervals they were taken at.
with sample as (
    select {keys}, {label} as label, observed_at, {interval} as interval_seconds,
           cast({value} as double) as value
    from {relation}
    where observed_at >= {start} and observed_at < {end} and {value} is not null and {filter}
),
statistic as (
    select {keys}, max_by(label, observed_at) as label,
           count(*) as n, min(value) as min, avg(value) as avg,
           {p50} as p50, {p95} as p95, max(value) as max,
           max_by(value, observed_at) as last,
           regr_slope(value, {hours}) as slope_per_hour,
           cast(null as double) as increase,
           sum(interval_seconds) as covered_seconds
    from sample
    group by {keys}
),
point as (
    select {keys}, {bucket} as bucket, avg(value) as bucket_value
    from sample
    group by all
)
select label, statistic.{first_key} as series, n, min, avg, p50, p95, max, last, slope_per_hour,
       increase, covered_seconds, bucket, bucket_value
from statistic join point using ({keys})
order by label, series, bucket
