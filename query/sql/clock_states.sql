-- How long each GPU was held by which set of reasons, and at which clock it ran while it was busy.
select host, gpu_uuid, max_by(gpu_index, (observed_at, seq)) as gpu_index, clock_event_reasons_bitmask,
       sum(stood_seconds) as seconds,
       sum(stood_seconds) filter (where is_busy) as busy_seconds,
       sum(clock_sm_hertz * stood_seconds) filter (where is_busy) as busy_cycles
from (
    select *, coalesce(interval_seconds, {expected}) as stood_seconds,
           utilization_percent >= {least} and clock_sm_hertz is not null as is_busy
    from {relation}
    where {in_window} and mig_gpu_instance_id is null
) as sampled
group by host, gpu_uuid, clock_event_reasons_bitmask
