-- How many requests of each group finished in each bucket, how many failed, and how long they took.
-- Percentiles are exact, interpolated between neighbours.
select {groups}, {bucket} as bucket, count(*) as n,
       count(*) filter (where status in ('error', 'timeout', 'rejected')) as failed,
       sum(output_tokens) as output_tokens,
       {spreads}
from {relation}
where {in_window} and {filter}
group by all
order by all
