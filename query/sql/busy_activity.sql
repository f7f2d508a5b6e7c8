-- How long each GPU was busy by its utilization, for how much of that nearly nothing ran on it, and what that used.
-- Where the multiprocessors do not tell, the board's power against its limit stands in for them.
select host, gpu_uuid, max_by(gpu_index, (observed_at, seq)) as gpu_index,
       sum(stood_seconds) as seconds,
       sum(stood_seconds) filter (where is_busy) as busy_seconds,
       sum(stood_seconds) filter (where is_busy and sm_active_ratio is not null) as sm_seconds,
       sum(stood_seconds) filter (where is_busy and sm_active_ratio is null and power_ratio is not null) as power_seconds,
       sum(stood_seconds) filter (where is_empty) as empty_seconds,
       sum(stood_seconds * power_watts) filter (where is_empty) as empty_joules,
       sum(stood_seconds * sm_active_ratio) filter (where is_busy) as sm_active_seconds,
       avg(sm_occupancy_ratio) filter (where is_busy) as sm_occupancy_ratio,
       avg(tensor_active_ratio) filter (where is_busy) as tensor_active_ratio,
       avg(dram_active_ratio) filter (where is_busy) as dram_active_ratio,
       avg(power_ratio) filter (where is_busy) as power_ratio
from (
    select *, utilization_percent >= {least} as is_busy,
           is_busy and coalesce(sm_active_ratio < {sm_below}, power_ratio < {power_below}) as is_empty
    from (
        select *, coalesce(interval_seconds, {expected}) as stood_seconds,
               power_watts / power_limit_watts as power_ratio
        from {relation}
        where {in_window} and mig_gpu_instance_id is null
    ) as standing
) as sampled
group by host, gpu_uuid
