-- What one counter did in each bucket of a long window: from its runs, and the steps between them.
-- One row per series and bucket. The last three sums are for the least-squares line through the mean rates.
with
{runs},
cell as (
    select {keys}, name, last_seq, last_us, covered_seconds, n, minimum, maximum, total, last, elapsed_seconds,
           last_step_us, last_step_seq, bucket, ((first_us + last_us) / 2.0 - {start}) / 3600000000.0 as hours,
           case when n > 0 then n * total / elapsed_seconds else 0.0 end as weighted
    from run
    union all
    select {keys}, name, first_seq as last_seq, first_us as last_us, 0 as covered_seconds,
           1 as n, value as minimum, value as maximum, grown as total, value as last, took_seconds as elapsed_seconds,
           first_us as last_step_us, first_seq as last_step_seq, bucket, (first_us - {start}) / 3600000000.0 as hours, value as weighted
    from between_runs
)
select {keys}, bucket, max_by(name, (last_us, last_seq)) as name, max(last_us) as last_us,
       sum(covered_seconds) as covered_seconds, cast(sum(n) as bigint) as n,
       min(minimum) as min, max(maximum) as max, sum(total) as total, sum(elapsed_seconds) as weight,
       max_by(last, (last_step_us, last_step_seq)) as last,
       sum(n * hours) as sum_x, sum(n * hours * hours) as sum_xx, sum(weighted * hours) as sum_xy,
       sum(weighted) as sum_y
from cell
group by {keys}, bucket
