-- Trend of one counter over a long window: from its runs per minute and per hour, and the events that are in none.
-- The same rows as of trend_of_counter. The events make runs of a minute, too. What a counter grew by within a run is
-- known; the step from one run to the next is taken here, by the same rules. A sketch holds the rates within its hour.
with reading as (
    select {keys}, boot_id, counter_epoch, {name} as name, seq, observed_at, {interval} as interval_seconds,
           {minute} as minute, {value} as total, lag({value}) over step as total_before,
           {epoch_us} as time_us, lag({epoch_us}) over step as time_us_before
    from {relation}
    where {in_window} and {not_rolled} and {filter} and {value} is not null
    window step as (partition by {keys}, boot_id, counter_epoch, {minute} order by observed_at, seq)
),
sample as (
    select *,
           total >= total_before and time_us > time_us_before as is_step,
           case when is_step then (total - total_before) / 1.0 end as grown,
           case when is_step then (time_us - time_us_before) / 1000000.0 end as took_seconds,
           grown / took_seconds as value
    from reading
),
run as (
    select {keys}, boot_id, counter_epoch, name, min(seq) as first_seq, max(seq) as last_seq,
           min(time_us) as first_us, max(time_us) as last_us, min({hour}) as hour, true as is_event,
           cast(min_by(total, (observed_at, seq)) as decimal(38, 3)) as first_reading,
           cast(max_by(total, (observed_at, seq)) as decimal(38, 3)) as last_reading,
           sum(interval_seconds) as covered_seconds, count(value) as n, min(value) as minimum, max(value) as maximum,
           coalesce(sum(grown), 0.0) as total, max_by(value, (observed_at, seq)) as last,
           coalesce(sum(took_seconds), 0.0) as elapsed_seconds, {bucket} as bucket
    from sample
    group by {keys}, boot_id, counter_epoch, name, minute, bucket
    union all
    select {keys}, boot_id, counter_epoch, name, first_seq, last_seq,
           {first_us} as first_us, {last_us} as last_us, {cell_hour} as hour, false as is_event,
           first_reading, last_reading, covered_seconds, n, minimum, maximum, total, last, elapsed_seconds,
           {cell_bucket} as bucket
    from {minute_cells}
    where {in_minute_cells} and field = {field} and {cell_filter}
    union all
    select {keys}, boot_id, counter_epoch, name, first_seq, last_seq,
           {first_us} as first_us, {last_us} as last_us, {cell_hour} as hour, false as is_event,
           first_reading, last_reading, covered_seconds, n, minimum, maximum, total, last, elapsed_seconds,
           {cell_bucket} as bucket
    from {hour_cells}
    where {in_hour_cells} and field = {field} and {cell_filter}
),
follow as (
    select *, lag(last_reading) over step as reading_before, lag(last_us) over step as us_before,
           lag(hour) over step as hour_before, lag(is_event) over step as is_event_before
    from run
    window step as (partition by {keys}, boot_id, counter_epoch order by first_us, first_seq)
),
between_runs as (
    select *, (first_reading - reading_before) / 1.0 as grown, (first_us - us_before) / 1000000.0 as took_seconds,
           grown / took_seconds as value
    from follow
    where first_reading >= reading_before and first_us > us_before
),
cell as (
    select {keys}, name, last_seq, last_us, covered_seconds, n, minimum, maximum, total, last, elapsed_seconds,
           bucket, ((first_us + last_us) / 2.0 - {start}) / 3600000000.0 as hours
    from run
    union all
    select {keys}, name, first_seq as last_seq, first_us as last_us, 0 as covered_seconds,
           1 as n, value as minimum, value as maximum, grown as total, value as last, took_seconds as elapsed_seconds,
           bucket, (first_us - {start}) / 3600000000.0 as hours
    from between_runs
),
statistic as (
    select {keys}, max_by(name, (last_us, last_seq)) as newest_name,
           cast(sum(n) as bigint) as n, min(minimum) filter (where n > 0) as min, sum(total) / sum(elapsed_seconds) as avg,
           max(maximum) filter (where n > 0) as max,
           max_by(last, (last_us, last_seq)) filter (where n > 0) as last,
           (sum(n) * sum(n * hours * total / elapsed_seconds) filter (where n > 0)
               - sum(n * total / elapsed_seconds) filter (where n > 0) * sum(n * hours))
               / nullif(sum(n) * sum(n * hours * hours) - sum(n * hours) * sum(n * hours), 0) as slope_per_hour,
           sum(total) as increase,
           sum(covered_seconds) as covered_seconds,
           max(last_us) as newest_us
    from cell
    group by {keys}
    having sum(n) > 0
),
point as (
    select {keys}, bucket,
           sum(total) filter (where n > 0) / sum(elapsed_seconds) filter (where n > 0) as bucket_value
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
    from between_runs
    where is_event or is_event_before or hour <> hour_before
    union all
    select {keys}, {sketch_bucket} as bucket, count(*) as n
    from sample
    where value is not null
    group by {keys}, bucket
),
{percentile}
select statistic.*, {percentiles}, bucket, bucket_value
from statistic join point on {same_series} left join percentile on {same_percentile}
