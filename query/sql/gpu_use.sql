-- How each GPU was used in the window: in the middle, and at its busiest.
select host, gpu_uuid,
       max_by(gpu_index, seq) as gpu_index,
       count(*) as n,
       avg(utilization_percent) as utilization_percent,
       max(utilization_percent) as utilization_maximum_percent,
       max(memory_used_bytes) as memory_used_maximum_bytes,
       min(coalesce(memory_available_bytes, memory_free_bytes, memory_total_bytes - memory_used_bytes))
           as memory_available_minimum_bytes,
       max_by(memory_kind, seq) as memory_kind,
       max_by(memory_total_bytes, seq) as memory_total_bytes,
       max(observed_at) as last_at,
       sum(coalesce(interval_seconds, 1.0)) as covered_seconds
from {relation}
where {in_window}
group by host, gpu_uuid
