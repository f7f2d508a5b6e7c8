-- Part of what is asked of one counter in a long window: its runs per minute and per hour, and those that the events in
-- no cell make, a minute each. What it grew by within a run is known; the step from one run to the next is taken here,
-- by the rules of trend_of_counter.
reading as (
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
           case when is_step then (total - total_before) / 1.0 end as grown, -- a cast would refuse NULL on ClickHouse
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
           max(time_us) filter (where value is not null) as last_step_us,
           max_by(seq, (observed_at, seq)) filter (where value is not null) as last_step_seq,
           coalesce(sum(took_seconds), 0.0) as elapsed_seconds, {bucket} as bucket
    from sample
    group by {keys}, boot_id, counter_epoch, name, minute, bucket
    union all
    select {keys}, boot_id, counter_epoch, name, first_seq, last_seq,
           {first_us} as first_us, {last_us} as last_us, {cell_hour} as hour, false as is_event,
           first_reading, last_reading, covered_seconds, n, minimum, maximum, total, last,
           {last_step_us} as last_step_us, last_step_seq, elapsed_seconds,
           {cell_bucket} as bucket
    from {minute_cells}
    where {in_minute_cells} and {cell_filter}
    union all
    select {keys}, boot_id, counter_epoch, name, first_seq, last_seq,
           {first_us} as first_us, {last_us} as last_us, {cell_hour} as hour, false as is_event,
           first_reading, last_reading, covered_seconds, n, minimum, maximum, total, last,
           {last_step_us} as last_step_us, last_step_seq, elapsed_seconds,
           {cell_bucket} as bucket
    from {hour_cells}
    where {in_hour_cells} and {cell_filter}
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
)
