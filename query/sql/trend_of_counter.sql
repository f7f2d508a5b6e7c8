-- Trend of one counter: its rate per second between neighbouring samples of one boot and one counter epoch, then the
-- same statistics as of a gauge. A counter that went back without a new epoch (a wrap) gives no rate for that step, so a
-- rate is never negative. The mean weighs each rate by the time it held: it is the increase over the covered time.
with reading as (
    select {keys}, {label} as label, observed_at, cast({value} as double) as value,
           lag(cast({value} as double)) over step as value_before,
           {epoch_us} as time_us,
           lag({epoch_us}) over step as time_us_before
    from {relation}
    where observed_at >= {start} and observed_at < {end} and {value} is not null and {filter}
    window step as (partition by {keys}, boot_id, counter_epoch order by observed_at, seq)
),
sample as (
    select {keys}, label, observed_at,
           value - value_before as increase,
           (time_us - time_us_before) / 1000000.0 as elapsed_seconds,
           (value - value_before) / ((time_us - time_us_before) / 1000000.0) as value
    from reading
    where value_before is not null and value >= value_before and time_us > time_us_before
),
statistic as (
    select {keys}, max_by(label, observed_at) as label,
           count(*) as n, min(value) as min, sum(increase) / sum(elapsed_seconds) as avg,
           {p50} as p50, {p95} as p95, max(value) as max,
           max_by(value, observed_at) as last,
           regr_slope(value, {hours}) as slope_per_hour,
           sum(increase) as increase,
           sum(elapsed_seconds) as covered_seconds
    from sample
    group by {keys}
),
point as (
    select {keys}, {bucket} as bucket, sum(increase) / sum(elapsed_seconds) as bucket_value
    from sample
    group by all
)
select label, statistic.{first_key} as series, n, min, avg, p50, p95, max, last, slope_per_hour,
       increase, covered_seconds, bucket, bucket_value
from statistic join point using ({keys})
order by label, series, bucket
