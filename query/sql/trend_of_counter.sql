-- Trend of one counter: its rate per second between neighbouring readings of one boot and one counter epoch, then the
-- same statistics as of a gauge. A counter that went back without a new epoch (a wrap) gives no rate for that step, so a
-- rate is never negative. The mean weighs each rate by the time it held: it is the increase over the time it took.
-- covered_seconds counts every reading, also those that no step leads to: it says how many were taken, not used.
with reading as (
    select {keys}, {name} as name, seq, observed_at, {interval} as interval_seconds,
           {value} as total, lag({value}) over step as total_before,
           {epoch_us} as time_us, lag({epoch_us}) over step as time_us_before
    from {relation}
    where {in_window} and {filter} and {value} is not null
    window step as (partition by {keys}, boot_id, counter_epoch order by observed_at, seq)
),
sample as (
    select *,
           total >= total_before and time_us > time_us_before as is_step,
           case when is_step then (total - total_before) / 1.0 end as grown, -- a cast would refuse NULL on ClickHouse
           case when is_step then (time_us - time_us_before) / 1000000.0 end as elapsed_seconds,
           grown / elapsed_seconds as value
    from reading
),
statistic as (
    select {keys}, max_by(name, (observed_at, seq)) as newest_name,
           count(value) as n, min(value) as min, sum(grown) / sum(elapsed_seconds) as avg,
           {p50} as p50, {p95} as p95, max(value) as max,
           max_by(value, (observed_at, seq)) as last,
           regr_slope(value, {hours}) as slope_per_hour,
           sum(grown) as increase,
           sum(interval_seconds) as covered_seconds,
           max(time_us) as newest_us
    from sample
    group by {keys}
    having n > 0
),
point as (
    select {keys}, {bucket} as bucket, sum(grown) / sum(elapsed_seconds) as bucket_value,
           sum(interval_seconds) as bucket_covered_seconds
    from sample
    group by all
)
select statistic.*, bucket, bucket_value, bucket_covered_seconds
from statistic join point on {same_series}
